"""An evaluation as the gate compares it: metrics, scores of single cases, features, and how they came about.

    reports/metrics.json                        metrics of every method
    reports/evaluation/evaluation.json          conditions: bench, reference, encoder, sampler, code of the metrics
    reports/evaluation/case_scores.parquet      the scores of every case and method
    reports/evaluation/features.npz             features of whole results, by method, and the real images' moments

A registered version keeps a record of it in one folder: the same files, with the painter's scores and features alone.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe import layout
from pbe.errors import UserError, one_line
from pbe.evaluation.metrics.frechet import Features, Moments
from pbe.evaluation.names import CASE_SCORES, CONDITIONS, FEATURES, METHOD
from pbe.runtime.files import atomic_file, read_json, write_json
from pbe.serving.registry.comparisons import MethodScores, MissingScoreError

Metrics = Mapping[str, Any]  # the content of metrics.json

METRICS = "metrics.json"
_MEAN, _COVARIANCE, _NUM_REAL = "real.mean", "real.covariance", "real.num_images"  # in features.npz
_REAL = "real"  # begins the names of what belongs to the real images


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation measured.

    `cases` has a row for each case and method: case_id, method, and a column for each score. `features` are those of
    whole results, (N, D) by method, and `reference` the moments of the real images' features.
    """

    metrics: Metrics
    conditions: Mapping[str, Any]
    cases: pl.DataFrame
    features: Mapping[str, Features]
    reference: Moments | None

    @property
    def key(self) -> str:
        """A digest, 16 hex digits, of the conditions: evaluations of the same key are comparable."""
        return hashlib.sha256(json.dumps(self.conditions, sort_keys=True).encode()).hexdigest()[:16]

    def method(self, method: str, name: str) -> MethodScores:
        """Return the scores of a method, called `name` in messages; raises MissingScoreError when it has none."""
        rows = self.cases.filter(pl.col("method") == method).sort("case_id")
        if not len(rows):
            raise MissingScoreError(f"{name} was not evaluated")
        scores = {
            column: rows[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
            for column, kind in rows.schema.items()
            if column != "case_id" and (kind.is_numeric() or kind == pl.Boolean)
        }
        return MethodScores(name, rows["case_id"].to_numpy(), scores, self.features.get(method))

    def difference_in_conditions(self, other: "Evaluation") -> str | None:
        """Return the first condition in which the other evaluation differs, with both values, or None."""
        ours, theirs = _flat(self.conditions), _flat(other.conditions)
        for key in dict.fromkeys((*ours, *theirs)):
            if ours.get(key) != theirs.get(key):
                return f"{key} {_short(theirs.get(key))}, the challenger with {_short(ours.get(key))}"
        return None


def read_evaluation(folder: Path) -> Evaluation:
    """Return what stage evaluate wrote into a project's folder; raises UserError naming a file that is missing."""
    files = {METRICS: layout.METRICS} | {name: layout.EVALUATION / name for name in (CONDITIONS, CASE_SCORES, FEATURES)}
    for path in files.values():
        if not (folder / path).is_file():
            raise UserError(f"{folder / path}: no such file; run: dvc repro evaluate")
    return _read({name: folder / path for name, path in files.items()})


def read_record(folder: Path) -> Evaluation:
    """Return the evaluation that `write_record` wrote."""
    return _read({name: folder / name for name in (METRICS, CONDITIONS, CASE_SCORES, FEATURES)})


def write_record(evaluation: Evaluation, folder: Path) -> None:
    """Write what a later comparison needs: the painter's scores and features, and the moments of the real images."""
    write_json(folder / METRICS, dict(evaluation.metrics))
    write_json(folder / CONDITIONS, dict(evaluation.conditions))
    evaluation.cases.filter(pl.col("method") == METHOD).write_parquet(folder / CASE_SCORES)
    arrays: dict[str, NDArray[Any]] = {
        name: features for name, features in evaluation.features.items() if name == METHOD
    }
    if (moments := evaluation.reference) is not None:
        arrays |= {_MEAN: moments.mean, _COVARIANCE: moments.covariance, _NUM_REAL: np.array(moments.num_images)}
    with atomic_file(folder / FEATURES) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _read(files: Mapping[str, Path]) -> Evaluation:
    arrays = _read_arrays(files[FEATURES])
    features = {name: array for name, array in arrays.items() if not name.startswith(_REAL)}
    cases = _read_table(files[CASE_SCORES])
    return Evaluation(read_json(files[METRICS]), read_json(files[CONDITIONS]), cases, features, _reference(arrays))


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged ({one_line(error)}); run: dvc repro --force evaluate") from None


def _read_table(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: damaged ({one_line(error)}); run: dvc repro --force evaluate") from None


def _reference(arrays: Mapping[str, NDArray[Any]]) -> Moments | None:
    if _MEAN not in arrays:
        return None
    return Moments(int(arrays[_NUM_REAL]), arrays[_MEAN], arrays[_COVARIANCE])


def _flat(conditions: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in conditions.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
