"""The grain: networks paint ground smoother than a photograph shows it, so the photograph's grain is added to it.

    y' = y + w(|f - y|) sum over l of up_l(g_l n_l)
    g_l = sqrt(max(0, s(x_l)^2 - s(y_l)^2)) / std(n_l),   w(d) = exp(-(d / 64)^2)

x_l, y_l and n_l are the levels of Laplacian pyramids (Burt and Adelson, 1983): of the source around the mask, of the
painting, and of noise n with the spectrum and the colours of the source's fine details ("Random Phase Textures",
Galerne, Gousseau and Morel, 2011). f is the source spread over the mask, and w says how likely a painted pixel is
ground. s is the deviation of x_l where the source is known and of y_l where w > 0.5, from the median of magnitudes;
a detail d counts in the spectrum with the weight exp(-(d / 4s)^2), so that edges do not. The levels end at wavelengths
of about four pixels of the painter: coarser ones brought the pictures no nearer to the photographs.

So what the autoencoder, the denoiser and the enlargement of a painted square leave out comes back as grain. Nothing is
added where the painting has as much of it as the photograph. One deviation holds for a whole window: where half of the
ground around the mask is flat, both halves get the grain of the larger one. The official code adds none.
"""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.method.seams import spread
from pbe.method.windows import mask_box
from pbe.types import Image, Mask

TOLERANCE = 64.0  # grey levels
EDGE = 4.0  # deviations: larger details are edges
LEAST_SIDE = 8  # of a level, in pixels: smaller ones have too few to measure grain on
MEASURED_PX = 1024  # side of the part of a large window that is measured, and of the noise, which repeats
DEVIATION = 1.4826  # of a normal distribution, over the median of its magnitudes
TINY = float(np.finfo(np.float32).tiny)

Floats = NDArray[np.float32]
Spectrum = NDArray[np.complexfloating[Any, Any]]
Place = tuple[slice, slice]


def match_grain(painted: Image, source: Image, mask: Mask, enlargement: float) -> Image:
    """Return `painted` (H, W, 3) with the grain that the source (H, W, 3) has outside of the mask (H, W).

    `enlargement` is the side of a pixel of the painter in pixels of the source. The source is not read where the mask
    is 1, and the result (H, W, 3) has no meaning where it is 0. The same arguments give the same grain.
    """
    if min(mask.shape) < LEAST_SIDE or not mask.any():
        return painted
    ground = _spread_ground(source, mask)
    part = _measured_part(mask)
    filled = np.where(mask[part][..., None] == 0, source[part], ground[part])
    likeness = _likeness(painted[part], ground[part], mask[part])
    grain = _lacking(filled, painted[part], mask[part], likeness, 1 + max(0, round(math.log2(enlargement))))
    result = painted.copy()
    for place in _tiles(mask.shape, grain.shape):
        tile = painted[place]
        weight = _likeness(tile, ground[place], mask[place])[..., None]
        added = weight * grain[: tile.shape[0], : tile.shape[1]]
        result[place] = (tile + added).round().clip(0, 255)
    return result


def _spread_ground(source: Image, mask: Mask) -> Image:
    """Return the source (H, W, 3) spread over the mask (H, W), from at most `MEASURED_PX` pixels on each side."""
    height, width = mask.shape
    shrunk = min(1.0, MEASURED_PX / max(height, width))
    size = max(1, round(width * shrunk)), max(1, round(height * shrunk))
    shown = np.where(mask[..., None] == 0, source, np.uint8(0))
    weights = cv2.resize((mask == 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    sums = cv2.resize(shown, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    ground = spread(sums / np.maximum(weights, TINY)[..., None], weights).round().clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(ground, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _measured_part(mask: Mask) -> Place:
    """Return the whole window, or of a large one the square on the mask's box with the most of both, mask and rest."""
    height, width = (min(side, MEASURED_PX) for side in mask.shape)
    x0, y0, x1, y1 = mask_box(mask)
    places = [
        (slice(top, top + height), slice(left, left + width))
        for top in {_start(y, height, mask.shape[0]): None for y in (y0, (y0 + y1) // 2, y1)}
        for left in {_start(x, width, mask.shape[1]): None for x in (x0, (x0 + x1) // 2, x1)}
    ]
    return max(places, key=lambda place: min(int(np.sum(mask[place] == 0)), int(np.sum(mask[place] == 1))))


def _start(centre: int, side: int, length: int) -> int:
    return min(max(0, centre - side // 2), length - side)


def _tiles(shape: tuple[int, ...], tile: tuple[int, ...]) -> list[Place]:
    return [
        (slice(top, top + tile[0]), slice(left, left + tile[1]))
        for top in range(0, shape[0], tile[0])
        for left in range(0, shape[1], tile[1])
    ]


def _likeness(painted: Image, ground: Image, mask: Mask) -> Floats:
    """Return w of the painted pixels (H, W), 0 to 1: how likely they are ground; 0 outside of the mask."""
    difference = np.abs(painted.astype(np.float32) - ground).max(-1)
    return np.asarray(np.exp(-np.square(difference / np.float32(TOLERANCE))) * (mask != 0), np.float32)


def _lacking(source: Image, painted: Image, mask: Mask, likeness: Floats, levels: int) -> Floats:
    """Return the grain (H, W, 3) that painted ground lacks, which repeats without a seam."""
    white = np.fft.rfft2(np.random.default_rng(0).standard_normal(mask.shape, np.float32))
    known = (mask == 0).astype(np.float32)
    channels = [  # one by one, which takes a third of the memory
        _channel(source[..., c].astype(np.float32), painted[..., c].astype(np.float32), known, likeness, white, levels)
        for c in range(3)
    ]
    return np.stack(channels, -1)


def _channel(source: Floats, painted: Floats, known: Floats, likeness: Floats, white: Spectrum, levels: int) -> Floats:
    source_levels, painted_levels = _pyramid(source, levels), _pyramid(painted, levels)
    details = _collapsed(source_levels)
    edge = EDGE * max(_deviation(details, known > 0), TINY)
    spectrum = np.fft.rfft2(known * np.exp(-np.square(details / np.float32(edge))) * details)
    noise = np.fft.irfft2(spectrum * white, known.shape).astype(np.float32)
    margin = 4 * 2 ** len(source_levels)
    grains = []
    for x, y, n in zip(
        source_levels, painted_levels, _pyramid(np.pad(noise, margin, "wrap"), len(source_levels)), strict=True
    ):
        lacking = _deviation(x, known > 1 - 1e-6) ** 2 - _deviation(y, likeness > 0.5) ** 2
        grains.append(n * np.float32(math.sqrt(max(0.0, lacking)) / max(float(n.std()), TINY)))
        known, likeness = _halved(known), _halved(likeness)
    return _collapsed(grains)[margin:-margin, margin:-margin]


def _deviation(level: Floats, where: NDArray[np.bool_]) -> float:
    """Estimate the deviation of a level (H, W) from the median of its magnitudes, which edges hardly change."""
    return DEVIATION * float(np.median(np.abs(level[where]))) if where.any() else 0.0


def _pyramid(image: Floats, levels: int) -> list[Floats]:
    """Return the levels of a Laplacian pyramid (H, W), at least one, the finest first, without what is left of it."""
    coarse = _halved(image)
    finest = image - _doubled(coarse, image)
    if levels == 1 or min(coarse.shape) < LEAST_SIDE:
        return [finest]
    return [finest, *_pyramid(coarse, levels - 1)]


def _collapsed(levels: list[Floats]) -> Floats:
    """Return the image (H, W) whose Laplacian pyramid has these levels, and nothing else."""
    image = levels[-1]
    for level in reversed(levels[:-1]):
        image = level + _doubled(image, level)
    return image


def _halved(image: Floats) -> Floats:
    return np.asarray(cv2.pyrDown(image), np.float32)


def _doubled(image: Floats, like: Floats) -> Floats:
    return np.asarray(cv2.pyrUp(image, dstsize=(like.shape[1], like.shape[0])), np.float32)
