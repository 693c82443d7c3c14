"""The names of models that `pbe serve` and Ray Serve take."""

from pathlib import Path

import pytest

from pbe import layout
from pbe.errors import UserError
from pbe.serving.commands.model_choice import default_model
from pbe.serving.service.open_models import model_id, model_sources


@pytest.fixture
def project(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a registry, in which models/pbe is a model."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/pbe").symlink_to(model_folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photo", "photo"),
        ("models/pbe/", "pbe"),
        ("models:/paint-by-example@champion", "paint-by-example"),
        ("models:/paint-by-example@challenger", "paint-by-example@challenger"),
        ("models:/paint-by-example/3", "paint-by-example@3"),
    ],
)
def test_requests_call_a_model_by_a_short_name(name: str, expected: str) -> None:
    assert model_id(name) == expected


@pytest.mark.usefixtures("project")
def test_names_mean_folders_and_registered_models() -> None:
    sources = model_sources(("photo", "models/pbe", "models:/m@champion"))
    assert list(sources) == ["photo", "pbe", "m"]
    assert Path(sources["photo"]).name == Path(layout.PHOTO_PAINTER).name
    assert sources["m"] == "models:/m@champion"


def test_two_models_of_one_name_are_refused(project: Path, model_folder: Path) -> None:
    (project / "other").mkdir()
    (project / "other/pbe").symlink_to(model_folder)
    with pytest.raises(UserError, match="--model other/pbe: models/pbe has the name pbe as well"):
        model_sources(("models/pbe", "other/pbe"))


@pytest.mark.usefixtures("project")
def test_a_model_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="no such folder"):
        model_sources(("models/none",))


@pytest.mark.usefixtures("project")
def test_the_default_is_the_model_of_pbe_edit() -> None:
    choice, _ = default_model()
    assert list(model_sources(())) == [choice.name]
