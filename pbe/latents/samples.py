"""A training sample: {((1 - m) * x_s, A(x_r), m), x_s} from one box of one image (section 3.1).

Each sample has a generator of its own, seeded by the pipeline's seed, the box and the variant, so that it does not
depend on who draws it, when, or with which others. The exemplar is the whole crop of the box even where the object's
shape is known: people's exemplars come with a background, and to ignore it is part of what is learnt.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe import settings
from pbe.dataset.image_shards import LOCATION, ImageArchive, ImageRef
from pbe.dataset.object_masks import object_in_window
from pbe.errors import UserError
from pbe.method.close_up import draw_side
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
    """One row of the curated boxes: pixels, exclusive at the far side; its object's packed mask where one is known."""

    box_id: str
    image_id: str
    split: str
    xyxy: tuple[int, int, int, int]
    image: ImageRef
    object_mask: bytes | None = None


def read_boxes(curated: Path, split: str) -> list[BoxRow]:
    """The curated boxes of a split, sorted by id; raises UserError when there are none."""
    table = pl.read_parquet(curated / "boxes.parquet").filter(pl.col("split") == split).sort("box_id")
    if table.is_empty():
        raise UserError(f"{curated / 'boxes.parquet'}: no box of the split {split!r} is left; loosen filter or curate")
    masks = table["object_mask"].to_list() if "object_mask" in table.columns else [None] * table.height
    images = [ImageRef(*place) for place in table.select(*LOCATION).iter_rows()]
    columns = table.select("box_id", "image_id", "split", "x0", "y0", "x1", "y1").iter_rows()
    return [BoxRow(b, i, s, (*xyxy,), *more) for (b, i, s, *xyxy), *more in zip(columns, images, masks, strict=True)]


class SampleDrawer:
    """Draws samples from an archive's images, each decoded once, no larger than needed; the last few stay decoded."""

    def __init__(self, images: Path, method: settings.Method, exemplar_px: int, num_exemplars: int, seed: int) -> None:
        self.method = method
        self.exemplar_px = exemplar_px
        self.num_exemplars = num_exemplars
        self.seed = seed
        archive = ImageArchive(images)
        self._size = lru_cache(maxsize=8)(archive.image_size)
        self._read = lru_cache(maxsize=8)(archive.read_image)

    def draw(self, box: BoxRow, variant: int) -> Sample:
        """Draw one variant of a box: window, mask and augmented exemplars."""
        rng = np.random.default_rng([self.seed, _number(box.box_id), variant])
        width, height = self._size(box.image)
        size = self.method.image_px
        window = square_window(height, width, box.xyxy, rng, self._side(height, width, box, rng))
        reduction = decoding_reduction(window.side, box.xyxy, size, self.exemplar_px)
        image = self._read(box.image, reduction)
        left, top, side = (v // reduction for v in window)
        x0, y0, x1, y1 = (v // reduction for v in box.xyxy)
        source = cut_window(image, (left, top, side), size, fast=True)
        shape = object_in_window(box.object_mask, box.xyxy, window, size) if box.object_mask else None
        mask = draw_mask(box_in_window(box.xyxy, window, size), size, self.method.mask, rng, shape)
        crop = crop_exemplar(image, (x0, y0, x1, y1), self.method.exemplar.pad_frac, self.exemplar_px, True)
        exemplars = [augment_exemplar(crop, self.method.exemplar, rng) for _ in range(self.num_exemplars)]
        return Sample(source, mask, np.stack(exemplars))

    def _side(self, height: int, width: int, box: BoxRow, rng: np.random.Generator) -> int | None:
        probability = self.method.close_up_probability
        is_close_up = probability > 0 and rng.random() < probability  # at 0 the paper's samples keep their bits
        return draw_side(height, width, box.xyxy, self.method.image_px, rng) if is_close_up else None


def decoding_reduction(window_px: int, box_xyxy: tuple[int, int, int, int], image_px: int, exemplar_px: int) -> int:
    """The largest of 1, 2, 4 and 8 by which an image can be decoded smaller with no pixel of the sample made up."""
    x0, y0, x1, y1 = box_xyxy
    spare = min(window_px // image_px, (x1 - x0) // exemplar_px, (y1 - y0) // exemplar_px)
    return max(r for r in (1, 2, 4, 8) if r <= max(1, spare))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
