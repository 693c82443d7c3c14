"""The evaluations that a registered version carries: artifacts of its model, one folder for each way to evaluate.

    evaluations/<key>/      metrics.json, evaluation.json, case_scores.parquet, features.npz, and the report's files

The version's tag `evaluations` lists their keys, the newest last. It is set after the artifacts are stored, so that an
interruption leaves no evaluation that lacks a file. The metrics of the newest one, intervals included, are those of the
model and its run, and the version's tag `metrics`.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion

from pbe.runtime.files import atomic_folder
from pbe.serving.registry.evaluations import Evaluation, Metrics, read_record, write_record
from pbe.serving.registry.registered_models import files_are_missing, stored_folder

FOLDER, TAG, METRICS_TAG = "evaluations", "evaluations", "metrics"


def evaluation_keys(version: ModelVersion) -> list[str]:
    """Return the keys of the version's evaluations, the newest last; empty for a version that carries none."""
    return str(version.tags.get(TAG, "")).split()


def attach(
    client: mlflow.MlflowClient,
    version: ModelVersion,
    evaluation: Evaluation,
    report_files: Sequence[Path],
    tracking_uri: str,
) -> None:
    """Store an evaluation of a version with the files of its report, unless the version carries it, and its metrics."""
    keys = evaluation_keys(version)
    if evaluation.key not in keys:
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder)
            write_record(evaluation, record)
            for path in report_files:
                shutil.copy2(path, record / path.name)
            _store(client, version, record, f"{FOLDER}/{evaluation.key}", tracking_uri)
    newest = [*(key for key in keys if key != evaluation.key), evaluation.key]
    if newest != keys:
        client.set_model_version_tag(version.name, version.version, TAG, " ".join(newest))
    _log_metrics(client, version, evaluation.metrics)


def _log_metrics(client: mlflow.MlflowClient, version: ModelVersion, metrics: Metrics) -> None:
    content = json.dumps(metrics, sort_keys=True)
    if version.tags.get(METRICS_TAG) == content:
        return
    if version.run_id and client.get_run(version.run_id).info.lifecycle_stage == "active":
        with mlflow.start_run(run_id=version.run_id):
            mlflow.log_metrics(_flatten(metrics), model_id=version.model_id)
    client.set_model_version_tag(version.name, version.version, METRICS_TAG, content)


def _flatten(metrics: Metrics) -> dict[str, float]:
    """Return the numbers of all methods as `method.metric` -> value."""
    methods = metrics.get("methods") or {}
    rows = ((f"{method}.{name}", value) for method, row in methods.items() for name, value in row.items())
    return {name: float(value) for name, value in rows if isinstance(value, int | float)}


def evaluation_of(version: ModelVersion, key: str, tracking_uri: str) -> Evaluation | None:
    """Return the version's evaluation under `key`, else its newest; None when it has none, or its files are gone."""
    keys = evaluation_keys(version)
    if not keys or files_are_missing(_uri(version), tracking_uri):
        return None
    name = f"{FOLDER}/{key if key in keys else keys[-1]}"
    folder = stored_folder(_uri(version), tracking_uri)
    if folder is not None:
        return read_record(folder / name)
    with tempfile.TemporaryDirectory() as copy:
        fetched = mlflow.artifacts.download_artifacts(artifact_uri=f"{_uri(version)}/{name}", dst_path=copy)
        return read_record(Path(fetched))


def _store(client: mlflow.MlflowClient, version: ModelVersion, record: Path, name: str, tracking_uri: str) -> None:
    folder = stored_folder(_uri(version), tracking_uri)
    if folder is None:
        client.log_model_artifacts(str(version.model_id), str(record), name)
        return
    with atomic_folder(folder / name) as part:  # MLflow would write to where a moved project was
        shutil.copytree(record, part, dirs_exist_ok=True)


def _uri(version: ModelVersion) -> str:
    return f"models:/{version.name}/{version.version}"
