"""What the report shows, read from the files that scoring writes.

    metrics.json                    metrics of every method
    evaluation/comparison.json      intervals of every method, and of the subject's differences to the others:
        {"subject": "paint_by_example", "confidence": 0.95, "draws": 2000,
         "methods": {"source": {"fid": {"value": 0.011, "low": 0.009, "high": 0.013}}},
         "differences": {"source": {"fid": {"value": 0.001, "low": -0.002, "high": 0.004}}},   subject minus source
         "floor": {"fid": {"value": 0.004, "low": 0.003, "high": 0.006}},                      real against real
         "saturated": ["qs"]}                                                                  these separate nothing
    evaluation/evaluation.json      what the numbers depend on: bench, reference, encoder, protocol, sampler
    evaluation/case_scores.parquet  a row for each case and method

The subject is the method that the page is about: the painter, or the first folder of results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from pbe.evaluation.names import CASE_SCORES, COMPARISON, CONDITIONS, COPY_PASTE, METHOD, SOURCE
from pbe.evaluation.scoring.metric_table import ACCURACY, METRICS, OFFICIAL, metric_spec
from pbe.runtime.files import read_json

Verdict = Literal["better", "worse", "tie"]
_TITLES = {
    METHOD: "Paint by Example",
    SOURCE: "unchanged source",
    COPY_PASTE: "copy and paste",
    "poisson": "Poisson blending",
    "text_inpainting": "text-conditioned inpainting",
    "text_caption": "inpainting conditioned by the caption",
    "stock": "diffusers' stock pipeline",
}


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; `low` and `high` are None where none was computed."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Difference:
    """The subject's metric minus another method's, with its interval."""

    metric: str
    other: str
    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Whether the subject is better or worse with confidence; a tie when the interval contains 0."""
        if self.low <= 0 <= self.high:
            return "tie"
        return "better" if (self.value > 0) == metric_spec(self.metric).higher_is_better else "worse"


@dataclass(frozen=True)
class Results:
    """An evaluation's results. `methods` are in the order of the page, the subject first."""

    subject: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    estimates: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[str, Mapping[str, Difference]]
    floors: Mapping[str, Estimate]
    confidence: float
    draws: int
    saturated: tuple[str, ...]
    summary: Mapping[str, Any]
    conditions: Mapping[str, Any]
    case_scores: pl.DataFrame

    @property
    def others(self) -> tuple[str, ...]:
        """All methods but the subject."""
        return self.methods[1:]

    @property
    def is_painter(self) -> bool:
        """Whether the project's painter was evaluated, and not folders of results alone."""
        return METHOD in self.methods

    def estimate(self, method: str, metric: str) -> Estimate | None:
        """Return a method's value of a metric; None where it was not measured."""
        return self.estimates.get(method, {}).get(metric)

    def difference(self, other: str, metric: str) -> Difference | None:
        """Return the subject's difference to another method; None where it was not measured."""
        return self.differences.get(other, {}).get(metric)


def read_results(metrics: Mapping[str, Any], out: Path) -> Results:
    """Return the results of the evaluation whose files lie in `out`; `metrics` is the content of metrics.json.

    Raises UserError when a file is missing or no JSON.
    """
    comparison = read_json(out / COMPARISON)
    rows: Mapping[str, Mapping[str, Any]] = metrics["methods"]
    subject = comparison.get("subject", next(iter(rows)))
    methods = (subject, *(name for name in rows if name != subject))
    estimates = {name: _estimates(rows[name], comparison["methods"].get(name, {})) for name in methods}
    differences = {
        other: {
            metric: Difference(metric, other, d["value"], d["low"], d["high"])
            for metric, d in found.items()
            if is_shown(metric) and None not in (d["value"], d["low"], d["high"])
        }
        for other, found in comparison["differences"].items()
    }
    return Results(
        subject,
        methods,
        order_metrics({metric for found in estimates.values() for metric in found}),
        estimates,
        differences,
        {
            metric: Estimate(f["value"], f.get("low"), f.get("high"))
            for metric, f in comparison.get("floor", {}).items()
        },
        comparison["confidence"],
        comparison["draws"],
        tuple(comparison.get("saturated", ())),
        metrics,
        read_json(out / CONDITIONS),
        pl.read_parquet(out / CASE_SCORES),
    )


def _estimates(row: Mapping[str, Any], intervals: Mapping[str, Any]) -> dict[str, Estimate]:
    """Return a method's metrics, by the intervals where they exist, otherwise by metrics.json."""
    estimates = {metric: Estimate(value) for metric, value in row.items() if is_shown(metric) and value is not None}
    for metric, found in intervals.items():
        if is_shown(metric) and found["value"] is not None:
            estimates[metric] = Estimate(found["value"], found.get("low"), found.get("high"))
    return estimates


def is_shown(metric: str) -> bool:
    """Return whether a key of a method's row is a metric."""
    return metric.removesuffix(OFFICIAL) in METRICS or metric.endswith(ACCURACY)


def order_metrics(metrics: set[str]) -> tuple[str, ...]:
    """Return metrics in the order of tables, the attributes' accuracies last."""
    known = [m + suffix for m in METRICS for suffix in ("", OFFICIAL) if m + suffix in metrics]
    return (*known, *sorted(metrics - set(known)))


def method_title(name: str) -> str:
    """Return how the report names a method: the name itself for a folder of results."""
    scale = name.removeprefix(f"{METHOD}_guidance_")
    return f"{_TITLES[METHOD]}, guidance {scale}" if scale != name else _TITLES.get(name, name)


def method_titles(names: Sequence[str]) -> dict[str, str]:
    """Return the titles of methods by name."""
    return {name: method_title(name) for name in names}
