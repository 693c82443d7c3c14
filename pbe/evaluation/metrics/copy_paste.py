"""The copy-paste score: how much of the repainted region is the exemplar itself, moved by an affine map.

    100 * max over affine maps W, flips included, of the correlation of  y  and  x_r(W)  on the masked pixels

The correlation is that of pixels: each channel without its mean, all channels together. 100 = the exemplar pasted,
under any shift, scale, rotation, flip, brightness and contrast; about 0 to 40 = unrelated pictures, because the map is
fitted. **Lower is better**: the exemplar's content is wanted, its pixels are not. A perfect edit of an exemplar that
already has the right pose and light scores high, too: compare methods on the same cases.

The fit maximizes the enhanced correlation coefficient (Evangelidis and Psarakis, "Parametric Image Alignment Using
Enhanced Correlation Coefficient Maximization", 2008) from coarse to fine, starting from the exemplar stretched to the
box, and from its mirror image. Regions are compared at 64 px or less, so that the time is bounded at any resolution.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.method.exemplars import resize
from pbe.method.windows import mask_box
from pbe.types import Image, Mask

COMPARED_PX = 64  # the longer side of the regions that are compared
_LEVELS_PX = (16, 32, 64)
_LEAST_SIDE_PX = 4  # of a level
_MAX_ITERATIONS, _TOLERANCE = 15, 1e-3
_SMOOTHING_PX = 5  # the width of ECC's Gaussian
_MAX_AREA_CHANGE = 4.0
_LEAST_CONTRAST = 1.0  # grey levels, as a standard deviation: below, a picture has no content to correlate

Size = tuple[int, int]  # width, height
Warp = NDArray[np.float32]  # (2, 3): pixel of the region -> pixel of the exemplar
Where = NDArray[np.bool_]


def copy_paste_score(result: Image, mask: Mask, exemplar: Image) -> float:
    """Return how much of the masked region of the result (H, W, 3) is a copy of the exemplar (h, w, 3), 0..100.

    Lower is less copied. A region or an exemplar of one colour scores 0. Raises ValueError for an empty mask.
    """
    x0, y0, x1, y1 = mask_box(mask)
    size = _compared_size(x1 - x0, y1 - y0)
    region = resize(result[y0:y1, x0:x1], size[1], size[0])
    masked = np.asarray(cv2.resize(mask[y0:y1, x0:x1], size, interpolation=cv2.INTER_AREA), np.uint8)
    stretched = resize(exemplar, size[1], size[0])
    best = 0.0
    for start in (stretched, np.ascontiguousarray(stretched[:, ::-1])):
        unmoved = correlation(region, start, masked == 1)
        best = max(best, unmoved, _warped_correlation(region, masked, start, _fit(region, masked, start)))
    return 100 * best


def correlation(first: Image, second: Image, where: Where) -> float:
    """Return the correlation, -1..1, of two pictures (H, W, 3) on the pixels `where`; 0 when one has no contrast.

    The mean of each channel is removed; then all channels are one vector.
    """
    a, b = _centred(first[where]), _centred(second[where])
    norms = np.sqrt(np.square(a).sum()), np.sqrt(np.square(b).sum())
    if min(norms) < _LEAST_CONTRAST * np.sqrt(max(a.size, 1)):
        return 0.0
    return float((a * b).sum() / (norms[0] * norms[1]))


def _compared_size(width: int, height: int) -> Size:
    scale = min(1.0, COMPARED_PX / max(width, height))
    return max(_LEAST_SIDE_PX, round(width * scale)), max(_LEAST_SIDE_PX, round(height * scale))


def _centred(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return pixels (N, 3) without the mean of each channel."""
    values = pixels.astype(np.float64)
    return values - values.mean(0) if len(values) else values


def _warped_correlation(region: Image, masked: Mask, exemplar: Image, warp: Warp | None) -> float:
    """Return the correlation with the warped exemplar; what the region shows beyond the exemplar counts as not copied.

    It is the root of the share of the region's variance that the warped exemplar explains.
    """
    if warp is None:
        return 0.0
    warped = _apply(exemplar, warp, cv2.INTER_LINEAR)
    seen = (masked == 1) & (_apply(np.ones_like(masked), warp, cv2.INTER_NEAREST) == 1)
    if not seen.any():
        return 0.0
    whole, part = (float(np.square(_centred(region[where])).sum()) for where in (masked == 1, seen))
    return correlation(region, warped, seen) * float(np.sqrt(min(1.0, part / whole))) if whole else 0.0


def _apply(pixels: NDArray[np.uint8], warp: Warp, interpolation: int) -> NDArray[np.uint8]:
    size = pixels.shape[1], pixels.shape[0]
    return np.asarray(cv2.warpAffine(pixels, warp, size, flags=interpolation | cv2.WARP_INVERSE_MAP), np.uint8)


def _fit(region: Image, masked: Mask, exemplar: Image) -> Warp | None:
    """Return the affine map of the region's pixels to the exemplar's, both of one size; None where no fit converges."""
    full = masked.shape[1], masked.shape[0]
    warp: Warp | None = None
    for level_px in _LEVELS_PX:
        scale = min(1.0, level_px / max(full))
        size = max(_LEAST_SIDE_PX, round(full[0] * scale)), max(_LEAST_SIDE_PX, round(full[1] * scale))
        start = np.eye(2, 3, dtype=np.float32) if warp is None else _rescaled(warp, full, size)
        fitted = _maximize_ecc(_grey(region, size), _grey(exemplar, size), _shrunk(masked, size), start)
        if fitted is not None and _is_plausible(fitted):
            warp = _rescaled(fitted, size, full)
        if scale == 1.0:
            break
    return warp


def _maximize_ecc(template: NDArray[np.uint8], moving: NDArray[np.uint8], where: Mask, start: Warp) -> Warp | None:
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _MAX_ITERATIONS, _TOLERANCE)
    try:
        _, warp = cv2.findTransformECC(template, moving, start, cv2.MOTION_AFFINE, criteria, where, _SMOOTHING_PX)
    except cv2.error as error:
        if error.code != cv2.Error.STS_NO_CONV:
            raise
        return None  # the pictures are not correlated
    return np.asarray(warp, np.float32)


def _is_plausible(warp: Warp) -> bool:
    """Whether the map neither mirrors nor collapses the exemplar: its area changes by less than a factor of 4."""
    area = float(warp[0, 0] * warp[1, 1] - warp[0, 1] * warp[1, 0])
    return 1 / _MAX_AREA_CHANGE < area < _MAX_AREA_CHANGE  # false for NaN


def _rescaled(warp: Warp, old: Size, new: Size) -> Warp:
    """Return the same map between pictures of size `new` (width, height) instead of `old`; pixels have centres."""
    scale = np.array(new, np.float64) / old
    matrix = warp[:, :2] * scale[:, None] / scale
    centre_old = (warp[:, :2] @ (0.5 / scale - 0.5) + warp[:, 2] + 0.5) * scale - 0.5  # where the new origin goes
    return np.concatenate([matrix, centre_old[:, None]], 1).astype(np.float32)


def _grey(image: Image, size: Size) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(resize(image, size[1], size[0]), cv2.COLOR_RGB2GRAY), np.uint8)


def _shrunk(masked: Mask, size: Size) -> Mask:
    small = np.asarray(cv2.resize(masked, size, interpolation=cv2.INTER_AREA), np.uint8)
    return small if small.any() else np.ones_like(small)
