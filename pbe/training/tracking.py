"""A training run in MLflow: parameters, live losses and timings, validation pictures, and where it comes from.

A run that resumes after a kill stays the same run in MLflow: its id is stored beside its checkpoints. What it read is
recorded when it starts and what it wrote when it ends: provenance.json has every hash, and tags the main ones.
"""

import getpass
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient
from mlflow.utils import mlflow_tags

from pbe import layout
from pbe.errors import UnavailableError, UserError, one_line
from pbe.runtime.files import write_text
from pbe.training.journal import StepRecord

RUN_FILE = "mlflow-run.txt"
METRICS = tuple(name for name in StepRecord.__annotations__ if name != "step")
_RECORDS_PER_REQUEST = 20
_METRICS_PER_REQUEST = 1000  # MLflow's limit
_PARAM_CHARACTERS, _TAG_CHARACTERS = 6000, 5000  # MLflow's limits
PROVENANCE = "provenance.json"
EXPERIMENT_TAGS = {
    # Without a kind, MLflow's interface opens an experiment on a page for language models, and not on its runs.
    "mlflow.experimentKind": "custom_model_development",
    mlflow_tags.MLFLOW_RUN_NOTE: "Paint by Example: a run for each trained painter, and its registered versions.",
}
_TAGGED_INPUTS = {"data": str(layout.CURATED), "backbone": str(layout.BACKBONE)}  # by the tag
_TAGGED_OUTPUTS = {"model": str(layout.MODEL)}
_DATASETS = "data/"


@dataclass(frozen=True)
class RunOrigin:
    """Where a run comes from: its description, script, git commit, licence, and DVC's hash of each input by its path.

    A commit that ends in `-dirty` is one whose tracked files differ.
    """

    description: str = ""
    source: str = ""
    git_commit: str = ""
    licence: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def tags(self) -> dict[str, str]:
        """What people read of it, and the tags that MLflow's interface shows in columns and on the run's page."""
        commit, dirty, _ = self.git_commit.partition("-dirty")
        tags = {"git_commit": self.git_commit, "licence": self.licence, **_tagged(_TAGGED_INPUTS, self.inputs)}
        tags |= {
            mlflow_tags.MLFLOW_USER: getpass.getuser(),
            mlflow_tags.MLFLOW_SOURCE_NAME: self.source,
            mlflow_tags.MLFLOW_SOURCE_TYPE: "LOCAL",
            mlflow_tags.MLFLOW_GIT_COMMIT: commit,
            mlflow_tags.MLFLOW_GIT_DIRTY: str(bool(dirty)) if commit else "",
            mlflow_tags.MLFLOW_RUN_NOTE: self.description,
        }
        return {name: value for name, value in tags.items() if value}

    @property
    def datasets(self) -> list[DatasetInput]:
        """The inputs below data/, as MLflow's data sets."""
        context = InputTag(mlflow_tags.MLFLOW_DATASET_CONTEXT, "training")
        return [
            DatasetInput(Dataset(path, digest, "local", json.dumps({"uri": path})), [context])
            for path, digest in self.inputs.items()
            if path.startswith(_DATASETS)
        ]


def _tagged(paths: Mapping[str, str], hashes: Mapping[str, str]) -> dict[str, str]:
    return {tag: f"{path} {hashes[path]}" for tag, path in paths.items() if path in hashes}


class RunTracker:
    """Context manager of one MLflow run.

    The timestamp of a metric is its step: a resumed run logs some steps again, and MLflow then keeps each metric once.
    MLflow's own `system/` metrics describe the driver's machine. Raises UserError when the tracking store fails,
    UnavailableError when it is a server.
    """

    def __init__(
        self, tracking_uri: str, experiment: str, run_file: Path, parameters: dict[str, str], origin: RunOrigin
    ) -> None:
        mlflow.set_tracking_uri(tracking_uri)
        self.tracking_uri, self.origin = tracking_uri, origin
        with self._store_errors():
            self.client = MlflowClient(tracking_uri)
            self.run_id, is_new = self._open(experiment, run_file)
            # A resumed run keeps its parameters: those that may have changed, such as checkpoint_every, decide no bits.
            params = [Param(k, v[:_PARAM_CHARACTERS]) for k, v in parameters.items()] if is_new else []
            self.client.log_batch(self.run_id, params=params, tags=_run_tags(origin.tags))
            self.client.log_inputs(self.run_id, origin.datasets)
            self._log_provenance({})
        self._waiting: list[Metric] = []
        self._num_records = 0
        self._system = SystemMetricsMonitor(self.run_id, resume_logging=not is_new)

    def _open(self, experiment: str, run_file: Path) -> tuple[str, bool]:
        if run_file.exists():
            run_id = run_file.read_text().strip()
            try:
                self.client.update_run(run_id, status="RUNNING")
            except MlflowException:
                pass  # another tracking server, or a new database: start another run
            else:
                return run_id, False
        experiment_id = mlflow.set_experiment(experiment).experiment_id
        for name, value in EXPERIMENT_TAGS.items():
            self.client.set_experiment_tag(experiment_id, name, value)
        run_id = str(self.client.create_run(experiment_id, run_name=f"train-{run_file.parent.name[:8]}").info.run_id)
        write_text(run_file, run_id + "\n")
        return run_id, True

    def on_record(self, record: StepRecord) -> None:
        """Log the losses of a step; they are sent a few steps at a time."""
        self._add({name: getattr(record, name) for name in METRICS}, record.step)
        self._num_records += 1
        if self._num_records % _RECORDS_PER_REQUEST == 0:
            self.flush()

    def on_timing(self, timing: Mapping[str, float]) -> None:
        """Log a line of timings; it is sent with the next losses."""
        self._add({name: value for name, value in timing.items() if name != "step"}, int(timing["step"]))

    def on_picture(self, step: int, picture: Path) -> None:
        """Log a validation picture as an artifact."""
        with self._store_errors():
            self.client.log_artifact(self.run_id, str(picture), "validation")

    def log_outputs(self, hashes: Mapping[str, str]) -> None:
        """Record DVC's hash of each file and folder that the run wrote, by its path; also after the run has ended."""
        with self._store_errors():
            self.client.log_batch(self.run_id, tags=_run_tags(_tagged(_TAGGED_OUTPUTS, hashes)))
            self._log_provenance(hashes)

    def _log_provenance(self, outputs: Mapping[str, str]) -> None:
        content = asdict(self.origin) | {"outputs": dict(outputs)}
        self.client.log_dict(self.run_id, content, PROVENANCE)

    def flush(self) -> None:
        """Send the metrics that wait."""
        with self._store_errors():
            for start in range(0, len(self._waiting), _METRICS_PER_REQUEST):
                self.client.log_batch(self.run_id, metrics=self._waiting[start : start + _METRICS_PER_REQUEST])
        self._waiting = []

    def __enter__(self) -> Self:
        self._system.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._system.finish()
        self.flush()
        with self._store_errors():
            self.client.set_terminated(self.run_id, "FAILED" if kind else "FINISHED")

    def _add(self, values: Mapping[str, float | None], step: int) -> None:
        self._waiting += [Metric(name, value, step, step) for name, value in values.items() if value is not None]

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            kind = UnavailableError if self.tracking_uri.startswith("http") else UserError
            raise kind(f"MLFLOW_TRACKING_URI={self.tracking_uri}: {one_line(error)}") from error


def _run_tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(name, value[:_TAG_CHARACTERS]) for name, value in tags.items()]
