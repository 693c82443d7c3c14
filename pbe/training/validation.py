"""What training is validated on, the same at each step and each run: a panel to paint, and samples with their noise."""

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pbe import settings
from pbe.dataset.image_shards import ImageShards
from pbe.latents.frozen_encoders import FrozenEncoders
from pbe.latents.samples import BoxRow, SampleDrawer, read_boxes
from pbe.method.exemplars import crop_exemplar
from pbe.method.painter import Painter
from pbe.method.windows import box_in_window, box_mask, cut_window, square_window
from pbe.training.painting_loss import Batch

Images = NDArray[np.uint8]
NUM_STEPS = 12
GUIDANCE_SCALE = 5.0  # where the painter takes guidance


class Panel:
    """Sources, box masks and exemplars of *other* validation boxes."""

    def __init__(self, sources: Images, masks: Images, exemplars: Images) -> None:
        self.sources, self.masks, self.exemplars = sources, masks, exemplars

    def paint(self, painter: Painter) -> Images:
        """One picture: per column the source with a grey hole, the exemplar, the result; (3 S, N S, 3)."""
        scale = GUIDANCE_SCALE if painter.conditioner.guidance else 1.0
        results = painter.paint(
            self.sources, self.masks, self.exemplars,
            guidance_scale=scale, num_steps=NUM_STEPS, seeds=range(len(self.sources)),
        )  # fmt: skip
        side = self.sources.shape[1]
        holes = np.where(self.masks[..., None] == 1, np.uint8(128), self.sources)
        shown = np.stack([cv2.resize(e, (side, side), interpolation=cv2.INTER_CUBIC) for e in self.exemplars])
        return np.concatenate([np.concatenate(list(row), 1) for row in (holes, shown, results)], 0)


def draw_panel(
    images: Path, curated: Path, method: settings.Method, exemplar_px: int, seed: int, size: int = 8
) -> Panel:
    """Draw the panel from the largest validation boxes of `size` times four, without repetition of images."""
    boxes = read_boxes(curated, "validation")
    rng = np.random.default_rng([seed, 13])
    largest = sorted(boxes, key=lambda b: (b.xyxy[0] - b.xyxy[2]) * (b.xyxy[3] - b.xyxy[1]))[: 4 * size]
    order = rng.permutation(len(largest))
    chosen = [largest[i] for i in order][:size]
    others = [largest[order[(i + 1) % len(order)]] for i in range(len(chosen))]
    shards = ImageShards(images)
    parts = [_case(shards, box, other, method, exemplar_px, rng) for box, other in zip(chosen, others, strict=True)]
    sources, masks, exemplars = (np.stack(p) for p in zip(*parts, strict=True))
    return Panel(sources, masks, exemplars)


def _case(
    shards: ImageShards,
    box: BoxRow,
    other: BoxRow,
    method: settings.Method,
    exemplar_px: int,
    rng: np.random.Generator,
) -> tuple[Images, Images, Images]:
    image = shards.read_image(box.image)
    exemplar_image = shards.read_image(other.image)
    window = square_window(image.shape[0], image.shape[1], box.xyxy, rng)
    size = method.image_px
    mask = box_mask(box_in_window(box.xyxy, window, size), size)
    exemplar = crop_exemplar(exemplar_image, other.xyxy, method.exemplar.pad_frac, exemplar_px)
    return cut_window(image, window, size), mask, exemplar


def draw_validation(
    images: Path, curated: Path, backbone: Path, method: settings.Method, seed: int, size: int, device: str = "cpu"
) -> Batch:
    """Up to `size` samples of the validation split, encoded; each with its noise, timesteps evenly over 0..999."""
    boxes = read_boxes(curated, "validation")
    order = np.random.default_rng([seed, 17]).permutation(len(boxes))[:size]
    encoders = FrozenEncoders(backbone, device, method.bottleneck)
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
