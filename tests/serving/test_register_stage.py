"""Stage register: what it reads and writes, and how mistakes and bugs end."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from flows.register import register
from pbe import layout
from pbe.errors import UserError
from tests.support.parameters import PARAMETERS

METRICS = {
    "methods": {
        "paint_by_example": {"fid": 2.0, "clip_score": 70.0, "unmasked_max_abs_diff": 0},
        "copy_paste": {"fid": 3.0},
        "source": {"clip_score": 50.0},
    }
}


@pytest.fixture
def project(
    tmp_path: Path, model_folder: Path, empty_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Return a project after evaluate, as the working directory."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, layout.MODEL)
    shutil.copy(empty_registry, layout.MLFLOW_DATABASE)
    layout.METRICS.parent.mkdir()
    layout.METRICS.write_text(json.dumps(METRICS))
    yield tmp_path
    mlflow.set_tracking_uri("")


def test_a_model_is_registered_and_reported(project: Path) -> None:
    layout.LAST_RUN.parent.mkdir(parents=True)
    layout.LAST_RUN.write_text("0" * 32 + "\n")

    counts = register(PARAMETERS, Path())

    assert (counts["name"], counts["version"], counts["alias"]) == ("paint-by-example", 1, "champion")
    assert json.loads(layout.REGISTERED.read_text()) == counts
    assert list((project / "mlruns").rglob("MLmodel"))


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (layout.METRICS, None, "reports/metrics.json: no such file; run: dvc repro evaluate"),
        (layout.METRICS, "{", "reports/metrics.json: not JSON"),
        (layout.MODEL, None, "models/pbe: holds no model; train one first"),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_missing_input_is_named(path: Path, content: str | None, message: str) -> None:
    if content is not None:
        path.write_text(content)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()

    with pytest.raises(UserError, match=f"^{message}"):
        register(PARAMETERS, Path())
    assert not layout.REGISTERED.exists()


@pytest.mark.usefixtures("project")
def test_a_bug_is_no_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        np.zeros(2) + np.zeros(3)

    monkeypatch.setattr("pbe.serving.registry._flatten", fail)
    with pytest.raises(ValueError, match="could not be broadcast") as raised:
        register(PARAMETERS, Path())
    assert not isinstance(raised.value, UserError)
