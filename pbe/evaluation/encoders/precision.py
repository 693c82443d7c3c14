"""The numbers behind features: convolutions in fp32 on every device, and the digest of weights."""

import hashlib
from contextlib import AbstractContextManager

import torch
from torch import nn


def exact_convolutions() -> AbstractContextManager[None]:
    """Return a context in which a GPU computes convolutions in fp32; by default torch rounds their inputs to TF32."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def digest_weights(model: nn.Module, *facts: object) -> str:
    """Return a digest, 32 hex digits, of all named tensors of a model and of other facts that decide its output.

    It does not depend on the file that held the weights, nor on the device.
    """
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
