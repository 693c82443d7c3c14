"""The grain: networks paint ground smoother than a photograph shows it, so the photograph's grain is added to it.

    y' = y + w(|x - y|) sum over l of up_l(g_l n_l)
    g_l = sqrt(max(0, s_l(x)^2 - s_l(y)^2)) / s_l(n),   w(d) = exp(-(d / 64)^2)

n is noise with the spectrum and the colours of the source's fine details around the mask ("Random Phase Textures",
Galerne, Gousseau and Morel, 2011), and n_l level l of its Laplacian pyramid (Burt and Adelson, 1983). s_l is the
deviation of that level, of the source x around the mask, and of the painted ground y: the pixels that differ little
from x spread over the mask, in grey levels. So what the autoencoder, the denoiser and the enlargement of a painted
square leave out comes back as grain; where the painting has as much of it as the photograph, nothing is added. Only
levels finer than two pixels of the painter are used: coarser ones brought the pictures no nearer to the photographs.
The official code adds none.
"""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.method.seams import spread
from pbe.types import Image, Mask

TOLERANCE = 64.0  # grey levels
LEAST_SIDE = 8  # of a level, in pixels: smaller ones have too few to measure grain on
DEVIATION = 1.4826  # of a normal distribution, over the median of its magnitudes
MAX_VALUES = 500_000  # of a level, of which the median is taken
TINY = float(np.finfo(np.float32).tiny)

Floats = NDArray[np.float32]
Spectrum = NDArray[np.complexfloating[Any, Any]]


def match_grain(painted: Image, source: Image, mask: Mask, enlargement: float) -> Image:
    """Return `painted` (H, W, 3) with the grain that the source (H, W, 3) has outside of the mask (H, W).

    `enlargement` is the side of a pixel of the painter in pixels of the source. The source is not read where the mask
    is 1, and the result (H, W, 3) has no meaning where it is 0. The same arguments give the same grain.
    """
    if min(mask.shape) < LEAST_SIDE:
        return painted
    known = (mask == 0).astype(np.float32)
    filled = np.where(mask[..., None] == 0, source, _surroundings(source, known))
    likeness = _weight(painted.astype(np.float32) - filled) * (1 - known)
    levels = 1 + max(0, round(math.log2(enlargement)))
    phases = np.fft.rfft2(np.random.default_rng(0).standard_normal(known.shape, np.float32))
    result = np.empty_like(painted)
    for channel in range(3):  # one by one, which takes a third of the memory
        own = painted[..., channel].astype(np.float32)
        wanted = _pyramid(filled[..., channel].astype(np.float32), levels)
        grain = _lacking(wanted, _pyramid(own, levels), known, likeness, phases)
        result[..., channel] = (own + likeness * grain).round().clip(0, 255)
    return result


def _surroundings(source: Image, known: Floats) -> Image:
    """Return the source (H, W, 3) spread over what is not known (H, W) of it."""
    channels = [spread(source[..., [c]].astype(np.float32), known) for c in range(3)]
    return np.concatenate([each.round().astype(np.uint8) for each in channels], -1)


def _lacking(source: list[Floats], painted: list[Floats], known: Floats, likeness: Floats, phases: Spectrum) -> Floats:
    """Return the grain (H, W) that painted ground lacks, from the pyramids of a channel of both pictures."""
    details = _collapsed(source)
    spectrum = np.fft.rfft2(known * _weight(details[..., None]) * details)
    noise = _pyramid(np.fft.irfft2(spectrum * phases, known.shape).astype(np.float32), len(source))
    levels = []
    for source_level, painted_level, level in zip(source, painted, noise, strict=True):
        lacking = _deviation(source_level, known > 1 - 1e-6) ** 2 - _deviation(painted_level, likeness > 0.5) ** 2
        levels.append(level * np.float32(math.sqrt(max(0.0, lacking)) / max(float(level.std()), TINY)))
        known, likeness = _halved(known), _halved(likeness)
    return _collapsed(levels)


def _weight(difference: Floats) -> Floats:
    """Return w of differences (H, W, C) in grey levels, the largest of the channels: (H, W), 0 to 1."""
    return np.asarray(np.exp(-np.square(np.abs(difference).max(-1) / np.float32(TOLERANCE))), np.float32)


def _deviation(level: Floats, where: NDArray[np.bool_]) -> float:
    """Estimate the deviation of a level (H, W) from the median of its magnitudes, which edges hardly change."""
    values = level[where]
    values = values[:: max(1, len(values) // MAX_VALUES)]
    return DEVIATION * float(np.median(np.abs(values))) if len(values) else 0.0


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
