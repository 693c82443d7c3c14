"""A run in MLflow for each model of the tables: its changes to params.yaml, its losses and its mean scores."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pbe.errors import UserError, one_line

EXPERIMENT = "paint-by-example-tables"
RUN_FILE = "mlflow-run.txt"
_METRICS_PER_REQUEST = 1000  # MLflow's limit


@dataclass(frozen=True)
class ModelRun:
    """What is logged of one model.

    `curves` are values by step, such as losses; `by_scale` are scores by guidance scale, logged with ten times the
    scale as the step.
    """

    name: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    curves: Mapping[str, Sequence[float]]
    scores: Mapping[str, float]
    by_scale: Mapping[float, Mapping[str, float]]

    def metrics(self) -> list[Metric]:
        """Return all values; the timestamp of a value is its step, so that logging it again changes nothing."""
        steps = [Metric(name, value, i, i) for name, values in self.curves.items() for i, value in enumerate(values)]
        final = [Metric(name, value, 0, 0) for name, value in self.scores.items()]
        scales = [
            Metric(f"guidance_{name}", value, round(10 * scale), round(10 * scale))
            for scale, scores in self.by_scale.items()
            for name, value in scores.items()
        ]
        return [*steps, *final, *scales]


def log_run(tracking_uri: str, run_file: Path, run: ModelRun) -> str:
    """Log a model as a finished run and return the run's id, which is kept in `run_file`.

    A model that was logged before gets a new run, and the old one is deleted. Raises UserError when the tracking store
    fails.
    """
    try:
        client = MlflowClient(tracking_uri)
        if run_file.is_file():
            _delete(client, run_file.read_text().strip())
        experiment = client.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
        run_id = str(client.create_run(experiment_id, run_name=run.name).info.run_id)
        parameters = [Param(key, value) for key, value in run.parameters.items()]
        client.log_batch(run_id, params=parameters, tags=[RunTag(key, value) for key, value in run.tags.items()])
        metrics = run.metrics()
        for start in range(0, len(metrics), _METRICS_PER_REQUEST):
            client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_REQUEST])
        client.set_terminated(run_id)
    except MlflowException as error:
        raise UserError(f"MLFLOW_TRACKING_URI={tracking_uri}: {one_line(error)}") from error
    run_file.write_text(run_id + "\n")
    return run_id


def _delete(client: MlflowClient, run_id: str) -> None:
    with suppress(MlflowException):  # of another tracking server, or deleted by its user
        client.delete_run(run_id)
