"""What the server holds for a page: the source, the exemplar, masks, and the variants that were painted."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbe.serving.pictures import Picture
from pbe.types import Box, Image, Mask


@dataclass(frozen=True)
class HeldSource:
    """A source as its file holds it."""

    picture: Picture
    name: str

    @property
    def num_bytes(self) -> int:
        return self.picture.shown.nbytes + self.picture.pixels.nbytes


@dataclass(frozen=True)
class HeldExemplar:
    """An exemplar, over white."""

    image: Image
    name: str

    @property
    def num_bytes(self) -> int:
        return self.image.nbytes


@dataclass(frozen=True)
class HeldMask:
    """A mask from a file."""

    mask: Mask

    @property
    def num_bytes(self) -> int:
        return self.mask.nbytes


@dataclass(frozen=True)
class HeldVariant:
    """An edited picture as the box that differs from the source, so that 8 variants of 12 megapixels fit in memory."""

    source: HeldSource
    box: Box  # of the mask
    mask: Mask  # (h, w) inside the box
    shown: Image  # (h, w, 3) inside the box
    pixels: NDArray[Any]  # (h, w) or (h, w, C) inside the box
    seed: int

    @property
    def num_bytes(self) -> int:
        return self.mask.nbytes + self.shown.nbytes + self.pixels.nbytes

    @property
    def picture(self) -> Picture:
        """Return the whole edited picture."""
        shown, pixels = self.source.picture.shown.copy(), self.source.picture.pixels.copy()
        where = _slices(self.box)
        shown[where], pixels[where] = self.shown, self.pixels
        return replace(self.source.picture, shown=shown, pixels=pixels)

    @property
    def whole_mask(self) -> Mask:
        """Return the mask (H, W) of the whole picture."""
        mask = np.zeros(self.source.picture.shown.shape[:2], np.uint8)
        mask[_slices(self.box)] = self.mask
        return mask


def hold_variant(source: HeldSource, mask: Mask, edited: Picture, seed: int) -> HeldVariant:
    """Return a variant whose mask (H, W) marks all pixels that differ from the source."""
    box = box_of(mask)
    where = _slices(box)
    return HeldVariant(
        source, box, mask[where].copy(), edited.shown[where].copy(), edited.pixels[where].copy(), seed
    )  # fmt: skip


def box_of(mask: Mask) -> Box:
    """Return the smallest box around the marked pixels of a mask that marks at least one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _slices(box: Box) -> tuple[slice, slice]:
    left, top, right, bottom = box
    return slice(top, bottom), slice(left, right)
