"""Differences between two methods on the same bench, with paired intervals (`pbe.evaluation.scoring.intervals`).

Both methods are resampled with the same counts, so that what makes a case hard for both cancels: 256 cases that leave a
FID uncertain by a fifth can still tell two models apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pbe.evaluation.metrics.frechet import Features, Moments
from pbe.evaluation.scoring.intervals import (
    FrechetSample,
    Interval,
    Verdict,
    bootstrap_counts,
    difference_interval,
    sample_frechet,
    verdict,
)
from pbe.evaluation.scoring.metric_table import ACCURACY, metric_spec

DIGITS = 4  # of a metric; further digits differ between processors, and decide nothing
FID = "fid"
CORRECT = "_correct"  # ends the name of a case's score whose mean is an attribute's accuracy

Scores = NDArray[np.float64]
Compared = tuple[tuple[float, float], Interval, int]  # both values, their difference, and the number of cases


class MissingScoreError(Exception):
    """A score that a comparison needs is missing, NaN or infinite; the message is a clause."""


@dataclass(frozen=True, eq=False)
class MethodScores:
    """What was measured of one method on N cases; `name` is what messages call it."""

    name: str
    case_ids: NDArray[np.int64]  # (N,), ascending
    columns: Mapping[str, Scores]  # (N,) each; NaN where a score does not apply to a case
    features: Features | None  # (N, D), of whole results

    def has(self, metric: str) -> bool:
        """Return whether the score was measured in any case."""
        return metric in self.columns and not np.isnan(self.columns[metric]).all()


@dataclass(frozen=True)
class Difference:
    """A metric of the challenger minus the same metric of a baseline, with its interval."""

    metric: str
    against: str  # the baseline: champion, source or copy_paste
    challenger: float
    baseline: float
    difference: float
    low: float
    high: float
    num_cases: int  # to which the metric applies
    verdict: Verdict

    def __str__(self) -> str:
        """Return the metric, the difference and its interval, such as `FID +0.012 [+0.004, +0.02]`."""
        return f"{metric_spec(self.metric).title} {self.difference:+.3g} [{self.low:+.3g}, {self.high:+.3g}]"


class Comparison:
    """Compares methods on the same N cases, with `draws` samples of the bootstrap that all metrics share.

    FID is that to `reference`, the moments of the real images' features.
    """

    def __init__(self, case_ids: NDArray[np.int64], reference: Moments | None, draws: int, seed: int) -> None:
        self._case_ids, self._reference = case_ids, reference
        self._counts = bootstrap_counts(len(case_ids), draws, seed)
        self._samples: dict[MethodScores, FrechetSample] = {}

    def difference(
        self, metric: str, against: str, first: MethodScores, second: MethodScores, confidence: float
    ) -> Difference:
        """Return a metric of the first method minus that of the second, named `against`, by paired cases.

        The values of FID are without the part of its bias that the number of results causes. Raises MissingScoreError
        when a method lacks the score of a case that the other has, and for an infinite one.
        """
        compare = self._frechet if metric == FID else self._mean
        values, interval, num_cases = compare(metric, first, second, confidence)
        numbers = (*values, interval.value, interval.low, interval.high)
        if not np.isfinite(numbers).all():
            raise MissingScoreError(f"{metric} of {first.name} against {second.name} is not a finite number")
        one, other, value, low, high = (round(number, DIGITS) + 0.0 for number in numbers)  # + 0.0: no negative zero
        outcome = verdict(Interval(value, low, high), metric_spec(metric).higher_is_better)
        return Difference(metric, against, one, other, value, low, high, num_cases, outcome)

    def _mean(self, metric: str, first: MethodScores, second: MethodScores, confidence: float) -> Compared:
        a, b = (self._column(metric, method) for method in (first, second))
        for one, other, method in ((a, b, first), (b, a, second)):
            if (missing := np.isnan(one) & ~np.isnan(other)).any():
                raise MissingScoreError(
                    f"{metric} of {method.name} is missing in {missing.sum()} of {len(missing)} cases, such as "
                    f"{self._case_ids[missing][0]}"
                )
        interval = difference_interval(a, b, self._counts, confidence)
        if interval is None:
            raise MissingScoreError(f"{metric} of {first.name} is missing in every case")
        return (float(np.nanmean(a)), float(np.nanmean(b))), interval, int((~np.isnan(a)).sum())

    def _column(self, metric: str, method: MethodScores) -> Scores:
        """Return a method's scores (N,) in the order of the cases; raises MissingScoreError."""
        is_share = metric.endswith(ACCURACY)
        column = metric.removesuffix(ACCURACY) + CORRECT if is_share else metric
        if column not in method.columns:
            raise MissingScoreError(
                f"{metric} of {method.name} was not measured; measure it, or leave it out of register.better and"
                " register.hold"
            )
        if not np.array_equal(method.case_ids, self._case_ids):
            raise MissingScoreError(f"{metric} of {method.name} is missing in some of {len(self._case_ids)} cases")
        if np.isinf(method.columns[column]).any():
            raise MissingScoreError(f"{metric} of {method.name} is infinite in some cases")
        return 100 * method.columns[column] if is_share else method.columns[column]

    def _frechet(self, metric: str, first: MethodScores, second: MethodScores, confidence: float) -> Compared:
        a, b = self._frechet_sample(first), self._frechet_sample(second)
        return (a.corrected, b.corrected), a.difference(b, confidence), len(self._case_ids)

    def _frechet_sample(self, method: MethodScores) -> FrechetSample:
        if method not in self._samples:
            self._samples[method] = sample_frechet(*self._checked_features(method), self._counts)
        return self._samples[method]

    def _checked_features(self, method: MethodScores) -> tuple[Features, Moments]:
        features, reference = method.features, self._reference
        if features is None or len(features) != len(self._case_ids) or reference is None:
            raise MissingScoreError(f"fid of {method.name} is missing: there are no features of all results")
        if len(features) < 2:
            raise MissingScoreError(f"fid of {method.name} is missing: it needs at least two cases")
        if not np.isfinite(features).all() or features.shape[1] != len(reference.mean):
            raise MissingScoreError(f"fid of {method.name} is missing: its features are not finite, or of another size")
        return features, reference
