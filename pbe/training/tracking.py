"""A training run in MLflow: parameters, live losses and timings, validation pictures, git and data hashes.

A run that resumes after a kill stays the same run in MLflow: its id is stored beside its checkpoints.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient

from pbe.errors import UnavailableError, UserError, one_line
from pbe.runtime.files import write_text
from pbe.training.journal import StepRecord

RUN_FILE = "mlflow-run.txt"
METRICS = tuple(name for name in StepRecord.__annotations__ if name != "step")
_RECORDS_PER_REQUEST = 20
_METRICS_PER_REQUEST = 1000  # MLflow's limit
_PARAM_CHARACTERS, _TAG_CHARACTERS = 6000, 5000  # MLflow's limits


class RunTracker:
    """Context manager of one MLflow run.

    The timestamp of a metric is its step: a resumed run logs some steps again, and MLflow then keeps each metric once.
    MLflow's own `system/` metrics describe the driver's machine. Raises UserError when the tracking store fails,
    UnavailableError when it is a server.
    """

    def __init__(
        self, tracking_uri: str, experiment: str, run_file: Path, parameters: dict[str, str], tags: dict[str, str]
    ) -> None:
        mlflow.set_tracking_uri(tracking_uri)
        self.tracking_uri = tracking_uri
        with self._store_errors():
            self.client = MlflowClient(tracking_uri)
            self.run_id, is_new = self._open(experiment, run_file)
            # A resumed run keeps its parameters: those that may have changed, such as checkpoint_every, decide no bits.
            params = [Param(k, v[:_PARAM_CHARACTERS]) for k, v in parameters.items()] if is_new else []
            run_tags = [RunTag(k, v[:_TAG_CHARACTERS]) for k, v in tags.items()]
            self.client.log_batch(self.run_id, params=params, tags=run_tags)
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
