"""A training run in an MLflow store: what is logged, and that a resumed run stays one run."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from pbe.errors import UserError
from pbe.training.journal import StepRecord
from pbe.training.tracking import EXPERIMENT_TAGS, METRICS, PROVENANCE, RUN_FILE, RunOrigin, RunTracker

COMMIT, BOXES, BACKBONE, MODEL = "c" * 40, "b" * 32 + ".dir", "a" * 32 + ".dir", "d" * 32 + ".dir"
ORIGIN = RunOrigin(
    "five steps", "flows/train.py", f"{COMMIT}-dirty", "apache-2.0",
    {"data/curated": BOXES, "models/backbone": BACKBONE},
)  # fmt: skip


def record(step: int) -> StepRecord:
    return StepRecord(step, 1.0 / (step + 1), 0.5, None, 0.25, 0.25, 1e-3, 2.0, 0.4 if step == 9 else None)


def tracker(tracking_store: str, folder: Path) -> RunTracker:
    return RunTracker(tracking_store, "tests", folder / "run" / RUN_FILE, {"train.lr": "0.001"}, ORIGIN)


def test_losses_parameters_tags_and_pictures_are_logged(tracking_store: str, tmp_path: Path) -> None:
    picture = tmp_path / "validation-00000002.png"
    picture.write_bytes(b"png")
    with tracker(tracking_store, tmp_path) as run:
        for step in range(45):
            run.on_record(record(step))
        run.on_timing({"step": 39, "step_s": 0.5, "images_per_s": 32.0})
        run.on_picture(2, picture)
    client = MlflowClient(tracking_store)
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"train.lr": "0.001"}
    own = {name for name in found.data.metrics if not name.startswith("system/")}
    assert own == {*METRICS, "step_s", "images_per_s"} - {"loss_t250"}
    assert [m.step for m in client.get_metric_history(run.run_id, "validation_loss")] == [9]
    losses = client.get_metric_history(run.run_id, "loss")
    assert [(m.step, m.value) for m in losses] == [(s, 1.0 / (s + 1)) for s in range(45)]
    assert [a.path for a in client.list_artifacts(run.run_id, "validation")] == ["validation/validation-00000002.png"]


def test_inputs_are_recorded_before_and_outputs_after(tracking_store: str, tmp_path: Path) -> None:
    client = MlflowClient(tracking_store)

    def provenance(run_id: str) -> Any:
        return json.loads(Path(client.download_artifacts(run_id, PROVENANCE)).read_text())

    with tracker(tracking_store, tmp_path) as run:
        before = client.get_run(run.run_id)
        assert provenance(run.run_id)["outputs"] == {}
    run.log_outputs({"models/pbe": MODEL, "reports/losses.csv": "e" * 32})
    after = client.get_run(run.run_id)
    own = {"git_commit": f"{COMMIT}-dirty", "licence": "apache-2.0", "data": f"data/curated {BOXES}"}
    own |= {"backbone": f"models/backbone {BACKBONE}"}
    assert {name: value for name, value in before.data.tags.items() if not name.startswith("mlflow.")} == own
    assert after.data.tags == before.data.tags | {"model": f"models/pbe {MODEL}"}
    assert provenance(run.run_id)["inputs"] == ORIGIN.inputs
    assert provenance(run.run_id)["outputs"] == {"models/pbe": MODEL, "reports/losses.csv": "e" * 32}


def test_mlflow_shows_source_description_and_data_set_and_opens_on_the_runs(
    tracking_store: str, tmp_path: Path
) -> None:
    with tracker(tracking_store, tmp_path) as run:
        pass
    client = MlflowClient(tracking_store)
    found = client.get_run(run.run_id)
    tags = found.data.tags
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("flows/train.py", "LOCAL")
    assert (tags["mlflow.source.git.commit"], tags["mlflow.source.git.dirty"]) == (COMMIT, "True")
    assert tags["mlflow.note.content"] == "five steps"
    (data_set,) = found.inputs.dataset_inputs
    assert (data_set.dataset.name, data_set.dataset.digest) == ("data/curated", BOXES)
    assert client.get_experiment(found.info.experiment_id).tags.items() >= EXPERIMENT_TAGS.items()


def test_an_interrupted_run_continues_as_the_same_run(tracking_store: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), tracker(tracking_store, tmp_path) as first:  # noqa: PT012
        first.on_record(record(0))
        raise RuntimeError
    client = MlflowClient(tracking_store)
    assert client.get_run(first.run_id).info.status == "FAILED"
    with tracker(tracking_store, tmp_path) as again:
        again.on_record(record(1))
    assert again.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(first.run_id, "loss")] == [0, 1]


def test_a_new_database_gets_a_new_run(tracking_store: str, tmp_path: Path) -> None:
    with tracker(tracking_store, tmp_path) as first:
        pass
    with tracker(tracking_store.replace("mlflow.db", "other.db"), tmp_path) as second:
        pass
    assert second.run_id != first.run_id


def test_a_store_that_cannot_be_opened_is_a_user_error(tracking_store: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI=gopher://nowhere: "):
        tracker("gopher://nowhere", tmp_path)
