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

from pbe import settings
from pbe.dataset.image_shards import LOCATION, ImageRef, ImageShards
from pbe.dataset.object_masks import object_in_window
from pbe.errors import UserError
from pbe.method.training_triplet import TrainingTriplet, decoding_reduction, draw_triplet, draw_window


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
    """Draws samples from the images of shards, each decoded once, no larger than needed; the last few stay decoded."""

    def __init__(self, images: Path, method: settings.Method, exemplar_px: int, num_exemplars: int, seed: int) -> None:
        self.method = method
        self.exemplar_px = exemplar_px
        self.num_exemplars = num_exemplars
        self.seed = seed
        shards = ImageShards(images)
        self._size = lru_cache(maxsize=8)(shards.image_size)
        self._read = lru_cache(maxsize=8)(shards.read_image)

    def draw(self, box: BoxRow, variant: int) -> TrainingTriplet:
        """Draw one variant of a box: window, mask and augmented exemplars."""
        rng = np.random.default_rng([self.seed, _number(box.box_id), variant])
        size = self.method.image_px
        width, height = self._size(box.image)
        window = draw_window(height, width, box.xyxy, self.method, rng)
        reduction = decoding_reduction(window.side, box.xyxy, size, self.exemplar_px)
        shape = object_in_window(box.object_mask, box.xyxy, window, size) if box.object_mask else None
        return draw_triplet(
            self._read(box.image, reduction),
            window,
            box.xyxy,
            self.method,
            self.exemplar_px,
            self.num_exemplars,
            rng,
            object_mask=shape,
            reduction=reduction,
        )


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
