"""Duplicate images: embeddings propose pairs, pixels confirm them, and fixed rules decide which image is kept.

An image tower trained on crops of objects maps different scenes with similar objects close together, so a small
distance only proposes a pair. Two images are near duplicates when their thumbnails agree after alignment, as a whole
and in the boxes of their objects.

imagehash and imagededup are not used: they compare one hash for each image, and a hash cannot be aligned.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pbe.types import Image

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Weights = NDArray[np.bool_]
Pair = tuple[int, int]
Kind = TypeVar("Kind", bound=np.generic)

_MARGIN_PX = 1
_CHUNK = 64  # pairs whose arrays fit the cache of a core
_MAX_OF_CONTRAST = 0.35
_MAX_OF_BOX_CONTRAST = 0.4
_ROUNDING = 1e-5
_AROUND_BOX_PX = 2  # of a thumbnail: an object is seen against the ground around it
_JPEG_NOISE = 0.005  # the difference that compression alone makes, also in an image of one tone


class Item(NamedTuple):
    """One image to decide on; `fault` is a fault of the image alone, or ""."""

    image_id: str
    is_train: bool
    fault: str
    pixels_sha256: str


class Decision(NamedTuple):
    """`reason` is "" when the image is kept; `duplicate_of` is the index of its original, or None."""

    reason: str
    duplicate_of: int | None


def aligned_difference(first: Image, second: Image, weights: Weights | None = None) -> Floats:
    """Return the mean absolute difference, 0..1, of (N, S, S, 3) uint8 thumbnails at the best of 25 shifts.

    Shifts are of up to one pixel in steps of half a pixel: a pixel of a 64 px image is half a pixel of its 32 px
    thumbnail. With (N, S, S) `weights`, pixels of `second` count as much as these say; each row has one above zero.
    """
    inner = first.shape[1] - 2 * _MARGIN_PX
    fixed = 4 * _inner(second).astype(np.int16)
    halves = _half_pixels(first)
    inside = None if weights is None else _inner(weights)
    best = np.full(len(first), np.inf)
    for y, x in product(range(4 * _MARGIN_PX + 1), repeat=2):
        moved = halves[y % 2][x % 2][:, y // 2 : y // 2 + inner, x // 2 : x // 2 + inner]
        best = np.minimum(best, _mean(np.abs(moved - fixed), inside))
    return np.asarray(best / (4 * 255), np.float32)


class Regions:
    """The boxes of N images as weights of their thumbnails' pixels: 1 in and around a box, 0 elsewhere.

    `rows` (B,) are the images of the boxes, in order, and `xyxy_frac` (B, 4) the boxes in shares of the image's sides.
    """

    def __init__(self, rows: Ints, xyxy_frac: Floats, num_images: int, side_px: int) -> None:
        self._starts = np.searchsorted(rows, np.arange(num_images + 1))
        low = np.floor(xyxy_frac[:, :2] * side_px).astype(np.int64) - _AROUND_BOX_PX
        high = np.ceil(xyxy_frac[:, 2:] * side_px).astype(np.int64) + _AROUND_BOX_PX
        corners = np.clip(np.concatenate([low, high], axis=1), _MARGIN_PX, side_px - _MARGIN_PX)
        self._boxes, self._side_px = corners.astype(np.int16), side_px

    def weights(self, images: Ints) -> Weights:
        """Return (P, S, S) weights of P images; they are 0 everywhere for an image without boxes."""
        weights = np.zeros((len(images), self._side_px, self._side_px), bool)
        for inside, image in zip(weights, images, strict=True):
            for x0, y0, x1, y1 in self._boxes[self._starts[image] : self._starts[image + 1]]:
                inside[y0:y1, x0:x1] = True
        return weights


class PixelCheck:
    """Confirms pairs among (N, S, S, 3) uint8 thumbnails, whose objects are at `regions`.

    `contrast` and `shift_sensitivity`, both (N,), are those of the functions of the same names.
    """

    def __init__(self, pixels: Image, regions: Regions | None = None) -> None:
        self._pixels, self._regions = pixels, regions
        parts = [pixels[start : start + _CHUNK] for start in range(0, len(pixels), _CHUNK)]
        empty = np.zeros(0, np.float32)
        self.contrast = np.concatenate([empty, *(contrast(part) for part in parts)])
        self.shift_sensitivity = np.concatenate([empty, *(shift_sensitivity(part) for part in parts)])

    def confirm(self, candidates: Ints, max_difference: float) -> list[Pair]:
        """Return those of the (P, 2) candidate pairs that differ by at most `max_difference` after alignment.

        Two plain scenes with one small object each also differ by little. A pair must therefore differ by far less than
        the contrast of either image: among 4,420 demo images, duplicates differ by up to 0.17 of their contrast, other
        pairs by 0.57 or more. The same holds for the boxes alone, where 84 duplicates of the demo differ by up to 0.31
        of the contrast: frames of a clip whose object has moved over plain ground are no duplicates. If the unaligned
        difference exceeds the limit by more than the shift sensitivity of the first image, no shift can bring it below
        (triangle inequality).
        """
        confirmed: list[Pair] = []
        for start in range(0, len(candidates), _CHUNK):
            chunk = candidates[start : start + _CHUNK]
            left, right = chunk.T
            limit = np.minimum(max_difference, _MAX_OF_CONTRAST * np.minimum(self.contrast[left], self.contrast[right]))
            limit = np.maximum(limit, _JPEG_NOISE)
            unaligned = _difference(_inner(self._pixels[left]), _inner(self._pixels[right]))
            possible = np.flatnonzero(unaligned - self.shift_sensitivity[left] <= limit + _ROUNDING)
            aligned = aligned_difference(self._pixels[left[possible]], self._pixels[right[possible]])
            alike = chunk[possible[aligned <= limit[possible]]]
            confirmed += [(int(i), int(j)) for i, j in alike[self._boxes_agree(alike)]]
        return confirmed

    def _boxes_agree(self, pairs: Ints) -> NDArray[np.bool_]:
        """Return whether the images of each pair differ, in the boxes of each, by far less than the contrast there."""
        agree = np.ones(len(pairs), bool)
        if self._regions is None:
            return agree
        for images in pairs.T:
            weights = self._regions.weights(images)
            judged = np.flatnonzero(agree & weights.any(axis=(1, 2)))  # an image without boxes has none to judge
            (left, right), inside = self._pixels[pairs[judged].T], weights[judged]
            limit = _MAX_OF_BOX_CONTRAST * np.minimum(contrast(left, inside), contrast(right, inside))
            agree[judged] = aligned_difference(left, right, inside) <= np.maximum(limit, _JPEG_NOISE)
        return agree


def contrast(images: Image, weights: Weights | None = None) -> Floats:
    """Return the mean absolute deviation, 0..1, of each of (N, S, S, 3) uint8 images from its mean colour.

    With (N, S, S) `weights`, both are means over the pixels as often as these say.
    """
    values = images.astype(np.float32) / np.float32(255)
    if weights is None:
        return np.asarray(_mean(np.abs(values - values.mean(axis=(1, 2), keepdims=True))), np.float32)
    mean = (values * weights[..., None]).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))[:, None].astype(np.float32)
    return np.asarray(_mean(np.abs(values - mean[:, None, None]), weights), np.float32)


def shift_sensitivity(images: Image) -> Floats:
    """Return the largest difference, 0..1, between (N, S, S, 3) uint8 images and themselves shifted by up to a pixel.

    Only whole pixels are tried: a shift by half a pixel is a mean of whole ones, and changes no more than they do.
    """
    inner, most = _inner(images), np.zeros(len(images), np.float32)
    side = inner.shape[1]
    for y, x in product(range(2 * _MARGIN_PX + 1), repeat=2):
        most = np.maximum(most, _difference(images[:, y : y + side, x : x + side], inner))
    return most


def decide(items: Sequence[Item], near_pairs: Iterable[Pair]) -> list[Decision]:
    """Decide for each image whether it is kept. The first reason that applies rejects it:

    its fault; leak, for a train image that duplicates a validation image; exact_duplicate or near_duplicate of a kept
    image of its split. A faulty image is neither a duplicate nor an original. Among duplicates, the image with the
    smallest id is kept, so the order of `items` and `near_pairs` does not matter.
    """
    near = _neighbours(items, near_pairs)
    decisions = [Decision(item.fault, None) for item in items]
    by_id = sorted((i for i, item in enumerate(items) if not item.fault), key=lambda i: items[i].image_id)
    validation: dict[str, int] = {}  # pixels -> the validation image that has them
    for i in by_id:
        if not items[i].is_train:
            validation.setdefault(items[i].pixels_sha256, i)
    kept: set[int] = set()
    first: dict[tuple[str, bool], int] = {}  # (pixels, is_train) -> the kept image that has them
    for i in by_id:
        item = items[i]
        if item.is_train:
            twins = [j for j in near[i] if not items[j].is_train]
            if item.pixels_sha256 in validation:
                twins.append(validation[item.pixels_sha256])
            if twins:
                decisions[i] = Decision("leak", min(twins, key=lambda j: items[j].image_id))
                continue
        same = [j for j in near[i] if j in kept and items[j].is_train == item.is_train]
        if (item.pixels_sha256, item.is_train) in first:
            decisions[i] = Decision("exact_duplicate", first[item.pixels_sha256, item.is_train])
        elif same:
            decisions[i] = Decision("near_duplicate", min(same, key=lambda j: items[j].image_id))
        else:
            kept.add(i)
            first[item.pixels_sha256, item.is_train] = i
    return decisions


def _inner(images: NDArray[Kind]) -> NDArray[Kind]:
    return images[:, _MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]


def _difference(first: Image, second: Image) -> Floats:
    """Return the mean absolute difference, 0..1, of each pair of images, unaligned."""
    return np.asarray(_mean(np.abs(first.astype(np.int16) - second)) / 255, np.float32)


def _mean(values: NDArray[Any], weights: Weights | None = None) -> NDArray[np.float64]:
    """Return the mean of each of (N, S, S, 3) values, exact for whole numbers; or the weighted one."""
    kind = np.int32 if np.issubdtype(values.dtype, np.integer) else np.float32
    if weights is None:
        return np.asarray(values.sum(axis=(1, 2, 3), dtype=kind) / math.prod(values.shape[1:]), np.float64)
    total = (values * weights[..., None]).sum(axis=(1, 2, 3), dtype=kind)
    return np.asarray(total / (values.shape[-1] * weights.sum(axis=(1, 2))), np.float64)


def _half_pixels(images: Image) -> tuple[tuple[NDArray[np.int16], ...], ...]:
    """Return four times (N, S, S, 3) images, as whole numbers, moved by [0 or half a pixel down][0 or half right]."""
    whole = images.astype(np.int16)
    down, right = whole[:, 1:] + whole[:, :-1], whole[:, :, 1:] + whole[:, :, :-1]
    return (4 * whole, 2 * right), (2 * down, right[:, 1:] + right[:, :-1])


def _neighbours(items: Sequence[Item], pairs: Iterable[Pair]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for i, j in pairs:
        if not (items[i].fault or items[j].fault):
            found[i].append(j)
            found[j].append(i)
    return found
