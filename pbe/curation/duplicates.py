"""Pictures that repeat one another: candidates by embedding, confirmed by pixels, judged the same way every time.

An image tower trained on crops of objects maps different scenes with similar objects close together, so what is close
for it is only a candidate. Two candidates are near duplicates when their thumbnails agree once they are aligned.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Pair = tuple[int, int]

_MARGIN_PX = 1
_CHUNK = 256
_MAX_OF_CONTRAST = 0.35
_ROUNDING = 1e-5
_JPEG_NOISE = 0.005  # what compression alone changes, also in a picture of one tone


class Item(NamedTuple):
    """One image to judge; `fault` is what is wrong with it by itself, or ""."""

    image_id: str
    is_train: bool
    fault: str
    pixels_sha256: str


class Verdict(NamedTuple):
    """`reason` is "" where the image is kept; `duplicate_of` is the index of the image it repeats, or None."""

    reason: str
    duplicate_of: int | None


def aligned_difference(first: Image, second: Image) -> Floats:
    """Mean absolute difference, 0..1, of (N, S, S, 3) uint8 thumbnails at the best of 25 shifts of up to one pixel.

    Shifts go by half pixels: one pixel of a 64 px image is half a pixel of its 32 px thumbnail.
    """
    inner = first.shape[1] - 2 * _MARGIN_PX
    fixed = second[:, _MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX].astype(np.float32)
    doubled = _half_pixels(_half_pixels(first.astype(np.float32), axis=1), axis=2)
    best = np.full(len(first), np.inf, np.float32)
    for y, x in product(range(4 * _MARGIN_PX + 1), repeat=2):
        moved = doubled[:, y : y + 2 * inner - 1 : 2, x : x + 2 * inner - 1 : 2]
        best = np.minimum(best, np.abs(moved - fixed).mean(axis=(1, 2, 3)))
    return best / np.float32(255)


class Thumbnails:
    """(N, S, S, 3) uint8 thumbnails, ready to be compared in pairs.

    `contrast` is how much each varies in itself, `restlessness` the most that a shift of a pixel changes it; both (N,).
    """

    def __init__(self, pixels: Image) -> None:
        self._pixels = pixels
        parts = [pixels[start : start + _CHUNK] for start in range(0, len(pixels), _CHUNK)]
        none = np.zeros(0, np.float32)
        self.contrast = np.concatenate([none, *(contrast(part) for part in parts)])
        self.restlessness = np.concatenate([none, *(restlessness(part) for part in parts)])

    def confirm(self, candidates: Ints, max_difference: float) -> list[Pair]:
        """Keep those of the (P, 2) candidate pairs that differ by at most `max_difference` when aligned.

        Two plain scenes with a small object each differ by little too, so a pair must also differ by far less than
        either picture varies in itself: among 4,420 demo images repeats reach 0.17 of their contrast, other pairs
        begin at 0.57. A pair whose unaligned difference is over the limit by more than the first one's restlessness
        cannot be saved by a shift (triangle inequality); that spares 98 of 100 the alignment.
        """
        confirmed: list[Pair] = []
        for start in range(0, len(candidates), _CHUNK):
            chunk = candidates[start : start + _CHUNK]
            left, right = chunk.T
            limit = np.minimum(max_difference, _MAX_OF_CONTRAST * np.minimum(self.contrast[left], self.contrast[right]))
            limit = np.maximum(limit, _JPEG_NOISE)
            unaligned = _difference(_inner(self._pixels[left]), _inner(self._pixels[right]))
            hopeful = np.flatnonzero(unaligned - self.restlessness[left] <= limit + _ROUNDING)
            aligned = aligned_difference(self._pixels[left[hopeful]], self._pixels[right[hopeful]])
            confirmed += [(int(i), int(j)) for i, j in chunk[hopeful[aligned <= limit[hopeful]]]]
        return confirmed


def contrast(images: Image) -> Floats:
    """The mean absolute deviation, 0..1, of each of (N, S, S, 3) uint8 images from its own mean colour."""
    values = images.astype(np.float32) / np.float32(255)
    return np.asarray(np.abs(values - values.mean(axis=(1, 2), keepdims=True)).mean(axis=(1, 2, 3)), np.float32)


def restlessness(images: Image) -> Floats:
    """The largest difference, 0..1, between (N, S, S, 3) uint8 images and themselves shifted by up to one pixel.

    A shift by half a pixel is a mean of whole ones, so that it changes no more than they do.
    """
    inner, most = _inner(images), np.zeros(len(images), np.float32)
    side = inner.shape[1]
    for y, x in product(range(2 * _MARGIN_PX + 1), repeat=2):
        most = np.maximum(most, _difference(images[:, y : y + side, x : x + side], inner))
    return most


def judge(items: Sequence[Item], near_pairs: Iterable[Pair]) -> list[Verdict]:
    """Give each image its verdict, by the first of these that holds:

    its own fault; leak, a train image that repeats a validation image; exact_duplicate or near_duplicate of an image
    of its split that is kept. Images with a fault of their own repeat nobody. Of those that repeat one another the
    one with the smallest id is kept, so that the order of `items` and `near_pairs` changes nothing.
    """
    near = _neighbours(items, near_pairs)
    verdicts = [Verdict(item.fault, None) for item in items]
    by_id = sorted((i for i, item in enumerate(items) if not item.fault), key=lambda i: items[i].image_id)
    validation: dict[str, int] = {}  # pixels -> the validation image that shows them
    for i in by_id:
        if not items[i].is_train:
            validation.setdefault(items[i].pixels_sha256, i)
    kept: set[int] = set()
    first: dict[tuple[str, bool], int] = {}  # pixels and split -> the image that is kept for them
    for i in by_id:
        item = items[i]
        if item.is_train:
            twins = [j for j in near[i] if not items[j].is_train]
            if item.pixels_sha256 in validation:
                twins.append(validation[item.pixels_sha256])
            if twins:
                verdicts[i] = Verdict("leak", min(twins, key=lambda j: items[j].image_id))
                continue
        same = [j for j in near[i] if j in kept and items[j].is_train == item.is_train]
        if (item.pixels_sha256, item.is_train) in first:
            verdicts[i] = Verdict("exact_duplicate", first[item.pixels_sha256, item.is_train])
        elif same:
            verdicts[i] = Verdict("near_duplicate", min(same, key=lambda j: items[j].image_id))
        else:
            kept.add(i)
            first[item.pixels_sha256, item.is_train] = i
    return verdicts


def _inner(images: Image) -> Image:
    return images[:, _MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]


def _difference(first: Image, second: Image) -> Floats:
    """Mean absolute difference, 0..1, of each of the images as they lie."""
    difference = np.abs(first.astype(np.float32) - second.astype(np.float32)).mean(axis=(1, 2, 3))
    return np.asarray(difference / np.float32(255), np.float32)


def _half_pixels(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Put the mean of each two neighbours between them along `axis`: S becomes 2 S - 1."""
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
