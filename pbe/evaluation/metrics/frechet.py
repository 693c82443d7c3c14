"""FID: the Fréchet distance between features of results and of reference images (section 4.1)."""

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32] | NDArray[np.float64]
Floats = NDArray[np.float64]


def frechet_distance(first: Features, second: Features) -> float:
    """Return the Fréchet distance between Gaussians fitted to two sets of features, (N, D) and (M, D).

        |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1^1/2 S_2 S_1^1/2)^1/2)

    The last trace is a sum of square roots of the eigenvalues of a symmetric matrix, so that there is no imaginary part
    to discard, unlike with `sqrtm(S_1 S_2)`. Raises ValueError when a set has fewer than two members.
    """
    (mean_1, covariance_1), (mean_2, covariance_2) = _moments(first), _moments(second)
    root = _symmetric_root(covariance_1)
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ covariance_2 @ root), 0.0, None)).sum()
    distance = np.square(mean_1 - mean_2).sum() + np.trace(covariance_1) + np.trace(covariance_2) - 2 * cross
    return max(0.0, float(distance))


def _moments(features: Features) -> tuple[Floats, Floats]:
    if len(features) < 2:
        raise ValueError(f"a Fréchet distance needs at least two images, got {len(features)}")
    x = features.astype(np.float64)
    return x.mean(0), np.atleast_2d(np.cov(x, rowvar=False))


def _symmetric_root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T)
