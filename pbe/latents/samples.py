"""Training samples drawn from curated boxes: reads each box's image and draws its training triplet (section 3.1).

Each sample has its own generator, seeded by the pipeline's seed, the box and the variant, so that it depends neither on
the process that draws it nor on the samples drawn before it.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np

from pbe import settings
from pbe.dataset.curated_boxes import CuratedBox
from pbe.dataset.image_shards import ImageShards
from pbe.dataset.object_masks import object_in_window
from pbe.method.training_triplet import TrainingTriplet, decoding_reduction, draw_triplet, draw_window

_CACHED_IMAGES = 8  # the variants of a box follow each other, and boxes of an image are neighbours


class SampleDrawer:
    """Draws samples from the images of shards, and keeps the last few images decoded, no larger than needed."""

    def __init__(self, images: Path, method: settings.Method, exemplar_px: int, num_exemplars: int, seed: int) -> None:
        self.method = method
        self.exemplar_px = exemplar_px
        self.num_exemplars = num_exemplars
        self.seed = seed
        self._images = images
        shards = ImageShards(images)
        self._size = lru_cache(maxsize=_CACHED_IMAGES)(shards.image_size)
        self._read = lru_cache(maxsize=_CACHED_IMAGES)(shards.read_image)

    def __reduce__(self) -> tuple[type[Self], tuple[Path, settings.Method, int, int, int]]:
        return type(self), (self._images, self.method, self.exemplar_px, self.num_exemplars, self.seed)

    def draw(self, box: CuratedBox, variant: int) -> TrainingTriplet:
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
    """Return 64 bits of a text's digest, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
