"""KID: the squared maximum mean discrepancy between features, with a cubic kernel (Binkowski et al. 2018).

    k(x, y) = (x . y / D + 1)^3
    KID = mean of k over pairs of results + mean of k over pairs of real images - 2 mean of k(result, real)

A pair has two different members, so the estimate is unbiased: sets of one distribution have a KID of 0 on average,
however few images there are, unlike their FID.
"""

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32] | NDArray[np.float64]
Floats = NDArray[np.float64]

_BLOCK = 1024  # rows of a kernel matrix at a time


def kernel_distance(results: Features, real: Features) -> float:
    """Return KID of all results (N, D) to all real images (M, D); it may be slightly negative.

    It is the full U-statistic; the mean over random subsets, as other tools report it, estimates the same and adds
    noise. Raises ValueError when a set has fewer than two members.
    """
    if min(len(results), len(real)) < 2:
        raise ValueError(f"KID needs at least two images of each kind, got {len(results)} and {len(real)}")
    n, m = len(results), len(real)
    x, y = results.astype(np.float64), real.astype(np.float64)
    within_x = (_kernel_sum(x, x) - _kernel_of_itself(x).sum()) / (n * (n - 1))
    within_y = (_kernel_sum(y, y) - _kernel_of_itself(y).sum()) / (m * (m - 1))
    return float(within_x + within_y - 2 * _kernel_sum(x, y) / (n * m))


def polynomial_kernel(x: Floats, y: Floats) -> Floats:
    """Return the kernel matrix, (N, D) and (M, D) => (N, M)."""
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def _kernel_sum(x: Floats, y: Floats) -> float:
    """Return the sum over all pairs, block by block: the matrix of 40,670 images would take 13 GB."""
    return float(sum(polynomial_kernel(x[i : i + _BLOCK], y).sum() for i in range(0, len(x), _BLOCK)))


def _kernel_of_itself(x: Floats) -> Floats:
    return np.asarray((np.square(x).sum(1) / x.shape[1] + 1) ** 3)
