"""A model's run in MLflow; logged again, it is one run."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pbe.demo.tables.tracking import EXPERIMENT, ModelRun, log_run
from pbe.errors import UserError

RUN = ModelRun(
    "guidance-1",
    {"train.drop_probability": "0.2"},
    {"variant": "guidance"},
    {"loss": [1.0, 0.5]},
    {"identity": 61.5},
    {1.0: {"identity": 40.0}, 5.0: {"identity": 61.5}},
)


def test_a_model_that_is_logged_again_is_one_run(tracking_store: str, tmp_path: Path) -> None:
    first = log_run(tracking_store, tmp_path / "run.txt", RUN)
    again = log_run(tracking_store, tmp_path / "run.txt", RUN)
    client = MlflowClient(tracking_store)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert first != again == run.info.run_id == (tmp_path / "run.txt").read_text().strip()
    assert run.info.status == "FINISHED"
    assert run.data.params == RUN.parameters
    assert run.data.tags["variant"] == "guidance"
    assert run.data.metrics == {"loss": 0.5, "identity": 61.5, "guidance_identity": 61.5}
    scales = client.get_metric_history(again, "guidance_identity")
    assert [(m.step, m.value) for m in scales] == [(10, 40.0), (50, 61.5)]


def test_an_experiment_that_its_user_has_deleted_is_an_error_of_one_line(tracking_store: str, tmp_path: Path) -> None:
    client = MlflowClient(tracking_store)
    client.delete_experiment(client.create_experiment(EXPERIMENT))
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI=sqlite.*deleted"):
        log_run(tracking_store, tmp_path / "run.txt", RUN)
