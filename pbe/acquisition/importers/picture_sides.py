"""The size that annotations state against the size of the picture, and boxes in the upright picture.

A picture may have been made smaller or larger since it was annotated, and a tool may have ignored its EXIF orientation.
Both show in the stated size: in another scale the boxes are scaled, and where only the size before the EXIF turn fits
the boxes are turned with the picture. Any other size is an error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pbe.dataset.images import image_orientation, image_size
from pbe.errors import UserError

Sides = tuple[float, float]
Pixel = TypeVar("Pixel", bound=np.generic)
Corners = tuple[float, float, float, float]


class Frame(NamedTuple):
    """The picture that boxes are measured in: its sides in pixels, and the EXIF orientation that still turns it.

    `sides` is None for a picture that cannot be read and whose size nothing states. `change` is "" or names what the
    stated size calls for: "scaled" or "turned".
    """

    sides: Sides | None
    orientation: int = 1
    change: str = ""


def frame_of(file: Path | BinaryIO, name: str, stated: Sides | None, where: str) -> Frame:
    """Return the frame of a picture's boxes; a picture that acquire will report as lost has its stated sides.

    Raises UserError saying `where` the size is stated when it is not that of the picture.
    """
    try:
        sides = image_size(file, name)
    except UserError:
        return Frame(stated)
    if stated is None or stated == sides:
        return Frame(sides)
    if _in_proportion(stated, sides):
        return Frame(stated, change="scaled")
    if not isinstance(file, Path):
        file.seek(0)
    orientation = image_orientation(file, name)
    if orientation >= 5 and _in_proportion(stated, (sides[1], sides[0])):
        return Frame(stated, orientation, "turned")
    raise UserError(
        f"{where}: annotated at {stated[0]:g} x {stated[1]:g} px, but {name} is {sides[0]} x {sides[1]} px when "
        "upright; use the picture that was annotated, or correct the size"
    )


def stated_sides(width: object, height: object) -> Sides | None:
    """Return a width and height as annotations state them, or None when either is missing, zero or not a number."""
    try:
        sides = float(str(width)), float(str(height))
    except ValueError:
        return None
    return sides if all(0 < side < float("inf") for side in sides) else None


def _in_proportion(a: Sides, b: Sides) -> bool:
    """Return whether one is the other in another scale, each side rounded to a pixel."""
    (width_a, height_a), (width_b, height_b) = a, b
    return abs(width_a * height_b - width_b * height_a) <= max(width_a + height_a, width_b + height_b)


def turn_corners(xyxy: Corners, orientation: int) -> Corners:
    """Turn a box in shares of the sides as EXIF's orientation turns its picture."""
    x0, y0, x1, y1 = xyxy
    return {
        5: (y0, x0, y1, x1),
        6: (1 - y1, x0, 1 - y0, x1),
        7: (1 - y1, 1 - x1, 1 - y0, 1 - x0),
        8: (y0, 1 - x1, y1, 1 - x0),
    }.get(orientation, xyxy)


def turn_mask(mask: NDArray[Pixel], orientation: int) -> NDArray[Pixel]:
    """Turn a mask of (h, w) numbers as EXIF's orientation turns its picture."""
    turned = {5: mask.T, 6: np.rot90(mask, -1), 7: mask.T[::-1, ::-1], 8: np.rot90(mask)}.get(orientation, mask)
    return np.ascontiguousarray(turned)


def clip_corners(xyxy: Sequence[float], sides: Sides) -> Corners | None:
    """Return the part of a box that is inside the picture, or None when nothing is."""
    (x0, y0, x1, y1), (width, height) = xyxy, sides
    clipped = max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height)
    return clipped if clipped[0] < clipped[2] and clipped[1] < clipped[3] else None
