"""Conversion of polygons and COCO's run lengths, as annotation tools write them, to packed object masks."""

import ast
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_masks

from pbe.acquisition.importers.annotations import numbers
from pbe.acquisition.importers.picture_sides import Corners, Sides
from pbe.acquisition.importers.placement import Outline
from pbe.dataset.object_masks import pack_mask
from pbe.dataset.opened_images import MAX_PIXELS
from pbe.errors import UserError


def segmentation_outline(segmentation: Any, sides: Sides | None, where: str) -> Outline | None:
    """Return what packs an annotation's segmentation inside its clipped box, or None when it has none.

    A flat list of coordinates is one polygon. Raises UserError saying `where` it is neither polygons nor run lengths.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        runs = _checked_runs(segmentation, sides, where)
        return lambda box: pack_runs(runs, box, where)
    if not isinstance(segmentation, list):
        raise UserError(f"{where}: {segmentation!r} is neither a list of polygons nor run lengths")
    is_flat = all(isinstance(value, int | float) for value in segmentation)
    polygons = [numbers(polygon, None, where) for polygon in ([segmentation] if is_flat else segmentation)]
    check_polygons(polygons, where)
    return lambda box: pack_polygons(polygons, box)


def polygon_outline(polygons: Sequence[Sequence[float]], where: str) -> Outline:
    """Return what packs polygons (x, y, x, y, ... in pixels) inside their clipped box.

    Raises UserError saying `where` a polygon has fewer than three corners.
    """
    check_polygons(polygons, where)
    return lambda box: pack_polygons(polygons, box)


def check_polygons(polygons: Sequence[Sequence[float]], where: str) -> None:
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise UserError(f"{where}: {len(polygon)} numbers are not a polygon, which has at least three corners x, y")


def pack_polygons(polygons: Sequence[Sequence[float]], box_xyxy: Corners) -> bytes | None:
    """Return the packed mask that polygons fill in their box; None when they enclose no pixel."""
    x0, y0, x1, y1 = box_xyxy
    width, height = math.ceil(x1 - x0), math.ceil(y1 - y0)
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        return None
    scale, origin = np.array([width / (x1 - x0), height / (y1 - y0)]), np.array([x0, y0])
    margin = 2.0 * max(width, height)  # far corners would overflow the rasteriser's integers
    placed = [
        np.clip((np.reshape(polygon, (-1, 2)) - origin) * scale, -margin, margin + max(width, height)).ravel().tolist()
        for polygon in polygons
    ]
    return _pack(coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(placed, height, width))))


def pack_runs(runs: dict[str, Any], box_xyxy: Corners, where: str) -> bytes | None:
    """Return the packed mask that COCO's compressed run lengths give in the box, None when it is empty there.

    Raises UserError saying `where` they do not decode.
    """
    try:
        mask = coco_masks.decode(runs)
    except ValueError as error:
        raise UserError(f"{where}: counts do not decode: {error}") from None
    x0, y0, x1, y1 = (round(v) for v in box_xyxy)
    return _pack(mask[max(0, y0) : y1, max(0, x0) : x1])


def _checked_runs(runs: dict[str, Any], sides: Sides | None, where: str) -> dict[str, Any]:
    """Return run lengths in pycocotools' compressed form; numbers may be floats, and counts the text of bytes."""
    size, counts = runs.get("size"), runs.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not isinstance(counts, list | str):
        raise UserError(f"{where}: not COCO's run lengths, which have size and counts")
    height, width = _whole_numbers(size, where)
    if sides is not None and (width, height) != sides:
        raise UserError(f"{where}: the mask is {width} x {height} px, but its image {sides[0]:g} x {sides[1]:g} px")
    if not 0 < width * height <= MAX_PIXELS:
        raise UserError(f"{where}: a mask of {width} x {height} px is not supported")
    if isinstance(counts, str):
        return {"size": [height, width], "counts": _compressed(counts, width * height, where)}
    lengths = _whole_numbers(counts, where)
    if min(lengths, default=0) < 0 or sum(lengths) != width * height:
        raise UserError(f"{where}: counts add up to {sum(lengths)} px, but its size is {width} x {height}")
    return dict(coco_masks.frPyObjects({"size": [height, width], "counts": lengths}, height, width))


def _whole_numbers(values: list[Any], where: str) -> list[int]:
    found = numbers(values, None, where)
    if any(value % 1 for value in found):
        raise UserError(f"{where}: {values!r:.60} are not all whole numbers")
    return [int(value) for value in found]


def _compressed(counts: str, num_pixels: int, where: str) -> bytes:
    """Return compressed counts as bytes; raises UserError saying `where` they make another number of pixels.

    Python's text of bytes, b'...', is what a tool wrote that called str() on them.
    """
    text = counts
    if counts[:2] in ("b'", 'b"') and counts[-1:] == counts[1]:
        try:
            text = ast.literal_eval(counts).decode("ascii")
        except (ValueError, SyntaxError, AttributeError):
            raise UserError(f"{where}: counts {counts[:20]!r} do not decode") from None
    found = _decode_lengths(text)
    if found is None or found.min() < 0 or found.sum() != num_pixels:
        made = "nothing" if found is None else f"{found.sum()} px"
        raise UserError(f"{where}: compressed counts add up to {made}, but its size is {num_pixels} px")
    return text.encode("ascii")


def _decode_lengths(text: str) -> NDArray[np.int64] | None:
    """Decode COCO's run lengths: 5 bits a character, little end first, the fourth and later as differences."""
    if not text.isascii() or not text:
        return None
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 0x20) == 0)
    if codes.min() < 0 or codes.max() > 63 or not ends.size or ends[-1] != codes.size - 1:
        return None
    starts = np.append(0, ends[:-1] + 1)
    sizes = ends - starts + 1
    if sizes.max() > 7:
        return None
    places = np.arange(codes.size) - np.repeat(starts, sizes)
    lengths = np.add.reduceat((codes & 0x1F) << (5 * places), starts)
    lengths -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * sizes), 0)
    for first in (1, 2):
        lengths[first::2] = np.cumsum(lengths[first::2])
    return np.asarray(lengths, np.int64)


def _pack(inside_box: NDArray[np.uint8]) -> bytes | None:
    return pack_mask(inside_box) if inside_box.any() else None


def runs_bounds(runs: dict[str, Any], sides: Sides | None, where: str) -> Corners:
    """Return the box around COCO's run lengths; raises UserError saying `where` they do not decode."""
    x, y, width, height = coco_masks.toBbox(_checked_runs(runs, sides, where))
    return float(x), float(y), float(x + width), float(y + height)
