"""comparison.json: every metric of every method with its interval, and the differences of one method to all others.

    {"subject": "paint_by_example", "confidence": 0.95, "draws": 2000,
     "methods": {METHOD: {METRIC: {"value": 0.011, "low": 0.009, "high": 0.013, "num_cases": 256}}},
     "differences": {OTHER: {METRIC: {"value": 0.001, "low": -0.002, "high": 0.004, "num_cases": 256,
                                      "verdict": "tie"}}},
     "floor": {"fid": {"value": 0.004, "low": 0.003, "high": 0.006, "num_images": 256, "sample": "real images"}},
     "saturated": ["qs"]}

A difference is the subject's value minus the other's, over the cases that both have. FID has `bias`, by how much the
value is too high for this number of results, and its difference is one of FIDs without their bias. The floor is the FID
of real images to the others at the same size: no method can be expected to have a lower one. A saturated metric is at
its limit for nearly every case of every method; it separates nothing and has no differences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pbe.evaluation.attributes import CORRECT
from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.encoders.protocol import Features
from pbe.evaluation.metrics.frechet import fit_moments, frechet_distance, perfect_distances
from pbe.evaluation.reference.statistics import ReferenceStatistics
from pbe.evaluation.scoring.case_scores import Floats, MethodScores
from pbe.evaluation.scoring.intervals import (
    FrechetSample,
    Interval,
    Resampled,
    bootstrap_counts,
    difference_interval,
    draws_interval,
    mean_interval,
    sample_frechet,
    sample_kernel,
    share_interval,
    verdict,
)
from pbe.evaluation.scoring.metric_table import ACCURACY, METRICS, OFFICIAL, metric_spec
from pbe.evaluation.scoring.protocols import EvaluationProtocol

KID_UNIT = 1000  # KID is reported in thousandths
_LIMITS = {"qs": (0.0, 100.0)}  # of metrics that are clipped case by case
_SATURATED_SHARE = 0.95
_FLOOR_DRAWS = 20
_MAXIMUM = "unmasked_max_abs_diff"  # the one metric that is a maximum over cases, and has no interval


@dataclass(frozen=True)
class MeasuredProtocol:
    """A protocol with the statistics of the real images as it encodes them; `space` is the key of its features."""

    protocol: EvaluationProtocol
    reference: ReferenceStatistics
    space: str


@dataclass(frozen=True)
class Measured:
    """A metric of one method; `sample` is None for a mean over cases, and `interval` is None for a maximum."""

    value: float
    interval: Interval | None
    num_cases: int
    sample: Resampled | None = None

    def summary(self) -> dict[str, float | int]:
        """Return the metric as comparison.json has it."""
        ends = {} if self.interval is None else {"low": self.interval.low, "high": self.interval.high}
        bias = {"bias": self.sample.bias} if isinstance(self.sample, FrechetSample) else {}
        return {"value": self.value, **ends, **bias, "num_cases": self.num_cases}


class Comparison:
    """The metrics of methods on one bench, all resampled with the same counts of cases."""

    def __init__(
        self,
        bench: Bench,
        scores: Mapping[str, MethodScores],
        protocols: Sequence[MeasuredProtocol],
        *,
        confidence: float,
        draws: int,
        seed: int,
    ) -> None:
        self._scores, self._protocols, self._confidence = dict(scores), protocols, confidence
        self._rows = {case_id: row for row, case_id in enumerate(bench.ids)}
        self._counts = bootstrap_counts(len(bench), draws, seed)
        self._seed = seed
        self.methods = {name: self._measure(own) for name, own in self._scores.items()}
        self.saturated = [metric for metric in _LIMITS if self._is_saturated(metric)]

    def summary(self, subject: str) -> dict[str, Any]:
        """Return the content of comparison.json; `subject` is the method that is compared with all others."""
        return {
            "subject": subject,
            "confidence": self._confidence,
            "draws": len(self._counts),
            "methods": {
                name: {metric: found.summary() for metric, found in own.items()} for name, own in self.methods.items()
            },
            "differences": {
                other: found
                for other in self.methods
                if other != subject and (found := self.differences(subject, other))
            },
            "floor": self.floor(subject),
            "saturated": self.saturated,
        }

    def differences(self, subject: str, other: str) -> dict[str, dict[str, Any]]:
        """Return the subject's differences to another method by metric, without those that cannot be computed."""
        first, second = self.methods[subject], self.methods[other]
        found = {m: self._difference(subject, other, m) for m in first if m in second and m not in self.saturated}
        return {metric: difference for metric, difference in found.items() if difference is not None}

    def floor(self, subject: str) -> dict[str, dict[str, Any]]:
        """Return the FID of real images to others, with as many as the subject has results, for each protocol."""
        number = len(self._scores[subject])
        return {
            f"fid{each.protocol.suffix}": fid_floor(each.reference, number, self._confidence, self._seed)
            for each in self._protocols
            if number > 1
        }

    def _measure(self, own: MethodScores) -> dict[str, Measured]:
        counts = self._counts_of(own.ids)
        found: dict[str, Measured] = {}
        for each in self._protocols:
            if each.space in own.features and len(own) > 1:
                found |= _measure_set(each, own.features[each.space], counts, self._confidence)
        found |= {
            _metric_of(column): _measure_column(_metric_of(column), values, counts, self._confidence)
            for column, values in own.columns.items()
            if _is_metric(_metric_of(column)) and not np.isnan(values).all()
        }
        return {metric: found[metric] for metric in _ordered(found)}

    def _difference(self, subject: str, other: str, metric: str) -> dict[str, Any] | None:
        first, second = self.methods[subject][metric], self.methods[other][metric]
        if first.sample and second.sample and self._scores[subject].ids == self._scores[other].ids:
            interval, number = first.sample.difference(second.sample, self._confidence), first.num_cases
        elif first.sample or second.sample or metric == _MAXIMUM:
            return None
        else:
            found, number = self._difference_of_means(subject, other, metric)
            if found is None:
                return None
            interval = found
        return {
            **asdict(interval),
            "num_cases": number,
            "verdict": verdict(interval, metric_spec(metric).higher_is_better),
        }

    def _difference_of_means(self, subject: str, other: str, metric: str) -> tuple[Interval | None, int]:
        (rows, own), (other_rows, others) = (self._values(name, metric) for name in (subject, other))
        common, mine, theirs = np.intersect1d(rows, other_rows, return_indices=True)
        first, second = own[mine], others[theirs]
        number = int((~np.isnan(first - second)).sum())
        return difference_interval(first, second, self._counts[:, common], self._confidence), number

    def _values(self, method: str, metric: str) -> tuple[np.ndarray, Floats]:
        """Return the places (N,) of a method's cases in the bench, and a metric of these cases (N,), in its unit."""
        own = self._scores[method]
        factor, column = (100, metric.removesuffix(ACCURACY) + CORRECT) if metric.endswith(ACCURACY) else (1, metric)
        return np.array([self._rows[i] for i in own.ids]), factor * own.columns[column]

    def _counts_of(self, ids: Sequence[int]) -> Floats:
        return self._counts if len(ids) == len(self._rows) else self._counts[:, [self._rows[i] for i in ids]]

    def _is_saturated(self, metric: str) -> bool:
        columns = [own.columns[metric] for own in self._scores.values() if metric in own.columns]
        if not columns:
            return False
        return all(np.isin(values, _LIMITS[metric]).mean() >= _SATURATED_SHARE for values in columns)


def fid_floor(reference: ReferenceStatistics, num_results: int, confidence: float, seed: int) -> dict[str, Any]:
    """Return the mean FID of `num_results` real images to the other ones, and the quantiles over several choices.

    Where the reference has too few images to be divided, or its file has no features, both sets are drawn from a
    Gaussian with its moments, and have as many images as the results and the reference.
    """
    rng = np.random.default_rng(seed)
    real, total = reference.features, reference.num_images
    divided = len(real) >= 2 * num_results
    if divided:
        found = np.array([_divided_distance(real, num_results, rng) for _ in range(_FLOOR_DRAWS)])
    else:
        found = perfect_distances(reference.moments, num_results, max(2, total), _FLOOR_DRAWS, rng)
    sample = "real images" if divided else "a Gaussian with their moments"
    interval = draws_interval(float(found.mean()), found, confidence)
    return {**asdict(interval), "num_images": num_results, "sample": sample}


def _divided_distance(real: Features, num_results: int, rng: np.random.Generator) -> float:
    order = rng.permutation(len(real))
    return frechet_distance(fit_moments(real[order[:num_results]]), fit_moments(real[order[num_results:]]))


def _measure_set(each: MeasuredProtocol, features: Features, counts: Floats, confidence: float) -> dict[str, Measured]:
    """Return the metrics of all results together: FID and, where the reference has features, KID."""
    protocol, reference, suffix = each.protocol, each.reference, each.protocol.suffix
    values = protocol.set_metrics(features, reference)
    fid = sample_frechet(features, reference.moments, counts)
    own_fid = values[f"fid{suffix}"]
    assert own_fid is not None
    samples: dict[str, Resampled] = {f"fid{suffix}": FrechetSample(own_fid, fid.bias, fid.deviations)}
    if protocol.name == "corrected" and len(reference.features) > 1:
        kid = sample_kernel(features, reference.features, counts)
        samples[f"kid{suffix}"] = Resampled(KID_UNIT * kid.value, 0.0, KID_UNIT * kid.deviations)
    return {
        metric: Measured(sample.value, sample.interval(confidence), len(features), sample)
        for metric, sample in samples.items()
    }


def _measure_column(metric: str, values: Floats, counts: Floats, confidence: float) -> Measured:
    number = int((~np.isnan(values)).sum())
    if metric == _MAXIMUM:
        return Measured(float(np.nanmax(values)), None, number)
    is_share = metric.endswith(ACCURACY)
    interval = share_interval(values, confidence) if is_share else mean_interval(values, counts, confidence)
    assert interval is not None
    return Measured(interval.value, interval, number)


def _is_metric(metric: str) -> bool:
    return metric.endswith(ACCURACY) or metric.removesuffix(OFFICIAL) in METRICS


def _metric_of(column: str) -> str:
    return column.removesuffix(CORRECT) + ACCURACY if column.endswith(CORRECT) else column


def _ordered(metrics: Mapping[str, Measured]) -> list[str]:
    known = [m + suffix for m in METRICS for suffix in ("", OFFICIAL) if m + suffix in metrics]
    return [*known, *(m for m in metrics if m not in known)]
