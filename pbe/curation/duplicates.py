"""Duplicate images: embeddings propose pairs, pixels confirm them, and fixed rules decide which image is kept.

An image tower trained on crops of objects maps different scenes with similar objects close together, so a small
distance only proposes a pair. Two images are near duplicates when their thumbnails agree after alignment.

imagehash and imagededup are not used: they compare one hash for each image, and a hash cannot be aligned.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pbe.types import Image

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Pair = tuple[int, int]

_MARGIN_PX = 1
_CHUNK = 256
_MAX_OF_CONTRAST = 0.35
_ROUNDING = 1e-5
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


def aligned_difference(first: Image, second: Image) -> Floats:
    """Return the mean absolute difference, 0..1, of (N, S, S, 3) uint8 thumbnails at the best of 25 shifts.

    Shifts are of up to one pixel in steps of half a pixel: a pixel of a 64 px image is half a pixel of its 32 px
    thumbnail.
    """
    inner = first.shape[1] - 2 * _MARGIN_PX
    fixed = second[:, _MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX].astype(np.float32)
    doubled = _half_pixels(_half_pixels(first.astype(np.float32), axis=1), axis=2)
    best = np.full(len(first), np.inf, np.float32)
    for y, x in product(range(4 * _MARGIN_PX + 1), repeat=2):
        moved = doubled[:, y : y + 2 * inner - 1 : 2, x : x + 2 * inner - 1 : 2]
        best = np.minimum(best, np.abs(moved - fixed).mean(axis=(1, 2, 3)))
    return best / np.float32(255)


class PixelCheck:
    """Confirms pairs among (N, S, S, 3) uint8 thumbnails.

    `contrast` and `shift_sensitivity`, both (N,), are those of the functions of the same names.
    """

    def __init__(self, pixels: Image) -> None:
        self._pixels = pixels
        parts = [pixels[start : start + _CHUNK] for start in range(0, len(pixels), _CHUNK)]
        empty = np.zeros(0, np.float32)
        self.contrast = np.concatenate([empty, *(contrast(part) for part in parts)])
        self.shift_sensitivity = np.concatenate([empty, *(shift_sensitivity(part) for part in parts)])

    def confirm(self, candidates: Ints, max_difference: float) -> list[Pair]:
        """Return those of the (P, 2) candidate pairs that differ by at most `max_difference` after alignment.

        Two plain scenes with one small object each also differ by little. A pair must therefore differ by far less than
        the contrast of either image: among 4,420 demo images, duplicates differ by up to 0.17 of their contrast, other
        pairs by 0.57 or more. If the unaligned difference exceeds the limit by more than the shift sensitivity of the
        first image, no shift can bring it below (triangle inequality): 98 of 100 pairs need no alignment.
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
            confirmed += [(int(i), int(j)) for i, j in chunk[possible[aligned <= limit[possible]]]]
        return confirmed


def contrast(images: Image) -> Floats:
    """Return the mean absolute deviation, 0..1, of each of (N, S, S, 3) uint8 images from its mean colour."""
    values = images.astype(np.float32) / np.float32(255)
    return np.asarray(np.abs(values - values.mean(axis=(1, 2), keepdims=True)).mean(axis=(1, 2, 3)), np.float32)


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


def _inner(images: Image) -> Image:
    return images[:, _MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]


def _difference(first: Image, second: Image) -> Floats:
    """Return the mean absolute difference, 0..1, of each pair of images, unaligned."""
    difference = np.abs(first.astype(np.float32) - second.astype(np.float32)).mean(axis=(1, 2, 3))
    return np.asarray(difference / np.float32(255), np.float32)


def _half_pixels(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Insert the mean between every two neighbours along `axis`: S values become 2 S - 1."""
    values = np.moveaxis(values, axis, 0)
    out = np.empty((2 * len(values) - 1, *values.shape[1:]), np.float32)
    out[::2] = values
    out[1::2] = (values[1:] + values[:-1]) / 2
    return np.moveaxis(out, 0, axis)


def _neighbours(items: Sequence[Item], pairs: Iterable[Pair]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for i, j in pairs:
        if not (items[i].fault or items[j].fault):
            found[i].append(j)
            found[j].append(i)
    return found
