"""The evaluations that a registered version carries: artifacts of its model, one folder for each way to evaluate.

    evaluations/<key>/      metrics.json, evaluation.json, case_scores.parquet, features.npz, and the report's files

The version's tag `evaluations` lists their keys, the newest last. It is set after the artifacts are stored, so that an
interruption leaves no evaluation that lacks a file. The metrics of the newest one, intervals included, are those of the
model, its run and the version's record.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow

from pbe import layout
from pbe.serving.registry.evaluations import Evaluation, Metrics, read_record, write_record
from pbe.serving.registry.listings import VersionListing
from pbe.serving.registry.version_files import Version, fetched, store
from pbe.serving.registry.version_records import EVALUATIONS_TAG, VersionRecord, update_record
from pbe.serving.registry.version_records import read_record as read_version_record

FOLDER = "evaluations"


def evaluation_keys(version: Version) -> list[str]:
    """Return the keys of the version's evaluations, the newest last; empty for a version that carries none."""
    return str(version.tags.get(EVALUATIONS_TAG, "")).split()


def attach(
    client: mlflow.MlflowClient,
    version: VersionListing,
    evaluation: Evaluation,
    report_files: Sequence[Path],
    tracking_uri: str,
    origin: Mapping[str, Any] | None = None,
) -> VersionRecord:
    """Store an evaluation of a version with the files of its report, unless the version carries it; return its record.

    `origin`, fields of the record, is kept unless the record says where the model comes from.
    """
    record = read_version_record(version, tracking_uri)
    keys, name = evaluation_keys(version), f"{FOLDER}/{evaluation.key}"
    pictures = [f"{name}/{path.name}" for path in report_files if path.name == layout.GALLERY.name]
    if evaluation.key not in keys or (pictures and record.picture not in pictures):
        with tempfile.TemporaryDirectory() as folder:
            write_record(evaluation, Path(folder))
            for path in report_files:
                shutil.copy2(path, Path(folder) / path.name)
            store(client, version, Path(folder), name, tracking_uri)
    newest = [*(key for key in keys if key != evaluation.key), evaluation.key]
    if newest != keys:
        client.set_model_version_tag(version.name, str(version.version), EVALUATIONS_TAG, " ".join(newest))
    if record.metrics != evaluation.metrics:
        _log_metrics(client, version, evaluation.metrics)
    kept = {} if record.git_commit and record.data else dict(origin or {})
    picture = pictures[0] if pictures else record.picture if record.picture.startswith(name) else ""
    changes = {"metrics": evaluation.metrics, "evaluation": evaluation.key, "picture": picture}
    return update_record(client, version, tracking_uri, **kept, **changes)


def _log_metrics(client: mlflow.MlflowClient, version: VersionListing, metrics: Metrics) -> None:
    if version.run_id and client.get_run(version.run_id).info.lifecycle_stage == "active":
        with mlflow.start_run(run_id=version.run_id):
            mlflow.log_metrics(_flatten(metrics), model_id=version.model_id)


def _flatten(metrics: Metrics) -> dict[str, float]:
    """Return the numbers of all methods as `method.metric` -> value."""
    methods = metrics.get("methods") or {}
    rows = ((f"{method}.{name}", value) for method, row in methods.items() for name, value in row.items())
    return {name: float(value) for name, value in rows if isinstance(value, int | float)}


def evaluation_of(version: Version, key: str, tracking_uri: str) -> Evaluation | None:
    """Return the version's evaluation under `key`, else its newest; None when it has none, or its files are gone."""
    keys = evaluation_keys(version)
    if not keys:
        return None
    with fetched(version, f"{FOLDER}/{key if key in keys else keys[-1]}", tracking_uri) as folder:
        return None if folder is None else read_record(folder)
