"""Intervals of means over seeds and cases.

The scores of a model are a matrix, a row for each seed and a column for each case of the bench. The cases are the same
for all seeds and models. Seeds and cases are resampled independently of each other, and a score counts as often as its
row times as often as its column: the pigeonhole bootstrap (Owen, "The pigeonhole bootstrap", Annals of Applied
Statistics, 2007), whose intervals hold for new seeds and new cases, and are rather too wide than too narrow. All models
share the resampled rows and columns, so that their differences are paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pbe.evaluation.scoring.intervals import bootstrap_counts

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and its interval."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval of a difference lies on one side of zero; 0 where it does not."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Resampling:
    """How often each seed (draws, S) and each case (draws, N) counts in each draw of the bootstrap."""

    seeds: Values
    cases: Values
    confidence: float

    def mean(self, scores: Values) -> Estimate:
        """Return the mean of scores (S, N); NaN marks a score that does not apply. Some score must apply."""
        applies = ~np.isnan(scores)
        filled = np.where(applies, scores, 0.0)
        totals = np.einsum("ds,sn,dn->d", self.seeds, filled, self.cases, optimize=True)
        counts = np.einsum("ds,sn,dn->d", self.seeds, applies.astype(np.float64), self.cases, optimize=True)
        means = np.divide(totals, counts, out=np.full(len(totals), np.nan), where=counts > 0)
        return self.interval(float(np.nanmean(scores)), means)

    def mean_of_seeds(self, statistics: Sequence[tuple[float, Values]]) -> Estimate:
        """Return the mean over seeds of a statistic of all cases, such as FID.

        Each seed has its value and, for the cases of each draw, its values (draws,).
        """
        values, draws = zip(*statistics, strict=True)
        mixed = (self.seeds * np.stack(draws, axis=1)).sum(1) / self.seeds.sum(1)
        return self.interval(float(np.mean(values)), mixed)

    def interval(self, value: float, draws: Values) -> Estimate:
        """Return the percentile interval of the draws around a value."""
        tail = (1 - self.confidence) / 2
        low, high = np.nanquantile(draws, [tail, 1 - tail])
        return Estimate(value, float(low), float(high))


def resample(num_seeds: int, num_cases: int, draws: int, confidence: float, seed: int) -> Resampling:
    """Draw how often seeds and cases count; the same arguments give the same draws."""
    seeds = bootstrap_counts(num_seeds, draws, seed + 1)
    return Resampling(seeds, bootstrap_counts(num_cases, draws, seed), confidence)
