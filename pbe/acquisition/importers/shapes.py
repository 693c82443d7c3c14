"""Shapes of annotation tools as boxes: polygons with their outlines, other shapes by their bounds."""

import math
from collections.abc import Sequence
from dataclasses import replace

from pbe.acquisition.importers.placement import PixelBox
from pbe.acquisition.importers.segmentations import polygon_outline
from pbe.errors import UserError


def polygon_box(label: str, points: Sequence[float], where: str, flags: frozenset[str] = frozenset()) -> PixelBox:
    """Return the bounds and the outline of a polygon x, y, x, y, ... in pixels.

    Raises UserError saying `where` it has fewer than three corners.
    """
    outline = polygon_outline([points], where)
    return replace(bounds_box(label, points, where, flags), outline=outline)


def bounds_box(label: str, points: Sequence[float], where: str, flags: frozenset[str] = frozenset()) -> PixelBox:
    """Return the bounds of points x, y, x, y, ...; raises UserError saying `where` there are fewer than two."""
    if len(points) < 4 or len(points) % 2:
        raise UserError(f"{where}: {len(points)} numbers are not two points x, y or more")
    xs, ys = points[::2], points[1::2]
    return PixelBox(label, (min(xs), min(ys), max(xs), max(ys)), flags)


def rotated_corners(
    x: float, y: float, width: float, height: float, degrees: float, about: tuple[float, float]
) -> list[float]:
    """Return the corners of an upright rectangle turned clockwise about a point, as x, y, x, y, ..."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = []
    for corner_x, corner_y in ((x, y), (x + width, y), (x + width, y + height), (x, y + height)):
        dx, dy = corner_x - about[0], corner_y - about[1]
        turned += [about[0] + dx * cosine - dy * sine, about[1] + dx * sine + dy * cosine]
    return turned
