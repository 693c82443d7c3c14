"""Boxes in pixels become boxes in shares of the upright picture: units checked, clipped, turned and counted."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pbe.acquisition.importers.annotations import ImportedBox
from pbe.acquisition.importers.picture_sides import (
    Corners,
    Frame,
    Sides,
    clip_corners,
    frame_of,
    stated_sides,
    turn_corners,
    turn_mask,
)
from pbe.dataset.object_masks import pack_mask, unpack_mask
from pbe.errors import UserError

Outline = Callable[[Corners], bytes | None]

__all__ = ["Corners", "Frame", "ImportCounts", "Outline", "PixelBox", "Sides", "UnitCheck", "clean_label", "frame_of",
           "place_boxes", "refuse_pixels", "stated_sides"]  # fmt: skip

_NEGLIGIBLE_PX = 0.01  # what six decimals lose; clipping it is not reported
_LARGEST_SHARE = 2.0  # of a side that a box in shares may begin or end at; more are pixels


@dataclass
class ImportCounts:
    """What a reader left out, by reason, and what it found or corrected, by kind."""

    skipped: Counter[str] = field(default_factory=Counter)
    adjusted: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class PixelBox:
    """One box as annotated, in pixels of its frame; `outline` packs the object's mask inside the clipped box."""

    label: str
    xyxy: Corners
    flags: frozenset[str] = frozenset()
    outline: Outline | None = None


def place_boxes(boxes: Iterable[PixelBox], frame: Frame, counts: ImportCounts) -> list[ImportedBox]:
    """Return the boxes in shares of the upright picture, clipped to it; count those that have no area inside it.

    A box that is annotated twice counts once.
    A picture that cannot be read, and whose size nothing states, counts as just large enough for its boxes.
    """
    boxes = list(boxes)
    sides = frame.sides or _extent(boxes)
    placed = []
    for box in boxes:
        x0, y0, x1, y1 = box.xyxy
        if not (x0 < x1 and y0 < y1):
            is_swapped = x0 > x1 or y0 > y1
            counts.skipped["box_with_swapped_corners" if is_swapped else "box_without_area"] += 1
            continue
        clipped = clip_corners(box.xyxy, sides)
        if clipped is None:
            counts.skipped["box_outside_image"] += 1
            continue
        moved_px = max(abs(a - b) for a, b in zip(clipped, box.xyxy, strict=True))
        counts.adjusted["boxes_clipped"] += moved_px > _NEGLIGIBLE_PX
        placed.append(_place(box, clipped, sides, frame.orientation, counts))
    once = list(dict.fromkeys(placed))
    counts.skipped["box_annotated_twice"] += len(placed) - len(once)
    if frame.change and once:
        counts.adjusted[f"images_with_boxes_{frame.change}"] += 1
    return once


def _place(box: PixelBox, clipped: Corners, sides: Sides, orientation: int, counts: ImportCounts) -> ImportedBox:
    x0, y0, x1, y1 = clipped
    mask = box.outline(clipped) if box.outline else None
    counts.skipped["empty_mask"] += box.outline is not None and mask is None
    if mask is not None and orientation != 1:
        mask = pack_mask(turn_mask(unpack_mask(mask), orientation))
    shares = turn_corners((x0 / sides[0], y0 / sides[1], x1 / sides[0], y1 / sides[1]), orientation)
    flags: dict[str, Any] = dict.fromkeys(box.flags, True)
    return ImportedBox(box.label, shares, object_mask=mask, **flags)


def _extent(boxes: Sequence[PixelBox]) -> Sides:
    return max((box.xyxy[2] for box in boxes), default=1.0), max((box.xyxy[3] for box in boxes), default=1.0)


class UnitCheck:
    """Notices a file whose boxes are all shares of the sides although its format has pixels."""

    def __init__(self, hint: str = "") -> None:
        self._hint, self._first, self._num_pixels = hint, "", 0

    def add(self, xyxy: Corners, where: str) -> None:
        """Take in one box and where it is."""
        if looks_like_shares(xyxy):
            self._first = self._first or f"{where}: {', '.join(f'{value:g}' for value in xyxy)}"
        else:
            self._num_pixels += 1

    def finish(self) -> None:
        """Raise UserError naming the first box when all are shares."""
        if self._first and not self._num_pixels:
            raise UserError(f"{self._first} are shares of the image's sides; pixels are expected{self._hint}")


def looks_like_shares(xyxy: Corners) -> bool:
    """Return whether a box is inside the first pixel, with area and with fractions, so that it is no box in pixels."""
    x0, y0, x1, y1 = xyxy
    in_first_pixel = 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
    return in_first_pixel and any(value % 1 for value in xyxy)


def refuse_pixels(values: Sequence[float], where: str, hint: str = "") -> None:
    """Raise UserError saying `where` when numbers are pixels although shares of the sides are expected."""
    if any(abs(value) > _LARGEST_SHARE for value in values):
        shown = ", ".join(f"{value:g}" for value in values[:4])
        raise UserError(f"{where}: {shown} are pixels; shares of the image's sides, 0 to 1, are expected{hint}")


def clean_label(label: object, where: str) -> str:
    """Return a class name with single spaces and composed accents; raises UserError saying `where` it is empty."""
    text = unicodedata.normalize("NFC", " ".join(str(label).split())) if label is not None else ""
    if not text:
        raise UserError(f"{where}: the class is empty; name it, or remove the box")
    if any("\ud800" <= character <= "\udfff" or character == "\0" for character in text):
        raise UserError(f"{where}: the class {text!r} is not text")
    return text
