"""The evaluation of a given model: what it sees, where its report is, and what a version keeps."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flows import evaluate_model as module
from flows.evaluate_model import COPIES, REPORTS, evaluate_named, prepare_copy, slug
from pbe import layout
from pbe.errors import UserError
from pbe.serving.commands.model_choice import ModelChoice
from pbe.settings import Settings
from pbe.types import no_progress_bars
from tests.support.parameters import PARAMETERS


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with a trained model, its report, and another model."""
    monkeypatch.chdir(tmp_path)
    for name in ("models/pbe/weights", "models/backbone/weights", "data/bench/cases.csv", "reports/train.json",
                 "reports/index.html", "other/weights"):  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    return tmp_path


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the evaluation sees; it takes the place of the real one, which paints for minutes."""
    seen: dict[str, Any] = {}

    def evaluate(settings: Settings, folder: Path, bars: Any) -> dict[str, int]:
        seen["model"] = (folder / layout.MODEL / "weights").read_text()
        seen["bench"] = (folder / "data/bench/cases.csv").read_text()
        seen["num_cases"] = settings.evaluate.num_cases
        seen["report before"] = (folder / layout.PAGE).exists()
        (folder / layout.PAGE).write_text("report")
        return {"fid": 1}

    monkeypatch.setattr(module, "evaluate", evaluate)
    monkeypatch.setattr(module, "publish_gallery", lambda path: None)
    monkeypatch.setattr(module, "store", lambda chosen, copy, uri: seen.update(stored=chosen.version))
    return seen


run = partial(evaluate_named, PARAMETERS, Path(), no_progress_bars)


def test_a_folder_is_evaluated_beside_the_projects_own_model(project: Path, seen: dict[str, Any]) -> None:
    assert run(model="other", num_cases=5) == {"fid": 1}
    assert seen == {"model": "other/weights", "bench": "data/bench/cases.csv", "num_cases": 5, "report before": False}
    assert (project / REPORTS / "other/index.html").read_text() == "report"
    assert (project / layout.PAGE).read_text() == "reports/index.html"
    assert (project / layout.MODEL / "weights").read_text() == "models/pbe/weights"
    run(model="other", num_cases=None)  # again, over what the first run has left
    assert not (project / COPIES / "other/reports/models").exists()


def test_only_the_whole_evaluation_of_a_version_is_stored_with_it(
    project: Path, seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "named_model", lambda name: ModelChoice(project / "other", "paint-by-example", "3"))
    run(model="models:/paint-by-example/3", num_cases=5)
    assert "stored" not in seen
    run(model="models:/paint-by-example/3", num_cases=None)
    assert seen["stored"] == "3"
    assert (project / REPORTS / "paint-by-example-3/index.html").is_file()


@pytest.mark.usefixtures("project")
def test_a_model_that_does_not_exist_is_an_error_of_the_user() -> None:
    with pytest.raises(UserError, match="missing: no such folder"):
        run(model="missing", num_cases=None)


def test_the_name_of_a_folder_has_no_separators(project: Path) -> None:
    assert slug(ModelChoice(Path(), "../runs/a b")) == "runs-a-b"
    assert slug(ModelChoice(Path(), "paint-by-example", "12")) == "paint-by-example-12"
    shutil.rmtree(prepare_copy(project, ModelChoice(project / "other", "other")))
    assert (project / "models/pbe/weights").is_file()
