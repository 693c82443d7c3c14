"""A training run in MLflow: parameters, live losses and timings, validation pictures, git and data hashes.

A run that goes on after a kill goes on in MLflow too: its id is kept beside its checkpoints.
"""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient

from pbe.training.journal import StepRecord

RUN_FILE = "mlflow-run.txt"
METRICS = tuple(name for name in StepRecord.__annotations__ if name != "step")
_BATCH = 20  # records sent together
_AT_ONCE = 1000  # metrics; MLflow takes no more in one request


class RunTracker:
    """Context manager around one MLflow run.

    A metric's timestamp is its step: what a run that goes on tells again is then the same, and is kept once. The
    driver's machine is watched too, as MLflow's own `system/` metrics.
    """

    def __init__(
        self, tracking_uri: str, experiment: str, run_file: Path, parameters: dict[str, str], tags: dict[str, str]
    ) -> None:
        mlflow.set_tracking_uri(tracking_uri)
        self.client = MlflowClient(tracking_uri)
        self.run_id, is_new = self._open(experiment, run_file)
        # A run that goes on keeps its parameters; what may differ by now, such as checkpoint_every, decides no bits.
        params = [Param(k, v[:6000]) for k, v in parameters.items()] if is_new else []
        self.client.log_batch(self.run_id, params=params, tags=[RunTag(k, v[:5000]) for k, v in tags.items()])
        self._waiting: list[Metric] = []
        self._steps = 0
        self._system = SystemMetricsMonitor(self.run_id, resume_logging=not is_new)

    def _open(self, experiment: str, run_file: Path) -> tuple[str, bool]:
        if run_file.exists():
            run_id = run_file.read_text().strip()
            try:
                self.client.update_run(run_id, status="RUNNING")
            except MlflowException:
                pass  # another tracking server, or a database made anew: start another run
            else:
                return run_id, False
        experiment_id = mlflow.set_experiment(experiment).experiment_id
        run_id = str(self.client.create_run(experiment_id, run_name=f"train-{run_file.parent.name[:8]}").info.run_id)
        run_file.parent.mkdir(parents=True, exist_ok=True)
        run_file.write_text(run_id + "\n")
        return run_id, True

    def on_record(self, record: StepRecord) -> None:
        """Log the losses of a step; what is waiting is sent a few steps at a time."""
        self._add({name: getattr(record, name) for name in METRICS}, record.step)
        self._steps += 1
        if self._steps % _BATCH == 0:
            self.flush()

    def on_timing(self, timing: Mapping[str, float]) -> None:
        """Log how fast the steps up to one were, with the next losses."""
        self._add({name: value for name, value in timing.items() if name != "step"}, int(timing["step"]))

    def _add(self, values: Mapping[str, float | None], step: int) -> None:
        self._waiting += [Metric(name, value, step, step) for name, value in values.items() if value is not None]

    def on_picture(self, step: int, picture: Path) -> None:
        self.client.log_artifact(self.run_id, str(picture), "validation")

    def flush(self) -> None:
        for start in range(0, len(self._waiting), _AT_ONCE):
            self.client.log_batch(self.run_id, metrics=self._waiting[start : start + _AT_ONCE])
        self._waiting = []

    def __enter__(self) -> "RunTracker":
        self._system.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._system.finish()
        self.flush()
        self.client.set_terminated(self.run_id, "FAILED" if kind else "FINISHED")
