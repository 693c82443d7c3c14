"""The regions of a mask: each is painted through its own window.

A window around two islands that lie far apart would show the network both of them too small to paint (see `close_up`).
A mask is therefore split into its connected regions. Regions whose surroundings touch are one: each region's box is
grown by the margin that its window shows around it. Within a window the pixels of the other regions stay hidden, but
only the window's own region is put back.

Specks, such as a slip of the brush or the noise of a JPEG, are dropped and counted. A speck's box is at most 2 pixels,
or 1/200 of the picture's short side, wide and high. Specks within a region's surroundings belong to that region, and a
mask of nothing but specks keeps them all.

A window is painted at the painter's resolution and enlarged; its ground gets the grain of the picture (see `grain`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.errors import UserError
from pbe.method.close_up import MARGIN, MAX_MAGNIFICATION, CloseUp, cut_at, put_into, window_around
from pbe.method.exemplars import resize
from pbe.method.grain import match_grain
from pbe.method.windows import Window, mask_box
from pbe.types import Box, Image, Mask

MAX_REGIONS = 16  # a mask of more regions is a texture, which one window shows as a whole
MAX_LABEL = 255  # regions of all masks of an edit
LEAST_MARGIN = 1 / 16  # of the smallest window's side: a window shows at least this much around a region
SPECK_PX, SPECK_FRAC = 2, 1 / 200
_MAX_PIECES = 4096

Boxes = NDArray[np.int64]  # (N, 4) xyxy


class Regions(NamedTuple):
    """The regions of a mask, the largest first."""

    labels: Mask  # (H, W): the number of a pixel's region, counted from 1; 0 = keep
    windows: tuple[Window, ...]
    num_specks: int  # how many were dropped
    speck_px: int  # the widest box that counts as a speck

    @property
    def mask(self) -> Mask:
        """The mask without its specks."""
        return (self.labels > 0).view(np.uint8)


def find_regions(
    mask: Mask, image_px: int, max_magnification: float = MAX_MAGNIFICATION, context_px: int | None = None
) -> Regions:
    """Split a mask (H, W) of 0 and 1 into its regions, each with the window that `close_up` gives it.

    `context_px` does not change how the mask is split. Raises ValueError when the mask is empty.
    """
    x0, y0, x1, y1 = mask_box(mask)
    speck_px = max(SPECK_PX, int(min(mask.shape) * SPECK_FRAC))
    _, pieces, rows, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask[y0:y1, x0:x1]))
    stats = np.asarray(rows[1:], np.int64)  # the first is the background
    group = _group_pieces(stats, (y1 - y0, x1 - x0), image_px / max_magnification * LEAST_MARGIN, speck_px)
    labels = np.zeros(mask.shape, np.uint8)
    labels[y0:y1, x0:x1] = np.concatenate([[0], _by_area(group, stats[:, cv2.CC_STAT_AREA])]).astype(np.uint8)[pieces]
    windows = tuple(
        window_around((labels == number).view(np.uint8), image_px, max_magnification, context_px)
        for number in range(1, labels.max() + 1)
    )
    return Regions(labels, windows, int((group == 0).sum()), speck_px)


def join_regions(parts: Sequence[Regions]) -> Regions:
    """Return the regions of several masks of one picture, which may not overlap, numbered one mask after another.

    Raises UserError when there are more than `MAX_LABEL`.
    """
    if len(parts) == 1:
        return parts[0]
    windows = tuple(window for part in parts for window in part.windows)
    if len(windows) > MAX_LABEL:
        raise UserError(f"the masks have {len(windows)} regions: give at most {MAX_LABEL}")
    labels, before = np.zeros_like(parts[0].labels), 0
    for part in parts:
        np.add(part.labels, np.uint8(before), out=labels, where=part.labels > 0)
        before += len(part.windows)
    return Regions(labels, windows, sum(part.num_specks for part in parts), parts[0].speck_px)


def region_boxes(regions: Regions) -> list[Box]:
    """Return the box of each region's pixels."""
    return [mask_box((regions.labels == number).view(np.uint8)) for number in range(1, len(regions.windows) + 1)]


def cut_regions(source: Image, regions: Regions, image_px: int) -> list[CloseUp]:
    """Cut every region's window out of the source (H, W, 3); the pixels of all regions are hidden in each."""
    mask = regions.mask
    return [cut_at(source, mask, window, image_px) for window in regions.windows]


def put_back_regions(source: Image, regions: Regions, painted: Sequence[Image | None]) -> Image:
    """Return the source (H, W, 3) with each region's pixels from its own painted window (S, S, 3), if there is one.

    Painted ground gets the grain of the source (see `grain`).
    """
    result, mask = source.copy(), regions.mask
    for number, (square, window) in enumerate(zip(painted, regions.windows, strict=True), start=1):
        if square is not None:
            put_into(result, regions.labels, number, _grained(square, source, mask, window), window)
    return result


def _grained(square: Image, source: Image, mask: Mask, window: Window) -> Image:
    """Return a painted square (S, S, 3) at the size of its window, its ground with the grain of the source.

    The grain is measured around the window, too, which may show nothing but the mask.
    """
    height, width = mask.shape
    large = resize(square, window.side, window.side)
    top, left = max(0, window.top), max(0, window.left)
    bottom, right = min(height, window.top + window.side), min(width, window.left + window.side)
    inside = slice(top - window.top, bottom - window.top), slice(left - window.left, right - window.left)
    margin = window.side // 8
    rows = slice(max(0, top - margin), bottom + margin)
    columns = slice(max(0, left - margin), right + margin)
    within = slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start)
    painted = np.zeros_like(source[rows, columns])
    painted[within] = large[inside]
    grained = large.copy()
    enlargement = window.side / len(square)
    grained[inside] = match_grain(painted, source[rows, columns], mask[rows, columns], enlargement)[within]
    return grained


def region_seeds(seed: int, regions: Regions) -> list[int]:
    """Return a seed for each region's noise; the largest region has the given one."""
    return [(seed + number) % 2**63 for number in range(len(regions.windows))]


def _group_pieces(stats: Boxes, shape: tuple[int, int], least_margin: float, speck_px: int) -> NDArray[np.int64]:
    """Return the region of each connected piece, counted from 1 in no order; 0 for a speck that is dropped.

    `stats` (N, 5) holds left, top, width, height and area of each piece.
    """
    is_speck = stats[:, 2:4].max(1) <= speck_px
    if is_speck.all():
        is_speck[:] = False
    boxes = np.concatenate([stats[:, :2], stats[:, :2] + stats[:, 2:4]], 1)
    group = np.zeros(len(boxes), np.int64)
    group[~is_speck], surroundings = _merge(boxes[~is_speck], shape, least_margin)
    group[is_speck] = surroundings[boxes[is_speck, 1], boxes[is_speck, 0]]
    return group


def _merge(boxes: Boxes, shape: tuple[int, int], least_margin: float) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the region of each box, counted from 1, and a map (H, W) of the regions' surroundings.

    A region that grows reaches further, so that the regions are merged until none touches another.
    """
    regions = boxes if len(boxes) <= _MAX_PIECES else _union(boxes)
    while True:
        surroundings = _surroundings(regions, shape, least_margin)
        number = surroundings[boxes[:, 1], boxes[:, 0]].astype(np.int64)
        if number.max() == len(regions):
            break
        regions = np.concatenate([_union(boxes[number == each]) for each in range(1, number.max() + 1)])
    if len(regions) > MAX_REGIONS:
        return np.ones(len(boxes), np.int64), np.ones(shape, np.int32)
    return number, surroundings


def _surroundings(boxes: Boxes, shape: tuple[int, int], least_margin: float) -> NDArray[np.int32]:
    """Number the areas (H, W) that boxes cover with their margins, from 1; those that touch have one number."""
    longest = (boxes[:, 2:] - boxes[:, :2]).max(1)
    margin = np.ceil(np.maximum(longest * (MARGIN - 1) / 2, least_margin)).astype(np.int64)
    covered = np.zeros(shape, np.uint8)
    for (x0, y0, x1, y1), reach in zip(boxes.tolist(), margin.tolist(), strict=True):
        covered[max(0, y0 - reach) : y1 + reach, max(0, x0 - reach) : x1 + reach] = 1
    return np.asarray(cv2.connectedComponents(covered)[1], np.int32)


def _union(boxes: Boxes) -> Boxes:
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])[None]


def _by_area(group: NDArray[np.int64], areas: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups anew, the largest first; 0 stays 0."""
    area = np.bincount(group, areas)[1:]
    rank = np.empty(len(area) + 1, np.int64)
    rank[0] = 0
    rank[1 + np.argsort(-area, kind="stable")] = np.arange(1, len(area) + 1)
    return rank[group]
