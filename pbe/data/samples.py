"""A training sample: {((1 - m) * x_s, A(x_r), m), x_s} from one box of one image (section 3.1).

Each sample has a generator of its own, seeded by the pipeline's seed, the box and the variant, so that it does not
depend on who draws it, when, or with which others.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe import settings
from pbe.data.images import read_image
from pbe.method.exemplars import augment_exemplar, crop_exemplar
from pbe.method.masks import draw_mask
from pbe.method.windows import box_in_window, cut_window, square_window

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """`source` (S, S, 3) uint8, `mask` (S, S) of 0 and 1, `exemplars` (E, e, e, 3) uint8, augmented."""

    source: Image
    mask: Image
    exemplars: Image


@dataclass(frozen=True)
class BoxRow:
    """One row of the curated boxes: pixels, exclusive at the far side."""

    box_id: str
    image_id: str
    split: str
    xyxy: tuple[int, int, int, int]


def read_boxes(curated: Path, split: str) -> list[BoxRow]:
    """The curated boxes of a split, sorted by id; raises ValueError when there are none."""
    table = pl.read_parquet(curated / "boxes.parquet").filter(pl.col("split") == split).sort("box_id")
    if table.is_empty():
        raise ValueError(f"{curated / 'boxes.parquet'}: no box of the split {split!r} is left; loosen filter or curate")
    columns = table.select("box_id", "image_id", "split", "x0", "y0", "x1", "y1").iter_rows()
    return [BoxRow(b, i, s, (x0, y0, x1, y1)) for b, i, s, x0, y0, x1, y1 in columns]


class SampleDrawer:
    """Draws samples from images on disk; the last few images stay decoded."""

    def __init__(self, images: Path, method: settings.Method, exemplar_px: int, num_exemplars: int, seed: int) -> None:
        self.images = images
        self.method = method
        self.exemplar_px = exemplar_px
        self.num_exemplars = num_exemplars
        self.seed = seed
        self._read = lru_cache(maxsize=8)(read_image)

    def draw(self, box: BoxRow, variant: int) -> Sample:
        """Draw one variant of a box: window, mask and augmented exemplars."""
        rng = np.random.default_rng([self.seed, _number(box.box_id), variant])
        image = self._read(self.images / box.split / f"{box.image_id}.jpg")
        size = self.method.image_px
        window = square_window(image.shape[0], image.shape[1], box.xyxy, rng)
        source = cut_window(image, window, size)
        mask = draw_mask(box_in_window(box.xyxy, window, size), size, self.method.mask, rng)
        crop = crop_exemplar(image, box.xyxy, self.method.exemplar.pad_frac, self.exemplar_px)
        exemplars = [augment_exemplar(crop, self.method.exemplar, rng) for _ in range(self.num_exemplars)]
        return Sample(source, mask, np.stack(exemplars))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
