"""What training is validated on, the same in every run: cases to paint, and samples with fixed noise for the loss."""

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pbe import settings
from pbe.dataset.curated_boxes import CuratedBox, read_curated_boxes
from pbe.dataset.image_shards import ImageShards
from pbe.latents.frozen_encoders import FrozenEncoders
from pbe.latents.samples import SampleDrawer
from pbe.method.exemplars import crop_exemplar
from pbe.method.painter import Painter
from pbe.method.windows import box_in_window, box_mask, cut_window, square_window
from pbe.runtime.devices import choose_device, choose_precision
from pbe.training.painting_loss import Batch
from pbe.types import Image, Mask

NUM_CASES = 8
NUM_STEPS = 12
_AT_ONCE = 2  # cases painted together: the VAE's activations take memory beside what training holds
GUIDANCE_SCALE = 5.0  # if the painter was trained for guidance


class ValidationCases:
    """Sources with the masks of their boxes, and exemplars from other validation boxes."""

    def __init__(self, sources: NDArray[np.uint8], masks: NDArray[np.uint8], exemplars: NDArray[np.uint8]) -> None:
        self.sources = sources  # (N, S, S, 3)
        self.masks = masks  # (N, S, S)
        self.exemplars = exemplars  # (N, e, e, 3)

    def paint(self, painter: Painter) -> Image:
        """Paint all cases at fixed seeds; return a picture (3 S, N S, 3).

        Each column has the source with a grey hole, the exemplar, and the result.
        """
        scale = GUIDANCE_SCALE if painter.conditioner.guidance else 1.0
        results = np.concatenate(
            [self._paint(painter, scale, range(len(self.sources))[i : i + _AT_ONCE])
             for i in range(0, len(self.sources), _AT_ONCE)]
        )  # fmt: skip
        side = self.sources.shape[1]
        holes = np.where(self.masks[..., None] == 1, np.uint8(128), self.sources)
        shown = np.stack([cv2.resize(e, (side, side), interpolation=cv2.INTER_CUBIC) for e in self.exemplars])
        return np.concatenate([np.concatenate(list(row), 1) for row in (holes, shown, results)], 0)

    def _paint(self, painter: Painter, scale: float, part: range) -> NDArray[np.uint8]:
        cases = [each[part.start : part.stop] for each in (self.sources, self.masks, self.exemplars)]
        return painter.paint(*cases, guidance_scale=scale, num_steps=NUM_STEPS, seeds=part)


def draw_cases(
    images: Path, curated: Path, method: settings.Method, exemplar_px: int, seed: int, num_cases: int = NUM_CASES
) -> ValidationCases:
    """Draw up to `num_cases` cases, with different boxes, from the four times as many largest validation boxes."""
    boxes = read_curated_boxes(curated, "validation")
    rng = np.random.default_rng([seed, 13])
    largest = sorted(boxes, key=lambda b: (b.xyxy[0] - b.xyxy[2]) * (b.xyxy[3] - b.xyxy[1]))[: 4 * num_cases]
    order = rng.permutation(len(largest))
    chosen = [largest[i] for i in order][:num_cases]
    others = [largest[order[(i + 1) % len(order)]] for i in range(len(chosen))]
    shards = ImageShards(images)
    cases = [_cut(shards, box, other, method, exemplar_px, rng) for box, other in zip(chosen, others, strict=True)]
    sources, masks, exemplars = (np.stack(parts) for parts in zip(*cases, strict=True))
    return ValidationCases(sources, masks, exemplars)


def _cut(
    shards: ImageShards,
    box: CuratedBox,
    other: CuratedBox,
    method: settings.Method,
    exemplar_px: int,
    rng: np.random.Generator,
) -> tuple[Image, Mask, Image]:
    image = shards.read_image(box.image)
    exemplar_image = shards.read_image(other.image)
    window = square_window(image.shape[0], image.shape[1], box.xyxy, rng)
    size = method.image_px
    mask = box_mask(box_in_window(box.xyxy, window, size), size)
    exemplar = crop_exemplar(exemplar_image, other.xyxy, method.exemplar.pad_frac, exemplar_px)
    return cut_window(image, window, size), mask, exemplar


def draw_samples(
    images: Path,
    curated: Path,
    backbone: Path,
    method: settings.Method,
    seed: int,
    size: int,
    device: str = "cpu",
    precision: str = "fp32",
) -> Batch:
    """Draw and encode up to `size` validation samples, each with fixed noise; timesteps are evenly over 0..999.

    They are encoded on `device` in `precision` (auto, fp32 or bf16) and returned on the CPU.
    """
    boxes = read_curated_boxes(curated, "validation")
    order = np.random.default_rng([seed, 17]).permutation(len(boxes))[:size]
    place = choose_device(device)
    encoders = FrozenEncoders(backbone, place, method.bottleneck, choose_precision(precision, place))
    drawer = SampleDrawer(images, method, encoders.conditioner.exemplar_px, 1, seed)
    parts = [encoders.encode([drawer.draw(boxes[i], 0) for i in order[at : at + 8]]) for at in range(0, len(order), 8)]
    encoded = {name: torch.cat([part[name] for part in parts]).float() for name in parts[0]}
    return Batch(
        source_latents=encoded["source_latents"],
        masked_latents=encoded["masked_latents"],
        mask=encoded["mask"],
        class_tokens=encoded["class_tokens"][:, 0],
        noise=torch.randn(encoded["source_latents"].shape, generator=torch.Generator().manual_seed(seed)),
        timesteps=((torch.arange(len(order)) + 0.5) * 1000 / len(order)).long(),
        dropped=torch.zeros(len(order), dtype=torch.bool),
    )
