"""Intervals of metrics and of differences between methods, by a paired bootstrap over cases.

The cases of a bench are a sample. A draw of the bootstrap takes as many cases from the bench, with replacement (Efron
and Tibshirani, "An Introduction to the Bootstrap", 1993): case i is in it `counts[draw, i]` times. All methods share
the counts, so what makes a case hard for every method cancels from their differences. The real images are held fixed:
an interval says nothing about other real images.

FID is not a mean, and a draw with duplicates has a higher FID than the bench itself. Its draws are therefore made of

    FID(c) = FID(1) + (c - 1) . g - bias        g_i = the derivative of FID by the weight of case i
    bias   = the mean over a few draws of  FID of the resampled cases - FID(1) - (c - 1) . g

The first line is the infinitesimal jackknife (Jaeckel 1972; Efron 1982, chapter 6), a matrix product for all draws; the
second is the bootstrap's estimate of bias, which the linear part makes precise (a control variate of mean 0). Together
they are the bootstrap's basic interval at a hundredth of its cost; `tests/evaluation/test_intervals.py` compares both.

KID is a mean over pairs. A draw weighs each pair of two cases by the product of their counts; a case and its own
duplicate are no pair, so that KID stays unbiased in every draw.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pbe.evaluation.metrics.frechet import Features, Moments, fit_moments
from pbe.evaluation.metrics.kid import kernel_distance, polynomial_kernel

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "tie"]

_BIAS_DRAWS = 24
_BLOCK = 1024  # rows of a kernel matrix at a time
_RELATIVE_RANK_TOLERANCE = 1e-10  # eigenvalues below, relative to the largest, are 0


@dataclass(frozen=True)
class Interval:
    """A value, and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def bootstrap_counts(num_cases: int, draws: int, seed: int) -> Floats:
    """Return how often each draw takes each case: (draws, num_cases), every row with the sum `num_cases`."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.multinomial(num_cases, np.full(num_cases, 1 / num_cases), size=draws), np.float64)


def mean_draws(values: Floats, counts: Floats) -> Floats:
    """Return the mean of `values` (N,) in each draw, without NaN: (draws,); NaN for a draw that takes none of them."""
    known = ~np.isnan(values)
    sums, numbers = counts[:, known] @ values[known], counts[:, known].sum(1)
    return np.asarray(np.divide(sums, numbers, out=np.full(len(counts), np.nan), where=numbers > 0))


def mean_interval(values: Floats, counts: Floats, confidence: float) -> Interval | None:
    """Return the mean of `values` (N,), NaN left out, with its interval; None when all are NaN."""
    if np.isnan(values).all():
        return None
    return draws_interval(float(np.nanmean(values)), mean_draws(values, counts), confidence)


def difference_interval(first: Floats, second: Floats, counts: Floats, confidence: float) -> Interval | None:
    """Return mean(first - second) over the cases that both methods have, with its interval; None without such cases."""
    return mean_interval(first - second, counts, confidence)


def draws_interval(value: float, draws: Floats, confidence: float) -> Interval:
    """Return the interval between the quantiles of the draws."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def share_interval(correct: Floats, confidence: float) -> Interval | None:
    """Return the percentage of 1 among 0 and 1 (N,), NaN left out, with Wilson's score interval (1927).

    A bootstrap has no width where every case is correct; this interval has. None when all are NaN.
    """
    known = correct[~np.isnan(correct)]
    if not len(known):
        return None
    n, share, z = len(known), float(known.mean()), NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(100 * share, 100 * max(0.0, centre - half), 100 * min(1.0, centre + half))


def verdict(difference: Interval, higher_is_better: bool) -> Verdict:
    """Return whether the first method is better or worse than the second; a tie when the interval has 0 in it."""
    if difference.low <= 0 <= difference.high:
        return "tie"
    return "better" if (difference.low > 0) == higher_is_better else "worse"


@dataclass(frozen=True)
class Resampled:
    """A metric of all results of one method together, and how it varies with the cases.

    `value` is the metric as everybody reports it, which is too high by about `bias`; `deviations` (draws,) are those of
    the draws of cases, around 0.
    """

    value: float
    bias: float
    deviations: Floats

    @property
    def corrected(self) -> float:
        """The value without its bias."""
        return self.value - self.bias

    def interval(self, confidence: float) -> Interval:
        """Return the value with the interval that values of other benches of the same size and kind lie in."""
        return draws_interval(self.value, self.value + self.deviations, confidence)

    def difference(self, other: "Resampled", confidence: float) -> Interval:
        """Return the difference of both corrected values; both come from the same counts."""
        value = self.corrected - other.corrected
        return draws_interval(value, value + self.deviations - other.deviations, confidence)


class FrechetSample(Resampled):
    """FID: its bias is that of the number of results. Without it, FID may be slightly negative."""


def sample_frechet(features: Features, reference: Moments, counts: Floats) -> FrechetSample:
    """Return FID of features (N, D) to a reference, resampled with `counts` (draws, N).

    Raises ValueError when there are fewer than two results.
    """
    distance = _WeightedDistance(features, reference)
    value, gradient = distance.value_and_gradient()
    deviations = (counts - 1) @ gradient
    exact = np.array([distance(weights) for weights in counts[:_BIAS_DRAWS]])
    bias = float((exact - value - deviations[:_BIAS_DRAWS]).mean())
    return FrechetSample(value, bias, deviations)


def frechet_draws(features: Features, reference: Moments, counts: Floats) -> Floats:
    """Return FID in each draw, without the bias of the number of results: (draws,).

    The quantiles of the difference between two methods' draws are the interval of their difference.
    """
    sample = sample_frechet(features, reference, counts)
    return sample.corrected + sample.deviations


def resampled_frechet(features: Features, reference: Moments, counts: Floats) -> Floats:
    """Return FID of the resampled cases themselves, draw by draw: (draws,), each too high by twice the bias."""
    distance = _WeightedDistance(features, reference)
    return np.array([distance(weights) for weights in counts])


def sample_kernel(results: Features, real: Features, counts: Floats) -> Resampled:
    """Return KID of results (N, D) to real images (M, D), resampled with `counts` (draws, N).

    Raises ValueError when there are fewer than two results or real images.
    """
    draws = _kernel_draws(results, real, np.concatenate([np.ones((1, len(results))), counts]))
    return Resampled(kernel_distance(results, real), 0.0, draws[1:] - draws[0])


def _kernel_draws(results: Features, real: Features, counts: Floats) -> Floats:
    """Return KID in each draw, without the constant that belongs to the real images alone: (draws,)."""
    x, y = results.astype(np.float64), real.astype(np.float64)
    across = np.concatenate([polynomial_kernel(part, y).mean(1) for part in _blocks(x)])
    totals, pairs = counts.sum(1), np.zeros(len(counts))
    for number, part in enumerate(_blocks(x)):
        rows = number * _BLOCK + np.arange(len(part))
        kernel = polynomial_kernel(part, x)
        kernel[np.arange(len(part)), rows] = 0.0
        pairs += (counts[:, rows] * (counts @ kernel.T)).sum(1)
    within = pairs / (totals**2 - np.square(counts).sum(1))
    return np.asarray(within - 2 * (counts @ across) / totals)


def _blocks(x: Floats) -> list[Floats]:
    return [x[start : start + _BLOCK] for start in range(0, len(x), _BLOCK)]


class _WeightedDistance:
    """FID of weighted cases; the reference's root is computed once."""

    def __init__(self, features: Features, reference: Moments) -> None:
        self._features = features.astype(np.float64)
        self._moments = fit_moments(features)
        self._mean, self._trace = reference.mean, float(np.trace(reference.covariance))
        values, vectors = np.linalg.eigh(reference.covariance)
        self._root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
        self._turned = (self._features - self._moments.mean) @ self._root  # (N, D): x_i R

    def __call__(self, weights: Floats) -> float:
        """Return FID of cases that are taken `weights` times, (N,)."""
        total = weights.sum()
        taken = weights > 0
        rows = self._turned[taken] * np.sqrt(weights[taken, None])
        shift = weights @ self._turned / total
        cross = (rows.T @ rows - total * np.outer(shift, shift)) / (total - 1)  # R S R
        mean = weights @ self._features / total
        squares = weights @ np.square(self._features - mean).sum(1) / (total - 1)
        return self._distance(mean, float(squares), np.linalg.eigvalsh(cross))

    def value_and_gradient(self) -> tuple[float, Floats]:
        """Return FID and its derivatives (N,) by the cases' weights, whose sum stays the same.

            g_i = 2 (x_i - m) . (m - mu) / N + (x_i - m)' (I - R (R S R)^-1/2 R) (x_i - m) / (N - 1)

        Directions without variance have none in a draw, either, and are left out of the inverse root.
        """
        number, centred = len(self._features), self._features - self._moments.mean
        values, vectors = np.linalg.eigh(self._turned.T @ self._turned / (number - 1))
        least = _RELATIVE_RANK_TOLERANCE * max(values.max(), 0.0)
        inverse_roots = np.where(values > least, 1 / np.sqrt(np.where(values > least, values, 1.0)), 0.0)
        squares = np.square(centred).sum(1)
        along = np.square(self._turned @ vectors) @ inverse_roots
        shift = self._moments.mean - self._mean
        gradient = 2 * centred @ shift / number + (squares - along) / (number - 1)
        gradient -= gradient.mean()
        return self._distance(self._moments.mean, float(squares.sum() / (number - 1)), values), gradient

    def _distance(self, mean: Floats, trace: float, eigenvalues: Floats) -> float:
        cross = np.sqrt(np.clip(eigenvalues, 0.0, None)).sum()
        return float(np.square(mean - self._mean).sum() + trace + self._trace - 2 * cross)
