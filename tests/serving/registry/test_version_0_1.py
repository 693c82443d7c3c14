"""A model that version 0.1 registered (golden_0_1) still paints, and can be listed, promoted and rolled back."""

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from safetensors.torch import load_file

from pbe.method.painter import Painter
from pbe.serving.commands.main import main
from pbe.serving.registry.registered_models import find_version

GOLDEN = Path(__file__).parent / "golden_0_1"
VERSION = json.loads((GOLDEN / "version.json").read_text())


@pytest.fixture
def project(images: Path, empty_registry: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project of 0.1 with two versions, the first of them champion; it is the working directory."""
    shutil.copy(empty_registry, images / "mlflow.db")
    monkeypatch.chdir(images)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = mlflow.MlflowClient(f"sqlite:///{images / 'mlflow.db'}")
    client.create_registered_model(VERSION["name"])
    for number in ("1", "2"):
        model = shutil.copytree(GOLDEN / "model", images / f"mlruns/1/models/m-{number}/artifacts")
        client.create_model_version(VERSION["name"], str(model), tags=VERSION["tags"])
    for alias in VERSION["aliases"]:
        client.set_registered_model_alias(VERSION["name"], alias, "1")
    return images


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_its_champion_paints_as_the_default(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "edit --source s.png --mask m.png --exemplar e.jpg --out o.png --num-steps 4 --json"
    line = json.loads(printed(capsys, *words.split()))
    assert line["model"]["name"] == VERSION["name"]
    assert line["model"]["version"] == "1"
    assert line["changed_outside"] == 0
    source, mask, out = (np.asarray(PILImage.open(project / name)) for name in ("s.png", "m.png", "o.png"))
    assert (out[mask == 0] == source[mask == 0]).all()
    assert (out[mask == 255] != source[mask == 255]).any(-1).mean() > 0.9


def test_its_folder_is_read_with_all_weights() -> None:
    folder = GOLDEN / "model/artifacts/pbe"
    painter = Painter.from_pretrained(folder)
    assert painter.image_px == 32
    for part, file in ((painter.unet, "unet/diffusion_pytorch_model"), (painter.conditioner, "image_encoder/model")):
        saved = load_file(folder / f"{file}.safetensors")
        assert saved.keys() == part.state_dict().keys()
        assert all(torch.equal(tensor, saved[name]) for name, tensor in part.state_dict().items())


@pytest.mark.usefixtures("project")
def test_its_metrics_and_the_reason_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(printed(capsys, "models", "list", "--json"))
    assert "0.013" in json.dumps(listed)
    shown = printed(capsys, "models", "show", "champion")
    assert VERSION["tags"]["git_commit"] in shown
    assert "Promoted, the first champion" in shown


def test_it_is_promoted_and_rolled_back(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    champion = f"models:/{VERSION['name']}@champion"
    for words, number in (("promote 2 --reason better", 2), ("rollback --reason blurred", 1)):
        printed(capsys, "models", *words.split())
        found = find_version(champion, tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
        assert found
        assert found.version == number


@pytest.mark.usefixtures("project")
def test_a_comparison_says_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    expected = "version 1 and version 2: not comparable: version 1 carries no scores of single cases\n"
    assert printed(capsys, "models", "compare", "1", "2") == expected
