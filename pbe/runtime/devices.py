"""Where a model runs and in which precision: `auto`, or what the user names.

Auto takes a GPU if there is one, and bf16 where the processor multiplies it faster than fp32: NVIDIA GPUs from Ampere
on, and CPUs with AMX or AVX512-BF16. Elsewhere bf16 is emulated and slow, and auto takes fp32.
"""

import torch

from pbe.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device that `name` means: auto, cpu, cuda or cuda:n; raises UserError when it does not exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r}: unknown; choose auto, cpu, cuda or cuda:1") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r}: not supported; choose auto, cpu, cuda or cuda:1")
    num_gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        found = f"has {num_gpus} GPUs, numbered from 0" if num_gpus else "has no GPU that PyTorch can use"
        raise UserError(f"device {name!r}: this machine {found}; choose auto or cpu")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the weights and activations on the device; `name` is auto, fp32, bf16 or fp16.

    Raises UserError for fp16 on a CPU, where most operations lack it.
    """
    if name == "auto":
        return torch.bfloat16 if has_fast_bf16(device) else torch.float32
    if name not in DTYPES:
        raise UserError(f"precision {name!r}: unknown; choose auto, {', '.join(DTYPES)}")
    if name == "fp16" and device.type == "cpu":
        raise UserError("precision 'fp16': needs a GPU; choose auto, bf16 or fp32")
    return DTYPES[name]


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether the device has instructions that multiply bf16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16"))
