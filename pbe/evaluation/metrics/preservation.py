"""How well the background is preserved: what an edit changed outside the mask.

PSNR and SSIM compare the result with the source where mask == 0: everywhere, or in the ring that lies around the mask,
where colours drift and objects leak. For SSIM, whose windows would read across the mask's edge, masked pixels are those
of the source in both pictures, so that only changes of the background count.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.types import Image, Mask

PSNR_CAP_DB = 100.0  # of identical pixels, whose PSNR is infinite
RING_FRAC = 1 / 4  # the ring's width as a share of the root of the mask's area
_WINDOW_PX, _SIGMA_PX = 11, 1.5  # Wang et al. (2004), section III.B
_STABILIZERS = (0.01 * 255) ** 2, (0.03 * 255) ** 2

Floats = NDArray[np.float64]
Region = NDArray[np.bool_]  # (H, W)


def unmasked_max_abs_diff(result: Image, source: Image, mask: Mask) -> int:
    """Return the largest change of any channel where mask == 0, in grey levels 0..255; 0 when every pixel is masked.

    Raises ValueError when the sizes of result and source differ.
    """
    if result.shape != source.shape:
        raise ValueError(f"the result has shape {result.shape}, its source {source.shape}")
    difference = np.abs(result.astype(np.int16) - source.astype(np.int16))[mask == 0]
    return int(difference.max()) if difference.size else 0


def background_of(mask: Mask) -> Region:
    """Return where mask (H, W) is 0."""
    return np.asarray(mask == 0)


def ring_around(mask: Mask, frac: float = RING_FRAC) -> Region:
    """Return the ring (H, W) around a mask: unmasked pixels at most `frac` * sqrt(area of the mask) away from it.

    It is at least two pixels wide. Distances are Euclidean. It is empty when every pixel is masked, or none.
    """
    width = max(2.0, frac * float(np.sqrt(mask.sum(dtype=np.int64))))
    if not mask.any():
        return np.zeros(mask.shape, np.bool_)
    distance = cv2.distanceTransform((mask == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray((distance > 0) & (distance <= width))


def keep_background(result: Image, source: Image, mask: Mask) -> Image:
    """Return the result (H, W, 3) with the source's pixels where mask == 1."""
    return np.where(mask[..., None] == 1, source, result)


def psnr(result: Image, source: Image, where: Region) -> float:
    """Return the peak signal-to-noise ratio in dB over the pixels `where` (H, W), all channels together.

        10 log10(255^2 / mean((result - source)^2)),   at most 100, which is the value of identical pixels

    NaN when `where` is empty.
    """
    difference = result[where].astype(np.float64) - source[where]
    if not difference.size:
        return float("nan")
    error = float(np.square(difference).mean())
    return PSNR_CAP_DB if error == 0 else min(PSNR_CAP_DB, 10 * float(np.log10(255**2 / error)))


def ssim(result: Image, source: Image, where: Region) -> float:
    """Return the mean structural similarity, at most 1, over the pixels `where` (H, W); NaN when `where` is empty.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity" (2004), eq. 13.
    """
    if not where.any():
        return float("nan")
    if np.array_equal(result, source):
        return 1.0
    return float(ssim_map(result, source)[where].mean())


def ssim_map(first: Image, second: Image) -> Floats:
    """Return the structural similarity (H, W) of the windows around each pixel, the mean of the three channels.

    Windows are Gaussian, 11 px wide with a standard deviation of 1.5 px, and reflected at the picture's edge. The paper
    compares luminance.
    """
    x, y = first.astype(np.float64), second.astype(np.float64)
    mean_x, mean_y = _smooth(x), _smooth(y)
    variance_x, variance_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    c1, c2 = _STABILIZERS
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return np.asarray(similarity.mean(-1))


def _smooth(values: Floats) -> Floats:
    window = (_WINDOW_PX, _WINDOW_PX)
    return np.asarray(cv2.GaussianBlur(values, window, _SIGMA_PX, borderType=cv2.BORDER_REFLECT))
