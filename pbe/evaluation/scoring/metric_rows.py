"""The rows of metrics.json, from the metrics of whole methods and the scores of single cases."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pbe.evaluation.attributes import CORRECT, ON_EXEMPLAR, ON_SOURCE, accuracy
from pbe.evaluation.scoring.case_scores import MethodScores
from pbe.evaluation.scoring.comparison import Measured
from pbe.evaluation.scoring.metric_table import ACCURACY, METRICS, MetricSpec, metric_spec

__all__ = ["METRICS", "MetricSpec", "classifier_row", "method_row", "metric_spec", "sweep_rows"]

Row = dict[str, float | int | None]

DIGITS = 4  # of a metric; further digits differ between processors
HEADLINES = ("fid", "identity", "clip_score")  # the metrics whose intervals are in metrics.json
_FIRST = ("fid", "qs", "clip_score")
_LAST = "unmasked_max_abs_diff"
_SWEPT = ("clip_score", "identity", "copy_paste_score")  # few cases are enough for these, and for accuracies


def method_row(measured: Mapping[str, Measured], scores: MethodScores, *, intervals: bool) -> Row:
    """Return the metrics of a method over all its cases; one that cannot be computed is None.

    With `intervals`, `<metric>_low` and `<metric>_high` of HEADLINES follow at the end.
    """
    attributes = [f"{name}{ACCURACY}" for name in _attributes(scores)]
    shown = dict.fromkeys((*_FIRST, *attributes, _LAST, *measured))
    row: Row = {metric: _rounded(measured[metric].value) if metric in measured else None for metric in shown}
    row[_LAST] = int(measured[_LAST].value) if _LAST in measured else None
    for metric in HEADLINES if intervals else ():
        interval = measured[metric].interval if metric in measured else None
        if interval is not None:
            row |= {f"{metric}_low": _rounded(interval.low), f"{metric}_high": _rounded(interval.high)}
    return row


def sweep_rows(scores: Mapping[str, MethodScores], num_cases: int) -> dict[str, Any]:
    """Return a row for each guidance scale, all on the same first cases, which are too few for FID and QS."""
    return {
        "num_cases": num_cases,
        "scales": {scale: _swept_row(own.head(num_cases)) for scale, own in scores.items()},
    }


def _swept_row(scores: MethodScores) -> Row:
    means = {metric: _mean(scores.columns[metric]) for metric in _SWEPT if metric in scores.columns}
    accuracies = {f"{name}{ACCURACY}": scores.columns[name + CORRECT] for name in _attributes(scores)}
    row = {"clip_score": means.pop("clip_score", None)}
    return row | {key: _rounded(accuracy(correct)) for key, correct in accuracies.items()} | means


def classifier_row(scores: MethodScores) -> Row:
    """Return the classifier's accuracies on true crops: the boxes before the edit, and the exemplars.

    They are the same for every method, so `scores` may be any method's. Empty without a classifier.
    """
    columns = scores.columns
    return {
        f"{name}{ACCURACY}": _rounded(
            accuracy(np.concatenate([columns[name + ON_SOURCE], columns[name + ON_EXEMPLAR]]))
        )
        for name in _attributes(scores)
    }


def _attributes(scores: MethodScores) -> Iterable[str]:
    return [column.removesuffix(CORRECT) for column in scores.columns if column.endswith(CORRECT)]


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return _rounded(float(known.mean())) if len(known) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
