"""Which model `pbe edit` uses when none is named, and how a large picture comes out of it."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image as PILImage

from pbe.errors import UnavailableError, UserError
from pbe.layout import PHOTO_PAINTER
from pbe.serving.commands import model_choice
from pbe.serving.commands.main import main
from pbe.serving.commands.model_choice import CHAMPION, ModelChoice, default_model, named_model
from pbe.serving.registry import registered_models
from tests.support.parameters import ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty project; the working directory is a folder in it, and the checkout of the tests is not seen."""
    folder = tmp_path / "project"
    (folder / "pictures").mkdir(parents=True)
    monkeypatch.chdir(folder / "pictures")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(model_choice, "__file__", str(tmp_path / "site-packages/pbe/serving/commands/model_choice.py"))
    return folder


@pytest.fixture
def bundled(project: Path, model_folder: Path) -> Path:
    """Return the bundled painter of the project, a copy of the tests' model."""
    return Path(shutil.copytree(model_folder, project / PHOTO_PAINTER))


def register_champion(project: Path, champion: Path) -> None:
    """Register a model with the alias `champion`, as far as the editor reads it."""
    model = project / "mlruns/m-1"
    shutil.copytree(champion, model / "artifacts/pbe")
    (model / "MLmodel").write_text(
        "flavors:\n  python_function:\n    artifacts:\n      painter:\n        path: artifacts/pbe\n"
    )
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    client.create_registered_model("paint-by-example")
    client.create_model_version("paint-by-example", str(model))
    client.set_registered_model_alias("paint-by-example", "champion", "1")


def test_without_a_registry_the_bundled_painter_is_the_default(bundled: Path) -> None:
    choice, text = default_model()
    assert choice == ModelChoice(bundled, "photo")
    assert text == f"the bundled painter of photographs ({bundled}): there is no registered champion"


def test_the_champion_comes_before_the_bundled_painter(
    project: Path, bundled: Path, model_folder: Path, empty_registry: Path
) -> None:
    shutil.copy(empty_registry, project / "mlflow.db")
    assert default_model()[0].folder == bundled  # a registry without a champion

    register_champion(project, model_folder)
    champion = ModelChoice(project / "mlruns/m-1/artifacts/pbe", "paint-by-example", "1")
    assert default_model() == (champion, f"the champion ({CHAMPION})")
    assert named_model("photo").folder == bundled


def test_a_pulled_clone_without_its_registry_uses_the_champion_that_it_has(
    project: Path, bundled: Path, model_folder: Path, empty_registry: Path
) -> None:
    pulled = Path(shutil.copytree(model_folder, project / "models/pbe"))
    registered = project / "reports/registered.json"
    registered.parent.mkdir()
    registered.write_text('{"name": "paint-by-example", "version": 3, "promoted": false}')
    assert default_model()[0].folder == bundled
    registered.write_text('{"name": "paint-by-example", "version": 3, "promoted": true}')
    choice, text = default_model()
    assert choice == ModelChoice(pulled, "paint-by-example", "3")
    assert text == f"the champion that was pulled ({pulled}): it is of another registry"
    shutil.copy(empty_registry, project / "mlflow.db")
    assert default_model()[0] == choice
    register_champion(project, model_folder)
    registered.write_text('{"name": "paint-by-example", "version": 1, "promoted": true}')
    mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}").delete_registered_model_alias(
        "paint-by-example", "champion"
    )
    assert default_model()[0].folder == bundled  # it is of this registry, which has no champion any more


@pytest.mark.usefixtures("bundled")
def test_a_champion_whose_files_are_gone_is_not_replaced_silently(
    project: Path, model_folder: Path, empty_registry: Path
) -> None:
    shutil.copy(empty_registry, project / "mlflow.db")
    register_champion(project, model_folder)
    shutil.rmtree(project / "mlruns")
    with pytest.raises(registered_models.MissingFilesError, match="run dvc repro --force --single-item register"):
        default_model()


@pytest.mark.usefixtures("bundled")
def test_a_registry_that_does_not_answer_is_not_replaced_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match="does not answer"):
        default_model()


def test_without_any_model_one_line_says_what_to_do(project: Path) -> None:
    (project / PHOTO_PAINTER).mkdir(parents=True)
    (project / PHOTO_PAINTER / "README.md").touch()
    with pytest.raises(UserError, match="no registered champion and no data/photo-painter; give --model a folder"):
        default_model()
    with pytest.raises(UserError, match=r"--model photo: there is no data/photo-painter in /.*pictures or above it"):
        named_model("photo")


def test_an_installed_package_carries_the_painter(project: Path, model_folder: Path) -> None:
    packaged = Path(model_choice.__file__).parents[1] / "photo-painter"
    shutil.copytree(model_folder, packaged)
    assert default_model()[0].folder == named_model("photo").folder == packaged
    shutil.copytree(model_folder, project / PHOTO_PAINTER)
    assert named_model("photo").folder == project / PHOTO_PAINTER  # that of the project comes first


def test_the_painter_of_the_package_is_the_one_of_the_checkout() -> None:
    packaged = ROOT / "pbe/serving/photo-painter"
    assert packaged.resolve() == ROOT / PHOTO_PAINTER


def test_the_bundled_painter_of_the_checkout_serves_any_folder(
    project: Path, bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UserError):
        default_model()
    monkeypatch.setattr(model_choice, "__file__", str(project / "pbe/serving/commands/model_choice.py"))
    assert default_model()[0].folder == bundled


LARGE_PX = 2048
HOLE = np.s_[900:1000, 1200:1330]


def write_large_picture(folder: Path) -> None:
    """Write a picture of 2048 px whose mask is a small window, and an exemplar."""
    y, x = np.mgrid[:LARGE_PX, :LARGE_PX]
    PILImage.fromarray(np.stack([x % 251, y % 241, (x + y) % 239], -1).astype(np.uint8)).save(folder / "s.bmp")
    mask = np.zeros((LARGE_PX, LARGE_PX), np.uint8)
    mask[HOLE] = 255
    PILImage.fromarray(mask).save(folder / "m.bmp")
    PILImage.fromarray(np.full((30, 20, 3), (200, 40, 40), np.uint8)).save(folder / "e.png")


@pytest.mark.usefixtures("bundled")
def test_of_a_large_picture_the_default_model_changes_the_masked_window_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_large_picture(tmp_path)
    images = [f"--{name}={tmp_path / file}" for name, file in
              (("source", "s.bmp"), ("mask", "m.bmp"), ("exemplar", "e.png"), ("out", "o.bmp"))]  # fmt: skip
    assert main(["edit", *images, "--num-steps=2"]) == 0

    source, out = (np.array(PILImage.open(tmp_path / file)) for file in ("s.bmp", "o.bmp"))
    assert (out[HOLE] != source[HOLE]).any(-1).mean() > 0.9
    out[HOLE] = source[HOLE]
    assert np.array_equal(out, source)
    assert capsys.readouterr().err.startswith("note: using the bundled painter of photographs (")
