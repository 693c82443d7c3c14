"""A training step and its parts: the official code's work, stock diffusers blocks, and ours, in the same run.

    .venv/bin/python benchmarks/training_step.py [--size sd] [--image-px 256] [--batch-size 1] [--repeats 2]
    .venv/bin/python benchmarks/training_step.py --backbone data/tiny --image-px 64 --batch-size 16

All three start from the same weights. The official step encodes source and masked source with the VAE and the exemplar
with CLIP every time, runs the LDM UNet (`ldm_unet.py`) and each of its blocks again in the backward pass, and updates
every parameter with AdamW, one at a time. Stock is diffusers' UNet with torch's defaults, after the same encoders. Ours
reads the latent cache: it runs `pbe.method.unet` only, with cross attention as a bias, freezes parameters without a
gradient, and updates flat buffers at once (`pbe.training.flat_update`): its update includes the clipping and the moving
average, which the official code does not have. The optimizers of the other two are timed on one part of the parameters
after the other, so that their moments never need the memory all together. Everything is fp32. Prints medians and
ratios, asserts nothing.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from ldm_unet import LdmUNet
from sizes import SIZES, machine, medians_s, random_batch, random_painter, seconds, stock_unet
from torch import Tensor, nn

from pbe.method.denoiser import denoiser_input
from pbe.method.diffusion import add_noise
from pbe.method.initialization import build_painter
from pbe.method.painter import Painter
from pbe.settings import load_settings
from pbe.training.flat_update import FlatUpdate
from pbe.training.painting_loss import Batch, PaintingLoss

PIECES = 8
TRAIN = load_settings(Path(__file__).parents[1] / "params.yaml").train


class Steps:
    """The three ways to take a step with the weights of one painter; each part can be called separately."""

    def __init__(self, painter: Painter, batch: Batch, image_px: int) -> None:
        self.painter, self.batch = painter, batch
        self.losses = PaintingLoss(painter).train()
        self.trainable = self.losses.trained()
        self.all = dict(self.losses.named_parameters())
        self.stock = stock_unet(painter.unet).train()
        self.update: FlatUpdate | None = None
        self.ldm = LdmUNet(painter.unet, recompute=True)
        size, side = len(batch.mask), painter.exemplar_px
        self.pixels = torch.rand(2 * size, 3, image_px, image_px) * 2 - 1
        self.exemplars = torch.rand(size, 3, side, side) * 2 - 1
        self.loss: Tensor | None = None

    def choose(self, way: str) -> None:
        for name, parameter in self.all.items():
            parameter.requires_grad_(way != "ours" or name in self.trainable)
            parameter.grad = None
        if way == "ours":
            del self.stock
            self.update = FlatUpdate(self.losses, self.losses, TRAIN.replace(accumulate=1, optimizer="adamw"))

    def parameters(self, way: str) -> list[nn.Parameter]:
        own = [p for name, p in self.all.items() if not name.startswith("unet.")]
        return [*own, *self.stock.parameters()] if way == "stock" else list(self.all.values())

    @torch.no_grad()
    def encode(self) -> None:
        self.painter.encode(self.pixels)
        self.painter.conditioner.tokens(self.exemplars)

    def forward(self, way: str) -> None:
        if self.update:
            self.update.zero_grad()
            self.loss = self.losses(self.batch).mean()
            return
        for parameter in self.parameters(way):
            parameter.grad = None
        batch, losses = self.batch, self.losses
        context = losses.proj_out(losses.final_layer_norm(losses.mapper(batch.class_tokens)))
        noisy = add_noise(batch.source_latents, batch.noise, batch.timesteps, losses.alphas_cumprod)
        x = denoiser_input(noisy, batch.masked_latents, batch.mask)
        stock = way == "stock"
        predicted = self.stock(x, batch.timesteps, context).sample if stock else self.ldm(x, batch.timesteps, context)
        self.loss = (predicted - batch.noise).square().mean()

    def backward(self) -> None:
        assert self.loss is not None
        self.loss.backward()
        self.loss = None


def optimizer_s(parameters: list[nn.Parameter], build: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> float:
    """Return the seconds of one step over all parameters, part by part, after a first one that makes the moments."""
    total, held = 0.0, [p for p in parameters if p.grad is not None]
    for start in range(PIECES):
        optimizer = build(held[start::PIECES])
        optimizer.step()
        total += seconds(optimizer.step)
        del optimizer
    return total


BUILDS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "official": lambda p: torch.optim.AdamW(p, lr=1e-9, foreach=False, fused=False),
    "stock": lambda p: torch.optim.AdamW(p, lr=1e-9),
}


def measure(steps: Steps, way: str, repeats: int) -> dict[str, float]:
    """Return the median seconds of the parts of a step."""
    steps.choose(way)
    parts: dict[str, Callable[[], object]] = {} if way == "ours" else {"encoders": steps.encode}
    parts |= {"forward": lambda: steps.forward(way), "backward": steps.backward}
    took_s = medians_s(parts, repeats)
    if steps.update is None:
        took_s["optimizer"] = optimizer_s([p for p in steps.parameters(way) if p.grad is not None], BUILDS[way])
        return took_s
    update = steps.update
    took_s |= medians_s({"update": lambda: update.step(1000, 1e-9)}, max(repeats, 5))
    return took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="sd")
    parser.add_argument("--backbone", type=Path, help="a folder of pretrained parts instead of random ones")
    parser.add_argument("--image-px", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true", help="ours with convolutions in channels_last")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    painter = (
        build_painter(options.backbone, options.image_px, seed=0)
        if options.backbone
        else random_painter(options.size, options.image_px)
    )
    steps = Steps(painter, random_batch(painter, options.batch_size, options.image_px), options.image_px)
    count = sum(p.numel() for p in steps.all.values()) / 1e6
    print(f"{count:.0f} M parameters, {options.image_px} px, batch {options.batch_size}, fp32; {machine()}", flush=True)
    totals = {}
    for way in ("official", "stock", "ours"):
        if way == "ours" and options.channels_last:
            painter.unet.to(memory_format=torch.channels_last)
        took_s = measure(steps, way, options.repeats)
        totals[way] = sum(took_s.values())
        parts = ", ".join(f"{name} {took:.3f}" for name, took in took_s.items() if took)
        print(
            f"{way:<9}{totals[way]:8.3f} s  {totals['official'] / totals[way]:5.2f} x official   ({parts})", flush=True
        )


if __name__ == "__main__":
    main()
