"""`pbe models`: what people and programs read of the registry, and how the champion changes."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from pbe.serving.commands.main import main
from pbe.serving.registry.versions import register
from tests.support import parameters
from tests.support.planted_evaluations import planted

MODEL_FILES = ("MLFLOW_REGISTRY_URI", "MLFLOW_WORKSPACE")


@pytest.fixture(scope="module")
def registered(empty_registry: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with version 1, and version 2, which is better and the champion."""
    project = tmp_path_factory.mktemp("project")
    shutil.copy(empty_registry, project / "mlflow.db")
    for identity in (60, 64):
        model = project / f"model {identity}"
        shutil.copytree(model_folder, model)
        (model / "README.md").write_text(f"identity {identity}")
        register(
            model,
            planted(identity, identity=identity),
            parameters.register(bootstrap_draws=200),
            seed=0,
            tracking_uri=f"sqlite:///{project / 'mlflow.db'}",
            experiment="x",
            artifact_location=(project / "mlruns").as_uri(),
        )
    return project


@pytest.fixture
def project(registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a copy of the project that a test may change; it is the working directory."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(registered / "mlflow.db", folder / "mlflow.db")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    for name in MODEL_FILES:
        monkeypatch.delenv(name, raising=False)
    yield folder
    mlflow.set_tracking_uri("")


def models(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run `pbe models` and return what it prints."""
    assert main(["models", *arguments]) == 0
    return capsys.readouterr().out


def models_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(models(capsys, *arguments, "--json"))


@pytest.mark.usefixtures("project")
def test_the_list_has_a_line_for_each_version(capsys: pytest.CaptureFixture[str]) -> None:
    head, second, first = models(capsys, "list").splitlines()
    assert head.split() == ["version", "aliases", "created", "scores"]
    assert second.split()[:3] == ["2", "challenger,", "champion"]
    assert "FID 1.000" in first
    found = models_json(capsys, "list")
    assert [(each["version"], each["aliases"]) for each in found] == [(2, ["challenger", "champion"]), (1, [])]


@pytest.mark.usefixtures("project")
def test_show_has_the_scores_of_all_methods(capsys: pytest.CaptureFixture[str]) -> None:
    lines = models(capsys, "show", "1").splitlines()
    assert lines[0] == "paint-by-example version 1"
    table = [line.split() for line in lines[-3:]]
    assert table == [["paint_by_example", "copy_paste", "source"], ["FID", "1.000", "2.000", "0.000"],
                     ["CLIP", "score", "85.00", "99.00", "50.00"]]  # fmt: skip
    shown = models_json(capsys, "show")  # the champion
    assert shown["summary"]["version"] == 2
    assert shown["files_exist"] is True


@pytest.mark.usefixtures("project")
def test_compare_shows_differences_with_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    lines = models(capsys, "compare", "1").splitlines()
    assert lines[0] == "version 1 minus version 2, with intervals of 95 %"
    row = next(line for line in lines if line.startswith("identity (higher is better)"))
    assert "worse" in row
    found = models_json(capsys, "compare", "1", "champion")
    identity = next(each for each in found["differences"] if each["metric"] == "identity")
    assert identity["low"] <= identity["difference"] <= identity["high"] < 0


@pytest.mark.usefixtures("project")
def test_promote_and_rollback_move_the_champion(capsys: pytest.CaptureFixture[str]) -> None:
    assert models(capsys, "promote", "1", "--reason", "calmer colours") == (
        "paint-by-example: version 1 is the champion; before it was version 2\n"
    )
    assert models_json(capsys, "show", "champion")["summary"]["promotion"] == "calmer colours"
    moved = models_json(capsys, "rollback", "--reason=blurred")
    assert (moved["version"], moved["previous"]) == (2, 1)
    assert "blurred" in moved["reason"]


@pytest.mark.usefixtures("project")
def test_a_description_is_kept_with_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert models(capsys, "describe", "Trained in May.", "--of=1") == "paint-by-example version 1: described\n"
    assert models_json(capsys, "show", "1")["summary"]["text"] == "Trained in May."
    assert models_json(capsys, "describe", "Tools.")["description"] == "Tools."


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: COMMAND; see: pbe models --help"),
        (["show", "9"], "paint-by-example has no version 9; its versions are 1, 2"),
        (["list", "--name=other"], "no model other"),
        (["compare", "2"], "name two versions"),
        (["promote", "1"], "the following arguments are required: --reason"),
        (["promote"], "the following arguments are required: VERSION, --reason"),
        (["promote", "champion", "--reason=x"], "version 2 is the champion already"),
        (["delete", "1"], "argument COMMAND: invalid choice: 'delete' (choose from 'list', 'show', "),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1


def test_without_a_registry_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("pbe.serving.commands.model_choice._project_registry", lambda: None)
    assert main(["models", "list"]) == 2
    assert "set MLFLOW_TRACKING_URI" in capsys.readouterr().err
