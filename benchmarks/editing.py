"""Seconds an edit: diffusers' `PaintByExamplePipeline` and ours, with the same weights in one run (docs/speed.md).

    .venv/bin/python benchmarks/editing.py [--size sd] [--image-px 512] [--dtype fp32] [--threads 1] [--steps 2]

The weights are random, of Stable Diffusion's size. Diffusers' defaults are 50 PNDM steps with guidance 5. An edit of
that size takes minutes on a CPU: both are measured over a few steps, the UNet's calls apart from the rest, and

    seconds of an edit = the rest + guided calls x their seconds + calls without guidance x theirs

The last row is `pbe edit`'s default, whose guidance interval leaves some calls without guidance. Both share the memory
of UNet and VAE; ours packs the weights of its UNet, too. With one thread, seconds are CPU time. Prints ratios and
asserts nothing about time.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PillowImage
from sizes import SIZES, clock, machine, random_painter, stock_unet
from torch import nn

from pbe.method.guidance import GuidanceInterval
from pbe.method.painter import Painter
from pbe.method.pretrained import quiet_libraries
from pbe.method.sampling import num_evaluations
from pbe.method.sampling.flow import sampling_timesteps
from pbe.runtime.devices import DTYPES
from pbe.serving.edit_defaults import DEFAULT_INTERVAL, DEFAULT_SAMPLER, DEFAULT_STEPS

STOCK_STEPS = 50  # diffusers' default


@dataclass
class CallClock:
    """Seconds of each call of a UNet."""

    unet: nn.Module
    calls: list[float] = field(default_factory=list)

    def __enter__(self) -> "CallClock":
        self._handles = [
            self.unet.register_forward_pre_hook(lambda *_: self.calls.append(-clock())),
            self.unet.register_forward_hook(self._stop),
        ]
        return self

    def _stop(self, *_: object) -> None:
        self.calls[-1] += clock()

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


@dataclass(frozen=True)
class Cost:
    """Seconds of a call of the UNet and of the rest of an edit, and the calls of the edit that was measured."""

    call: float
    rest: float
    num_calls: int

    def edit(self, num_guided: int, num_unguided: int = 0, unguided_call: float = 0.0) -> float:
        return self.rest + num_guided * self.call + num_unguided * unguided_call


def measure(edit: Callable[[], object], unet: nn.Module) -> Cost:
    """Return the cost of an edit; the first call, which allocates memory, counts only when there is no other."""
    with CallClock(unet) as timed:
        began = clock()
        edit()
        total = clock() - began
    later = timed.calls[1:] or timed.calls
    return Cost(sum(later) / len(later), total - sum(timed.calls), len(timed.calls))


def num_guided_by_default(painter: Painter) -> int:
    """Return how many calls of a default edit are guided."""
    levels = painter.alphas_cumprod
    interval = GuidanceInterval(*DEFAULT_INTERVAL, levels)
    return sum(interval.contains(t) for t in sampling_timesteps(DEFAULT_STEPS, len(levels), from_last=True))


def stock_pipeline(painter: Painter) -> Any:
    """Return diffusers' pipeline on the painter's UNet and VAE, and a copy of its image encoder."""
    with quiet_libraries():
        from diffusers import PaintByExamplePipeline
        from diffusers.pipelines.deprecated.paint_by_example.image_encoder import PaintByExampleImageEncoder
        from transformers import CLIPImageProcessorPil

        with tempfile.TemporaryDirectory() as folder:
            painter.conditioner.save_pretrained(Path(folder))
            encoder = PaintByExampleImageEncoder.from_pretrained(folder, painter.conditioner.context_dim)
        side = painter.exemplar_px
        pipeline = PaintByExamplePipeline(
            vae=painter.vae,
            image_encoder=encoder.to(next(painter.parameters()).dtype),
            unet=stock_unet(painter.unet),
            scheduler=painter.scheduler,
            safety_checker=None,
            feature_extractor=CLIPImageProcessorPil(
                size={"shortest_edge": side}, crop_size={"height": side, "width": side}
            ),
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def main() -> None:
    """Measure both and print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="sd")
    parser.add_argument("--image-px", type=int, default=512)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    painter = random_painter(options.size, options.image_px).eval().place(torch.device("cpu"), DTYPES[options.dtype])
    pipeline = stock_pipeline(painter)
    rng, side = np.random.default_rng(0), options.image_px
    source, exemplar = rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : side // 2, side // 4 : side // 2] = 1

    def stock() -> object:
        pictures = (PillowImage.fromarray(each) for each in (exemplar, source, mask * np.uint8(255)))
        with torch.inference_mode():
            return pipeline(*pictures, num_inference_steps=options.steps, guidance_scale=5.0)

    def ours(guidance_scale: float = 5.0) -> object:
        return painter.paint(
            source[None], mask[None], exemplar[None], num_steps=options.steps, seeds=[0], guidance_scale=guidance_scale
        )

    print(f"{options.size}, {side} px, {options.dtype}; {machine()}", flush=True)
    costs = {}
    for name, edit, unet in (("diffusers", stock, pipeline.unet), ("ours", ours, painter.unet)):
        costs[name] = cost = measure(edit, unet)
        print(f"{name:10s} {cost.call:8.3f} s a call, {cost.rest:8.3f} s the rest; {cost.num_calls} calls", flush=True)
    unguided = measure(lambda: ours(1.0), painter.unet).call
    print(f"{'':10s} {unguided:8.3f} s a call without guidance", flush=True)
    num_guided = num_guided_by_default(painter)
    defaults = costs["diffusers"].edit(STOCK_STEPS + 1)  # PNDM, like PLMS, calls once more than it steps
    for name, seconds in {
        f"diffusers, PNDM, {STOCK_STEPS} steps": defaults,
        f"ours, PLMS, {STOCK_STEPS} steps": costs["ours"].edit(num_evaluations("plms", STOCK_STEPS)),
        f"ours, {DEFAULT_SAMPLER}, {DEFAULT_STEPS} steps": costs["ours"].edit(
            num_guided, num_evaluations(DEFAULT_SAMPLER, DEFAULT_STEPS) - num_guided, unguided
        ),
    }.items():
        print(f"{name:34s} {seconds:9.1f} s an edit, {defaults / seconds:5.2f} x", flush=True)


if __name__ == "__main__":
    main()
