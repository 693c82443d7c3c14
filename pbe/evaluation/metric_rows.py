"""The rows of metrics.json, from what was measured case by case."""

from collections.abc import Mapping, Sequence
from typing import Any

from pbe.demo.scenes import Attributes
from pbe.evaluation.attributes import ACCURACY_KEYS, Readings, accuracies, join_readings
from pbe.evaluation.bench import Bench
from pbe.evaluation.encoders import Features
from pbe.evaluation.metrics import QualityModel, frechet_distance
from pbe.evaluation.scores import Scores

DIGITS = 4  # of a metric; what lies beyond differs between processors


def table_row(
    scores: Scores, real_features: Features, quality: QualityModel, truth: Sequence[Attributes] | None
) -> dict[str, float | int | None]:
    """A method's row of the table, over all cases."""
    return {
        "fid": round(frechet_distance(scores.features, real_features), DIGITS) if len(scores) > 1 else None,
        "qs": round(quality.score(scores.features), DIGITS),
        **_fidelity(scores, truth),
        "unmasked_max_abs_diff": int(scores.unmasked_max_abs_diff.max()),
    }


def _fidelity(scores: Scores, truth: Sequence[Attributes] | None) -> dict[str, float | None]:
    """How much of the exemplar is found in the results: the part of a row that few cases suffice for."""
    found = _accuracies(scores.readings, truth)
    return {"clip_score": round(float(scores.clip_scores.mean()), DIGITS), **found}


def _accuracies(readings: Readings | None, truth: Sequence[Attributes] | None) -> dict[str, float | None]:
    if readings is None or truth is None:
        return dict.fromkeys(ACCURACY_KEYS)
    return {k: None if v is None else round(v, DIGITS) for k, v in accuracies(readings, truth).items()}


def sweep_rows(scales: Mapping[str, Scores], truth: Sequence[Attributes] | None, num_cases: int) -> dict[str, Any]:
    """What guidance does, at every scale on the same first cases; too few for FID and QS."""
    head = None if truth is None else truth[:num_cases]
    rows = {scale: _fidelity(scores.head(num_cases), head) for scale, scores in scales.items()}
    return {"num_cases": num_cases, "scales": rows}


def judge_row(
    bench: Bench, source_readings: Readings | None, exemplar_readings: Readings | None
) -> dict[str, float | None]:
    """How often the judge is right on true crops: the boxes before the edit, and the exemplars."""
    sources, exemplars = bench.source_truth, bench.exemplar_truth
    if source_readings is None or exemplar_readings is None or exemplars is None:
        return dict.fromkeys(ACCURACY_KEYS)
    if sources is None:
        return _accuracies(exemplar_readings, exemplars)
    return _accuracies(join_readings([source_readings, exemplar_readings]), [*sources, *exemplars])
