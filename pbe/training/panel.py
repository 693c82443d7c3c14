"""Validation pictures: a fixed panel painted at fixed seeds while training goes on."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe import settings
from pbe.data.archive import ImageArchive
from pbe.data.samples import BoxRow, read_boxes
from pbe.method.exemplars import crop_exemplar
from pbe.method.painter import Painter
from pbe.method.windows import box_in_window, box_mask, cut_window, square_window

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
    archive = ImageArchive(images)
    parts = [_case(archive, box, other, method, exemplar_px, rng) for box, other in zip(chosen, others, strict=True)]
    sources, masks, exemplars = (np.stack(p) for p in zip(*parts, strict=True))
    return Panel(sources, masks, exemplars)


def _case(
    archive: ImageArchive,
    box: BoxRow,
    other: BoxRow,
    method: settings.Method,
    exemplar_px: int,
    rng: np.random.Generator,
) -> tuple[Images, Images, Images]:
    image = archive.read_image(box.image)
    exemplar_image = archive.read_image(other.image)
    window = square_window(image.shape[0], image.shape[1], box.xyxy, rng)
    size = method.image_px
    mask = box_mask(box_in_window(box.xyxy, window, size), size)
    exemplar = crop_exemplar(exemplar_image, other.xyxy, method.exemplar.pad_frac, exemplar_px)
    return cut_window(image, window, size), mask, exemplar
