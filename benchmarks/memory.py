"""The GPU memory that fine-tuning at Stable Diffusion's size needs, by batch size and memory-saving switches.

    .venv/bin/python benchmarks/memory.py [--size sd] [--image-px 512] [--lora-rank 16] [--batch-sizes 1 2 4 8 16 32]

The figures are computed and do not need a GPU. They are those of training in bf16: weights and gradients are bf16, and
masters, moments and average of the trained parameters fp32; frozen parameters are bf16 alone. The tensors that the
forward pass saves for the backward pass are counted, each storage once, on a UNet that has shapes and no data; compiled
blocks save fewer. Not counted: temporary tensors of the backward pass, gaps of the allocator and the driver, about
1.5 GiB together. Training uses the cache, so that VAE and CLIP stay on the host.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from sizes import SIZES, random_batch, random_painter
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pbe.method.unet_blocks import ResidualBlock, Transformer
from pbe.training.lora import add_adapters
from pbe.training.painting_loss import PaintingLoss

GIB = 2**30
MOMENTS_8BIT = 2 * (1 + 4 / 256)  # bytes per parameter: two moments, each with a float32 scale per 256 values
CARDS_GB, LEFT_OUT_GIB = (12, 24, 80), 1.5
PARTS = {"weights": 2.0, "gradients": 2.0, "masters": 4.0, "moments": 8.0, "average": 4.0}  # bytes a trained parameter
EIGHT_BIT = PARTS | {"moments": MOMENTS_8BIT, "fp32 gradients": 4.0}  # bitsandbytes takes the gradients in fp32


class Kept:
    """The storages that the forward pass saves, by the block that they belong to; None is outside of any."""

    def __init__(self, losses: PaintingLoss) -> None:
        self.weights = {storage(p) for p in losses.parameters()}
        self.blocks: dict[int | None, dict[int, int]] = {None: {}}
        self.inputs: dict[int, int] = {}
        self.tensors: list[Tensor] = []  # kept alive, so that no storage's address is used twice
        self.block: int | None = None

    def pack(self, tensor: Tensor) -> Tensor:
        place = storage(tensor)
        if place not in self.weights and not any(place in block for block in self.blocks.values()):
            self.blocks.setdefault(self.block, {})[place] = tensor.untyped_storage().nbytes()
            self.tensors.append(tensor)
        return tensor

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.block = id(module)
        self.tensors += args
        self.inputs |= {storage(each): each.untyped_storage().nbytes() for each in args}

    def leave(self, *_: Any) -> None:
        self.block = None

    def plain(self) -> int:
        return sum(sum(block.values()) for block in self.blocks.values())

    def checkpointed(self) -> int:
        """Return the bytes with checkpointing: the tensors outside blocks, the blocks' inputs, and one block."""
        outside = self.blocks[None] | self.inputs
        return sum(outside.values()) + max(sum(b.values()) for key, b in self.blocks.items() if key is not None)


def storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def watched(losses: PaintingLoss, kept: Kept) -> Iterator[None]:
    """Record saved storages, by the blocks that `gradient_checkpointing` computes again."""
    blocks = [m for m in losses.unet.modules() if isinstance(m, ResidualBlock | Transformer)]
    handles = [m.register_forward_pre_hook(kept.enter) for m in blocks]
    handles += [m.register_forward_hook(kept.leave) for m in blocks]
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda t: t):
        yield
    for handle in handles:
        handle.remove()


@dataclass(frozen=True)
class Counted:
    """Bytes saved for the backward pass at a batch size, and numbers of parameters."""

    plain: int
    checkpointed: int
    parameters: int
    trained: int

    def activations(self, checkpointing: bool) -> int:
        return self.checkpointed if checkpointing else self.plain


def fill(losses: PaintingLoss) -> None:
    """Replace parameters on the device `meta` by bf16 ones, and buffers by fp32 ones, on the CPU."""
    for module in losses.modules():
        for name, p in module._parameters.items():
            if p is not None:
                empty = torch.empty(p.shape, dtype=torch.bfloat16)
                module._parameters[name] = nn.Parameter(empty, requires_grad=p.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = torch.empty(buffer.shape)  # type: ignore[union-attr]


def count(size: str, image_px: int, batch_size: int, lora_rank: int) -> Counted:
    """Count one training step's forward pass with bf16 weights."""
    with torch.device("meta"):
        painter = random_painter(size, image_px)
        if lora_rank:
            add_adapters(painter, lora_rank, seed=0)
    losses = PaintingLoss(painter).train()
    with FakeTensorMode():
        fill(losses)
        kept = Kept(losses)
        with watched(losses, kept):
            losses(random_batch(painter, batch_size, image_px)).mean()
        trained = sum(p.numel() for p in losses.trained().values())
        return Counted(kept.plain(), kept.checkpointed(), sum(p.numel() for p in losses.parameters()), trained)


def print_row(
    name: str, one: Counted, two: Counted, parts: dict[str, float], checkpointing: bool, batch_sizes: list[int]
) -> None:
    """Print the GiB at each batch size and the largest batch of each card, from the counts at batch sizes 1 and 2."""
    each = two.activations(checkpointing) - one.activations(checkpointing)
    frozen = one.parameters - one.trained
    base = PARTS["weights"] * frozen + sum(parts.values()) * one.trained + one.activations(checkpointing) - each
    fits = [max(0, int((card * 1e9 - LEFT_OUT_GIB * GIB - base) // each)) for card in CARDS_GB]
    sizes = "".join(f"{(base + n * each) / GIB:>7.1f}" for n in batch_sizes)
    print(f"{name:<44}{sizes}   " + "".join(f"{n:>7}" for n in fits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="sd")
    parser.add_argument("--image-px", type=int, default=512)
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    options = parser.parse_args()
    whole, lora = ([count(options.size, options.image_px, n, rank) for n in (1, 2)] for rank in (0, options.lora_rank))
    print(f"{whole[0].parameters / 1e6:.0f} M parameters, {whole[0].trained / 1e6:.0f} M trained; "
          f"adapters of rank {options.lora_rank}: {lora[0].trained / 1e6:.1f} M; {options.image_px} px")  # fmt: skip
    print("GiB of a whole model: " + ", ".join(f"{k} {b * whole[0].trained / GIB:.1f}" for k, b in PARTS.items()))
    heads = "".join(f"{n:>7}" for n in options.batch_sizes) + "   " + "".join(f"{card:>4} GB" for card in CARDS_GB)
    print(f"{'GiB at batch; the largest batch that fits':<44}{heads}")
    no_average = [{k: v for k, v in parts.items() if k != "average"} for parts in (PARTS, EIGHT_BIT)]
    for name, counts, parts, checkpointing in (
        ("defaults", whole, PARTS, False),
        ("gradient_checkpointing", whole, PARTS, True),
        ("average: cpu, gradient_checkpointing", whole, no_average[0], True),
        ("the same, optimizer: adamw8bit", whole, no_average[1], True),
        (f"lora_rank: {options.lora_rank}", lora, PARTS, False),
        (f"lora_rank: {options.lora_rank}, gradient_checkpointing", lora, PARTS, True),
    ):
        print_row(name, *counts, parts, checkpointing, options.batch_sizes)


if __name__ == "__main__":
    main()
