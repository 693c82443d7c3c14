"""A model's run in MLflow; logged again, it is one run."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
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


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)  # artifacts of a local store go into ./mlruns
    before = mlflow.get_tracking_uri()
    yield f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(before)


def test_a_model_that_is_logged_again_is_one_run(uri: str, tmp_path: Path) -> None:
    first = log_run(uri, tmp_path / "run.txt", RUN)
    again = log_run(uri, tmp_path / "run.txt", RUN)
    client = MlflowClient(uri)
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


def test_an_experiment_that_its_user_has_deleted_is_an_error_of_one_line(uri: str, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment(EXPERIMENT))
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI=sqlite.*deleted"):
        log_run(uri, tmp_path / "run.txt", RUN)
