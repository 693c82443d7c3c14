"""The report's numbers as CSV, for DVC's plots and for other programs.

methods.csv      a row for each method, a column for each metric
comparison.csv   a row for each method and metric: value, interval, the subject's difference to it, and its verdict
sweep.csv        a row for each guidance scale: metrics of the same cases with intervals; only with a sweep
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pbe.evaluation.report.results import Results
from pbe.runtime.files import atomic_file

METHODS, COMPARISON, SWEEP = "methods.csv", "comparison.csv", "sweep.csv"
DIGITS = 6
_COLUMNS = ("method", "metric", "value", "low", "high", "difference", "difference_low", "difference_high", "verdict")

Rows = Sequence[Mapping[str, Any]]


def write_csv_tables(folder: Path, results: Results, sweep: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the tables into `folder`; `sweep` are the rows of the guidance scales, empty without a sweep."""
    _write(folder / METHODS, ("method", *results.metrics), _method_rows(results))
    _write(folder / COMPARISON, _COLUMNS, _comparison_rows(results))
    if sweep:
        columns = dict.fromkeys(("guidance_scale", *(key for row in sweep.values() for key in row)))
        _write(folder / SWEEP, tuple(columns), [{"guidance_scale": scale, **row} for scale, row in sweep.items()])


def _method_rows(results: Results) -> Rows:
    return [
        {"method": name, **{metric: found.value for metric, found in results.estimates[name].items()}}
        for name in results.methods
    ]


def _comparison_rows(results: Results) -> Rows:
    rows: list[dict[str, Any]] = []
    for name in results.methods:
        for metric in results.metrics:
            found, difference = results.estimate(name, metric), results.difference(name, metric)
            if found is None:
                continue
            row = {"method": name, "metric": metric, "value": found.value, "low": found.low, "high": found.high}
            if difference is not None:
                row |= {"difference": difference.value, "verdict": difference.verdict}
                row |= {"difference_low": difference.low, "difference_high": difference.high}
            rows.append(row)
    return rows


def _write(path: Path, columns: Sequence[str], rows: Rows) -> None:
    with atomic_file(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)


def _text(value: Any) -> Any:
    return round(value, DIGITS) if isinstance(value, float) else "" if value is None else value
