"""What a training sample costs with and without the cache of latents, in the same run.

    .venv/bin/python benchmarks/training_step.py [--backbone data/tiny] [--batch-size 16] [--repeats 5]

The peer is the same step as the official code does it: two VAE encodings and one CLIP pass for every sample, then the
UNet. The limit is the UNet's forward and backward pass alone. Prints medians and ratios, asserts nothing.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pbe.data import world
from pbe.data.encoders import FrozenEncoders
from pbe.data.samples import Sample
from pbe.method.exemplars import augment_exemplar, crop_exemplar
from pbe.method.initialization import build_painter
from pbe.method.masks import draw_mask
from pbe.method.windows import box_in_window, cut_window, square_window
from pbe.settings import ExemplarAugmentation, Mask
from pbe.training.model import Batch, PaintingLoss


def draw_samples(count: int, image_px: int, exemplar_px: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(count):
        scene = world.draw_scene(rng, 1, rare_kinds=False)
        box = tuple(scene.objects[0].box)
        window = square_window(scene.image.shape[0], scene.image.shape[1], box, rng)
        mask = draw_mask(box_in_window(box, window, image_px), image_px, Mask(), rng)
        exemplar = augment_exemplar(crop_exemplar(scene.image, box, 0.06, exemplar_px), ExemplarAugmentation(), rng)
        samples.append(Sample(cut_window(scene.image, window, image_px), mask, exemplar[None]))
    return samples


def median_s(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", type=Path, default=Path("data/tiny"))
    parser.add_argument("--image-px", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    painter = build_painter(options.backbone, options.image_px, seed=0)
    encoders = FrozenEncoders(options.backbone)
    losses = PaintingLoss(painter).train()
    samples = draw_samples(options.batch_size, options.image_px, painter.exemplar_px)
    encoded = {name: tensor.float() for name, tensor in encoders.encode(samples).items()}
    size = options.batch_size

    def step() -> None:
        losses.zero_grad(set_to_none=True)
        batch = Batch(
            encoded["source_latents"], encoded["masked_latents"], encoded["mask"], encoded["class_tokens"][:, 0],
            torch.randn_like(encoded["source_latents"]), torch.randint(0, 1000, (size,)), torch.rand(size) < 0.2,
        )  # fmt: skip
        losses(batch).mean().backward()

    def on_the_fly() -> None:
        encoders.encode(samples)
        step()

    cached_s, fly_s = median_s(step, options.repeats), median_s(on_the_fly, options.repeats)
    print(f"{options.batch_size} samples of {options.image_px} px, {options.threads} thread(s), fp32, this CPU")
    print(f"encoders at every step  {1e3 * fly_s:8.0f} ms")
    print(f"cached                  {1e3 * cached_s:8.0f} ms   {fly_s / cached_s:.2f} times less")


if __name__ == "__main__":
    main()
