"""FID: the Fréchet distance between Gaussians fitted to features of results and of reference images (section 4.1).

    |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^1/2)

Its estimate is too high, and the more so the fewer images either set has (Binkowski et al. 2018, appendix D.4; Chong
and Forsyth 2020). `perfect_distances` says by how much, for any reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Features = NDArray[np.float32] | NDArray[np.float64]
Floats = NDArray[np.float64]

_SINGULAR_OFFSET = 1e-6  # of the official tool, added to both diagonals


@dataclass(frozen=True)
class Moments:
    """The mean (D,) and the unbiased covariance (D, D) of the features of `num_images` images."""

    num_images: int
    mean: Floats
    covariance: Floats


class RunningMoments:
    """Moments of features that come batch by batch; it holds D x D numbers, however many images there are.

    The sums of squares are about the running mean, so that nothing cancels (Chan, Golub and LeVeque 1979).
    """

    def __init__(self) -> None:
        self._num_images = 0
        self._mean: Floats = np.zeros(0)
        self._scatter: Floats = np.zeros((0, 0))

    def add(self, features: Features) -> None:
        """Add the features (B, D) of a batch; B may be 0."""
        if len(features) == 0:
            return
        x = features.astype(np.float64)
        mean = x.mean(0)
        centred = x - mean
        if self._num_images == 0:
            self._mean, self._scatter = np.zeros_like(mean), np.zeros((len(mean), len(mean)))
        total = self._num_images + len(x)
        shift = mean - self._mean
        self._scatter += centred.T @ centred + np.outer(shift, shift) * (self._num_images * len(x) / total)
        self._mean = self._mean + shift * (len(x) / total)
        self._num_images = total

    def moments(self) -> Moments:
        """Return the moments so far; raises ValueError for fewer than two images."""
        if self._num_images < 2:
            raise ValueError(f"a Fréchet distance needs at least two images, got {self._num_images}")
        return Moments(self._num_images, self._mean.copy(), self._scatter / (self._num_images - 1))


def fit_moments(features: Features) -> Moments:
    """Return the moments of features (N, D); raises ValueError for fewer than two images."""
    if len(features) < 2:
        raise ValueError(f"a Fréchet distance needs at least two images, got {len(features)}")
    x = features.astype(np.float64)
    return Moments(len(x), x.mean(0), np.atleast_2d(np.cov(x, rowvar=False)))


def frechet_distance(first: Features | Moments, second: Features | Moments) -> float:
    """Return the Fréchet distance between two sets of features, (N, D) and (M, D), or their moments.

    The trace of the root is a sum of square roots of the eigenvalues of S_1^1/2 S_2 S_1^1/2, which is symmetric, so
    that there is no imaginary part to discard, unlike with `sqrtm(S_1 S_2)`. Raises ValueError when a set has fewer
    than two members.
    """
    a, b = _moments_of(first), _moments_of(second)
    root = _symmetric_root(a.covariance)
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b.covariance @ root), 0.0, None)).sum()
    return max(0.0, _distance(a, b, float(cross)))


def official_frechet_distance(first: Features | Moments, second: Features | Moments) -> float:
    """Return the distance as the official tool (pytorch-fid's) computes it, by `sqrtm` of the product.

    It differs from `frechet_distance` where a set has fewer images than dimensions, and may then be negative. Raises
    ValueError when a set has fewer than two members.
    """
    a, b = _moments_of(first), _moments_of(second)
    root = linalg.sqrtm(a.covariance @ b.covariance)
    if not np.isfinite(root).all():
        offset = np.eye(len(a.mean)) * _SINGULAR_OFFSET
        root = linalg.sqrtm((a.covariance + offset) @ (b.covariance + offset))
    return _distance(a, b, float(np.trace(root).real))


def perfect_distances(
    reference: Moments, num_results: int, num_real: int, draws: int, rng: np.random.Generator
) -> Floats:
    """Return the FID of a perfect model, `draws` times: between two samples of one Gaussian, the reference's.

    Their expectation is the bias of a FID with `num_results` results and `num_real` real images. The moments of
    samples are drawn themselves (Bartlett's decomposition of a Wishart matrix), not the samples: (draws,).
    """
    root = _symmetric_root(reference.covariance)
    sizes = (num_results, num_real)
    pairs = ([_sample_moments(reference.mean, root, size, rng) for size in sizes] for _ in range(draws))
    return np.array([frechet_distance(*pair) for pair in pairs])


def _sample_moments(mean: Floats, root: Floats, num_images: int, rng: np.random.Generator) -> Moments:
    """Draw the moments of `num_images` samples of a Gaussian whose covariance is `root @ root`."""
    dimensions, freedom = len(mean), num_images - 1
    if freedom < dimensions:
        return fit_moments(mean + rng.standard_normal((num_images, dimensions)) @ root)
    lower = np.tril(rng.standard_normal((dimensions, dimensions)), -1)
    np.fill_diagonal(lower, np.sqrt(rng.chisquare(freedom - np.arange(dimensions))))
    scaled = root @ lower / np.sqrt(freedom)
    return Moments(num_images, mean + root @ rng.standard_normal(dimensions) / np.sqrt(num_images), scaled @ scaled.T)


def extrapolated_distance(features: Features, reference: Features | Moments, sizes: Sequence[int]) -> float:
    """Return FID_inf, the distance for infinitely many results: FIDs over 1 / N, extrapolated (Chong and Forsyth 2020).

    Each of `sizes` is a number of the first results. The reference stays as it is. Raises ValueError for fewer than
    two different sizes.
    """
    if len(set(sizes)) < 2:
        raise ValueError(f"FID_inf needs at least two sizes, got {list(sizes)}")
    real = _moments_of(reference)
    distances = [frechet_distance(features[:size], real) for size in sizes]
    return float(np.polyfit(1 / np.array(sizes, np.float64), distances, 1)[1])


def _moments_of(given: Features | Moments) -> Moments:
    return given if isinstance(given, Moments) else fit_moments(given)


def _distance(a: Moments, b: Moments, trace_of_root: float) -> float:
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return float(np.square(a.mean - b.mean).sum() + traces - 2 * trace_of_root)


def _symmetric_root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T)
