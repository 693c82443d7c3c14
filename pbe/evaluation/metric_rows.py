"""The rows of metrics.json, from the scores of single cases."""

from collections.abc import Mapping, Sequence
from typing import Any

from pbe.evaluation.attributes import AttributeValues, accuracies
from pbe.evaluation.bench import Bench
from pbe.evaluation.case_scores import DIGITS, Scores
from pbe.evaluation.encoders.protocol import Features
from pbe.evaluation.metric_table import METRICS, MetricSpec, metric_spec
from pbe.evaluation.metrics.frechet import frechet_distance
from pbe.evaluation.metrics.quality import QualityModel

__all__ = ["METRICS", "MetricSpec", "classifier_row", "method_row", "metric_spec", "sweep_rows"]

Truth = Sequence[AttributeValues] | None  # of the exemplars
Readings = Sequence[AttributeValues] | None


def method_row(
    scores: Scores, reference_features: Features, quality: QualityModel, attributes: Sequence[str], truth: Truth
) -> dict[str, float | int | None]:
    """Return a method's metrics over all cases. FID is None when there is only one."""
    return {
        "fid": round(frechet_distance(scores.features, reference_features), DIGITS) if len(scores) > 1 else None,
        "qs": round(quality.score(scores.features), DIGITS),
        **_fidelity(scores, attributes, truth),
        "unmasked_max_abs_diff": int(scores.unmasked_max_abs_diff.max()),
    }


def _fidelity(scores: Scores, attributes: Sequence[str], truth: Truth) -> dict[str, float | None]:
    """Return the CLIP score and the accuracies: the part of a row for which few cases are enough."""
    found = _accuracies(attributes, scores.readings, truth)
    return {"clip_score": round(float(scores.clip_scores.mean()), DIGITS), **found}


def _accuracies(attributes: Sequence[str], readings: Readings, truth: Truth) -> dict[str, float | None]:
    if readings is None or truth is None:
        return {}
    exact = accuracies(attributes, readings, truth)
    return {key: None if value is None else round(value, DIGITS) for key, value in exact.items()}


def sweep_rows(scores: Mapping[str, Scores], attributes: Sequence[str], truth: Truth, num_cases: int) -> dict[str, Any]:
    """Return a row for each guidance scale, all on the same first cases, which are too few for FID and QS."""
    head = None if truth is None else truth[:num_cases]
    rows = {scale: _fidelity(scores[scale].head(num_cases), attributes, head) for scale in scores}
    return {"num_cases": num_cases, "scales": rows}


def classifier_row(
    bench: Bench, attributes: Sequence[str], source_readings: Readings, exemplar_readings: Readings
) -> dict[str, float | None]:
    """Return the classifier's accuracies on true crops: the boxes before the edit, and the exemplars."""
    if source_readings is None or exemplar_readings is None or bench.exemplar_truth is None:
        return {}
    if bench.source_truth is None:
        return _accuracies(attributes, exemplar_readings, bench.exemplar_truth)
    readings, truth = [*source_readings, *exemplar_readings], [*bench.source_truth, *bench.exemplar_truth]
    return _accuracies(attributes, readings, truth)
