"""A training run in MLflow: parameters, live losses, validation pictures, git and data hashes.

A run that goes on after a kill goes on in MLflow too: its id is kept beside its checkpoints.
"""

from pathlib import Path
from types import TracebackType

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pbe.training.journal import StepRecord

RUN_FILE = "mlflow-run.txt"
METRICS = ("loss", "loss_early", "loss_late", "lr", "grad_norm")
_BATCH = 20  # records sent together


class RunTracker:
    """Context manager around one MLflow run; a metric's timestamp is its step, so that nothing reads the clock."""

    def __init__(
        self, tracking_uri: str, experiment: str, run_file: Path, parameters: dict[str, str], tags: dict[str, str]
    ) -> None:
        mlflow.set_tracking_uri(tracking_uri)
        self.client = MlflowClient(tracking_uri)
        self.run_id, is_new = self._open(experiment, run_file)
        # A run that goes on keeps its parameters; what may differ by now, such as checkpoint_every, decides no bits.
        params = [Param(k, v[:6000]) for k, v in parameters.items()] if is_new else []
        self.client.log_batch(self.run_id, params=params, tags=[RunTag(k, v[:5000]) for k, v in tags.items()])
        self._waiting: list[StepRecord] = []

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
        """Log the losses of a step; records are sent a few at a time."""
        self._waiting.append(record)
        if len(self._waiting) >= _BATCH:
            self.flush()

    def on_picture(self, step: int, picture: Path) -> None:
        self.client.log_artifact(self.run_id, str(picture), "validation")

    def flush(self) -> None:
        metrics = [Metric(name, getattr(r, name), r.step, r.step) for r in self._waiting for name in METRICS]
        self.client.log_batch(self.run_id, metrics=metrics)
        self._waiting = []

    def __enter__(self) -> "RunTracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        self.client.set_terminated(self.run_id, "FAILED" if kind else "FINISHED")
