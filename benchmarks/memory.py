"""The GPU memory that fine-tuning at Stable Diffusion's size needs, by batch size and memory-saving switches.

    .venv/bin/python benchmarks/memory.py [--size sd] [--image-px 512] [--batch-sizes 1 2 4 8 16]

The figures are computed and do not need a GPU. Weights, gradients, moments and averages are counted by their number.
The tensors that the forward pass saves for the backward pass are counted, each storage once, on a UNet that has shapes
and no data, under bf16 autocast with CUDA's rule that norms stay in float32; they include autocast's copies of the
weights. Not counted: temporary tensors of the backward pass, gaps of the allocator and the driver, about 1.5 GiB
together. Training uses the cache, so that VAE and CLIP stay on the host.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from sizes import SIZES, random_batch, random_painter
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pbe.training.painting_loss import PaintingLoss

GIB = 2**30
MOMENTS_8BIT = 2 * (1 + 4 / 256)  # bytes per parameter: two moments, each with a float32 scale per 256 values
CARD_GIB, LEFT_OUT_GIB = 24.0, 1.5


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
        self.tensors.append(args[0])
        self.inputs[storage(args[0])] = args[0].untyped_storage().nbytes()

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
    """Run norms in float32 and record saved storages, by the blocks that `gradient_checkpointing` recomputes."""
    norms = [m for m in losses.modules() if isinstance(m, nn.GroupNorm | nn.LayerNorm)]
    blocks = [m for m in losses.unet.modules() if type(m).__name__ in ("ResnetBlock2D", "BasicTransformerBlock")]
    handles = [m.register_forward_pre_hook(lambda _, args: tuple(a.float() for a in args)) for m in norms]
    handles += [m.register_forward_pre_hook(kept.enter) for m in blocks]
    handles += [m.register_forward_hook(kept.leave) for m in blocks]
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda t: t), torch.autocast("cpu", torch.bfloat16):
        yield
    for handle in handles:
        handle.remove()


def activations(size: str, image_px: int, batch_size: int) -> tuple[int, int, int, int]:
    """Return the bytes saved for the backward pass, plain and checkpointed, and the parameters, all and trained."""
    with FakeTensorMode():
        painter = random_painter(size, image_px)
        losses = PaintingLoss(painter).train()
        kept = Kept(losses)
        with watched(losses, kept):
            losses(random_batch(painter, batch_size, image_px)).mean()
        trained = sum(p.numel() for p in losses.trained().values())
        return kept.plain(), kept.checkpointed(), sum(p.numel() for p in losses.parameters()), trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="sd")
    parser.add_argument("--image-px", type=int, default=512)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    options = parser.parse_args()
    one, two = (activations(options.size, options.image_px, n) for n in (1, 2))
    num_all, num_trained = one[2], one[3]
    parts = {
        "weights": 4 * num_all,
        "gradients": 4 * num_trained,
        "moments": 8 * num_trained,
        "average": 4 * num_trained,
    }
    parts["moments in 8 bits"] = int(MOMENTS_8BIT * num_trained)
    print(f"{num_all / 1e6:.0f} M parameters, {num_trained / 1e6:.0f} M trained; {options.image_px} px")
    print("GiB: " + ", ".join(f"{name} {count / GIB:.2f}" for name, count in parts.items()))
    variants = {
        "defaults": (["weights", "gradients", "moments", "average"], 0),
        "average: cpu": (["weights", "gradients", "moments"], 0),
        "+ gradient_checkpointing": (["weights", "gradients", "moments"], 1),
        "average: cpu, adamw8bit": (["weights", "gradients", "moments in 8 bits"], 0),
        "+ gradient_checkpointing ": (["weights", "gradients", "moments in 8 bits"], 1),
    }
    print(
        f"{'GiB at batch':<28}" + "".join(f"{n:>9}" for n in options.batch_sizes) + f"   largest in {CARD_GIB:.0f} GB"
    )
    for name, (held, column) in variants.items():
        fixed, each = 2 * one[column] - two[column], two[column] - one[column]
        base = sum(parts[part] for part in held) + fixed
        total = [(base + n * each) / GIB for n in options.batch_sizes]
        room = CARD_GIB * 1e9 - LEFT_OUT_GIB * GIB - base
        print(f"{name:<28}" + "".join(f"{t:>9.1f}" for t in total) + f"{max(0, int(room // each)):>12}")


if __name__ == "__main__":
    main()
