"""Outlines as annotation tools write them, polygons and COCO's run lengths, as packed object masks."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_masks

from pbe.dataset.object_masks import pack_mask
from pbe.errors import UserError


def pack_polygons(polygons: Sequence[Sequence[float]], box_xyxy: Sequence[float], where: str) -> bytes | None:
    """The mask that polygons (x, y, x, y, ... in pixels) fill in their box, packed; None when they enclose no pixel.

    Raises UserError saying `where` a polygon has fewer than three corners.
    """
    x0, y0, x1, y1 = box_xyxy
    width, height = math.ceil(x1 - x0), math.ceil(y1 - y0)
    if width < 1 or height < 1:
        return None
    scale, origin = np.array([width / (x1 - x0), height / (y1 - y0)]), np.array([x0, y0])
    placed = []
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise UserError(f"{where}: {len(polygon)} numbers are no polygon: at least three corners x, y are needed")
        placed.append(((np.reshape(polygon, (-1, 2)) - origin) * scale).ravel().tolist())
    return _pack(coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(placed, height, width))))


def pack_runs(runs: Any, box_xyxy: Sequence[float], sides: tuple[float, float], where: str) -> bytes | None:
    """The mask that COCO's run lengths ({size: [height, width], counts}) give in the box, packed; None when empty.

    Raises UserError saying `where` they are none, or are of an image of other `sides` (width, height).
    """
    size, counts = runs.get("size"), runs.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not isinstance(counts, list | str):
        raise UserError(f"{where}: not COCO's run lengths, which have size and counts")
    height, width = size
    if (width, height) != sides:
        raise UserError(f"{where}: the mask is {width} x {height} px, its image {sides[0]:g} x {sides[1]:g} px")
    if isinstance(counts, list):
        if sum(counts) != width * height:
            raise UserError(f"{where}: counts make {sum(counts)} px, its size {width} x {height}")
        runs = coco_masks.frPyObjects(runs, height, width)
    x0, y0, x1, y1 = (round(v) for v in box_xyxy)
    return _pack(coco_masks.decode(runs)[max(0, y0) : y1, max(0, x0) : x1])


def _pack(inside_box: NDArray[np.uint8]) -> bytes | None:
    return pack_mask(inside_box) if inside_box.any() else None
