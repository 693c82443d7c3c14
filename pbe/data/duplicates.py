"""Pictures that repeat one another: candidates by embedding, confirmed by pixels, judged the same way every time.

An image tower trained on crops of objects maps different scenes with similar objects close together, so what is close
for it is only a candidate. Two candidates are near duplicates when their thumbnails agree once they are aligned.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Pair = tuple[int, int]

_MARGIN_PX = 1
_CHUNK = 256
_MAX_OF_CONTRAST = 0.35
_JPEG_NOISE = 0.005  # what compression alone changes, also in a picture of one tone


class Item(NamedTuple):
    """One image to judge; `fault` is what is wrong with it by itself, or ""."""

    image_id: str
    is_train: bool
    fault: str
    pixels_md5: str


class Verdict(NamedTuple):
    """`reason` is "" where the image is kept; `duplicate_of` is the index of the image it repeats, or None."""

    reason: str
    duplicate_of: int | None


def pairs_within(groups: Iterable[Sequence[int]]) -> list[Pair]:
    """List every pair (i, j), i < j, that shares a group, once and in order."""
    return sorted({pair for group in groups for pair in combinations(sorted(group), 2)})


def aligned_difference(first: Image, second: Image) -> NDArray[np.float32]:
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


def confirm(candidates: Sequence[Pair], thumbnails: Image, max_difference: float) -> list[Pair]:
    """Keep the candidate pairs whose (N, S, S, 3) uint8 thumbnails differ by at most `max_difference` when aligned.

    Two plain scenes with a small object each differ by little too, so a pair must also differ by far less than either
    picture varies in itself: among 4,420 demo images repeats reach 0.17 of their contrast, other pairs begin at 0.57.
    """
    confirmed: list[Pair] = []
    for start in range(0, len(candidates), _CHUNK):
        chunk = candidates[start : start + _CHUNK]
        left, right = np.array(chunk).T
        first, second = thumbnails[left], thumbnails[right]
        limit = np.minimum(max_difference, _MAX_OF_CONTRAST * np.minimum(contrast(first), contrast(second)))
        passes = aligned_difference(first, second) <= np.maximum(limit, _JPEG_NOISE)
        confirmed += [pair for pair, passed in zip(chunk, passes, strict=True) if passed]
    return confirmed


def contrast(images: Image) -> NDArray[np.float32]:
    """The mean absolute deviation, 0..1, of each of (N, S, S, 3) uint8 images from its own mean colour."""
    values = images.astype(np.float32) / np.float32(255)
    return np.asarray(np.abs(values - values.mean(axis=(1, 2), keepdims=True)).mean(axis=(1, 2, 3)), np.float32)


def judge(items: Sequence[Item], near_pairs: Iterable[Pair]) -> list[Verdict]:
    """Give each image its verdict, by the first of these that holds:

    its own fault; leak, a train image that repeats a validation image; exact_duplicate or near_duplicate of an image
    of its split that is kept. Images with a fault of their own repeat nobody. Of those that repeat one another the
    one with the smallest id is kept, so that the order of `items` and `near_pairs` changes nothing.
    """
    exact, near = _exact_neighbours(items), _neighbours(items, near_pairs)
    verdicts = [Verdict(item.fault, None) for item in items]
    by_id = sorted((i for i, item in enumerate(items) if not item.fault), key=lambda i: items[i].image_id)
    for i in by_id:
        if items[i].is_train:
            validation = [j for j in (*exact[i], *near[i]) if not items[j].is_train]
            if validation:
                verdicts[i] = Verdict("leak", min(validation, key=lambda j: items[j].image_id))
    kept: set[int] = set()
    for i in by_id:
        if verdicts[i].reason:
            continue
        for reason, neighbours in (("exact_duplicate", exact[i]), ("near_duplicate", near[i])):
            same = [j for j in neighbours if j in kept and items[j].is_train == items[i].is_train]
            if same:
                verdicts[i] = Verdict(reason, min(same, key=lambda j: items[j].image_id))
                break
        else:
            kept.add(i)
    return verdicts


def _half_pixels(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Put the mean of each two neighbours between them along `axis`: S becomes 2 S - 1."""
    values = np.moveaxis(values, axis, 0)
    out = np.empty((2 * len(values) - 1, *values.shape[1:]), np.float32)
    out[::2] = values
    out[1::2] = (values[1:] + values[:-1]) / 2
    return np.moveaxis(out, 0, axis)


def _exact_neighbours(items: Sequence[Item]) -> dict[int, list[int]]:
    by_md5: dict[str, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        if not item.fault:
            by_md5[item.pixels_md5].append(i)
    pairs = (pair for group in by_md5.values() for pair in combinations(group, 2))
    return _neighbours(items, pairs)


def _neighbours(items: Sequence[Item], pairs: Iterable[Pair]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for i, j in pairs:
        if not (items[i].fault or items[j].fault):
            found[i].append(j)
            found[j].append(i)
    return found
