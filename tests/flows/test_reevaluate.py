"""The champion evaluated again: what the evaluation sees, what the version keeps, and the gate's next decision."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from flows.reevaluate import CHAMPION, reevaluate, with_project_encoder
from flows.register import register
from pbe import layout
from pbe.errors import UserError
from pbe.settings import Settings
from tests.support.parameters import PARAMETERS
from tests.support.planted_evaluations import planted, write_evaluation

LONGER = {"num_steps": 50}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a project with a champion, a better model in models/pbe, and a new way to evaluate."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    for name, text in {"models/pbe/weights": "first", "models/pbe/image_encoder/config.json": "{}",
                       "models/backbone/config.json": "{}", "data/bench/cases.csv": "0", "reports/train.json": "{}",
                       "benches/other/cases.csv": "1"}.items():  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    write_evaluation(planted(1), tmp_path)
    assert register(PARAMETERS, Path())["alias"] == "champion"
    Path("models/pbe/weights").write_text("second")
    write_evaluation(planted(2, identity=62.0, conditions=LONGER), tmp_path)
    yield tmp_path
    mlflow.set_tracking_uri("")


def evaluated(settings: Settings, folder: Path, bars: Any) -> None:
    """Write the evaluation of the model in a folder that has everything that stage evaluate reads."""
    assert (folder / layout.MODEL / "weights").read_text() == "first"
    for name in (
        "models/backbone/config.json",
        "data/bench/cases.csv",
        "reports/train.json",
        "benches/other/cases.csv",
    ):
        assert (folder / name).is_file(), name
    assert (folder / settings.evaluate.encoder).resolve() == Path("models/pbe/image_encoder").resolve()
    assert not (folder / layout.METRICS).exists()
    write_evaluation(planted(1, conditions=LONGER), folder)
    (folder / layout.PAGE).write_text("<html>")


def test_the_champion_can_be_compared_afterwards(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = register(PARAMETERS, Path())
    assert (refused["version"], refused["outcome"]) == (2, "incomparable")
    metrics = layout.METRICS.read_bytes()

    monkeypatch.setattr("flows.reevaluate.evaluate", evaluated)
    counts = reevaluate(PARAMETERS, Path())
    assert counts["version"] == 1
    assert layout.METRICS.read_bytes() == metrics
    assert Path("models/pbe/weights").read_text() == "second"
    assert len(list(project.glob("mlruns/**/evaluations/*/index.html"))) == 1
    assert len(list(project.glob("mlruns/**/evaluations/*/metrics.json"))) == 3

    promoted = register(PARAMETERS, Path())
    assert (promoted["version"], promoted["outcome"]) == (2, "better")


@pytest.mark.usefixtures("project")
def test_the_folder_follows_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.reevaluate.evaluate", evaluated)
    reevaluate(PARAMETERS, Path())
    shutil.rmtree(CHAMPION / "reports/evaluation")
    (CHAMPION / layout.METRICS).unlink()
    shutil.move("models/backbone", "models/moved")
    shutil.copytree("models/moved", "models/backbone")

    reevaluate(PARAMETERS, Path())
    assert np.load(CHAMPION / "reports/evaluation/features.npz")["paint_by_example"].shape[0] == 60


def test_an_encoder_outside_of_the_model_stays(tmp_path: Path) -> None:
    for encoder in ("models/clip", "/models/clip"):
        settings = PARAMETERS.model_copy(update={"evaluate": PARAMETERS.evaluate.replace(encoder=encoder)})
        assert with_project_encoder(settings, tmp_path).evaluate.encoder == encoder


def test_without_a_champion_there_is_nothing_to_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(UserError, match="paint-by-example has no champion to evaluate; run: dvc repro register"):
        reevaluate(PARAMETERS, tmp_path)
