"""The metrics of each guidance scale on the same cases, with intervals."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from pbe.evaluation.attributes import CORRECT
from pbe.evaluation.names import METHOD
from pbe.evaluation.report.results import Results, is_shown
from pbe.evaluation.scoring.intervals import Floats, Interval, bootstrap_counts, mean_interval, share_interval
from pbe.evaluation.scoring.metric_table import ACCURACY


def sweep_rows(results: Results) -> dict[str, dict[str, Any]]:
    """Return scale -> metric -> value, in ascending order of scales, with `<metric>_low` and `<metric>_high`.

    The values are those of metrics.json; empty when no sweep was painted.
    """
    sweep = results.summary.get("guidance_sweep")
    if not sweep:
        return {}
    scales = sorted(sweep["scales"], key=float)
    scores = {scale: _scores(results, scale) for scale in scales}
    ids = set.intersection(*(set(found["case_id"]) for found in scores.values()))
    return {
        scale: _with_intervals(sweep["scales"][scale], found.filter(pl.col("case_id").is_in(ids)), results)
        for scale, found in scores.items()
    }


def _scores(results: Results, scale: str) -> pl.DataFrame:
    evaluated = float(scale) == results.summary["guidance_scale"]
    name = METHOD if evaluated else f"{METHOD}_guidance_{float(scale):g}"
    return results.case_scores.filter(pl.col("method") == name)


def _with_intervals(row: Mapping[str, Any], scores: pl.DataFrame, results: Results) -> dict[str, Any]:
    found: dict[str, Any] = dict(row)
    for metric in [m for m in row if is_shown(m) and row[m] is not None]:
        interval = _interval(metric, scores, results)
        if interval is not None:
            found |= {f"{metric}_low": interval.low, f"{metric}_high": interval.high}
    return found


def _interval(metric: str, scores: pl.DataFrame, results: Results) -> Interval | None:
    column = metric.removesuffix(ACCURACY) + CORRECT if metric.endswith(ACCURACY) else metric
    if column not in scores.columns or scores.is_empty():
        return None
    values: Floats = scores[column].to_numpy()
    if metric.endswith(ACCURACY):
        return share_interval(values, results.confidence)
    return mean_interval(values, bootstrap_counts(len(values), results.draws, seed=0), results.confidence)
