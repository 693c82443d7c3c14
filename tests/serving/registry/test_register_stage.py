"""Stage register: what it reads and writes, and how mistakes and bugs end."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from flows.provenance import tracking_uri
from flows.register import BASELINE, register
from pbe import layout
from pbe.errors import UserError
from tests.support.parameters import PARAMETERS
from tests.support.planted_evaluations import planted, write_evaluation


@pytest.fixture
def project(
    tmp_path: Path, model_folder: Path, empty_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Return a project after evaluate, as the working directory."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, layout.MODEL)
    shutil.copy(empty_registry, layout.MLFLOW_DATABASE)
    write_evaluation(planted(1), tmp_path)
    layout.PAGE.write_text("<html>")
    yield tmp_path
    mlflow.set_tracking_uri("")


def test_a_model_is_registered_and_reported_with_its_evaluation(project: Path) -> None:
    layout.LAST_RUN.parent.mkdir(parents=True)
    layout.LAST_RUN.write_text("0" * 32 + "\n")

    counts = register(PARAMETERS, Path())

    assert (counts["name"], counts["version"], counts["alias"]) == ("paint-by-example", 1, "champion")
    registered = json.loads(layout.REGISTERED.read_text())
    assert {**counts, "table": registered["table"]} == registered
    assert {row["metric"] for row in registered["table"]} == {"clip_score", "identity", "fid", "copy_paste_score"}
    assert list((project / "mlruns").rglob("MLmodel"))
    assert list((project / "mlruns").rglob("evaluations/*/index.html"))


@pytest.mark.usefixtures("project")
def test_an_experiment_registers_nothing_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BASELINE, "0" * 40)
    assert register(PARAMETERS, Path())["outcome"] == "experiment"
    registered = json.loads(layout.REGISTERED.read_text())
    assert (registered["version"], registered["promoted"], registered["alias"]) == (None, False, "")
    assert registered["reason"].endswith("After dvc exp apply, run: dvc repro --force --single-item register")
    client = mlflow.MlflowClient(tracking_uri(Path()))
    assert client.search_registered_models() == []
    asked = PARAMETERS.model_copy(update={"register_": PARAMETERS.register_.replace(experiments=True)})
    assert register(asked, Path())["version"] == 1


@pytest.mark.usefixtures("project")
def test_better_equal_and_worse_models_through_the_files_of_the_stages() -> None:
    register(PARAMETERS, Path())
    outcomes = []
    for seed, identity in ((2, 60.0), (3, 58.0), (4, 62.0)):
        (layout.MODEL / "README.md").write_text(f"model {seed}")
        write_evaluation(planted(seed, identity=identity), Path())
        outcomes.append(register(PARAMETERS, Path())["outcome"])

    assert outcomes == ["tie", "worse", "better"]
    assert mlflow.MlflowClient().get_model_version_by_alias("paint-by-example", "champion").version == 4


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (layout.METRICS, None, "reports/metrics.json: no such file; run: dvc repro evaluate"),
        (layout.METRICS, "{", "reports/metrics.json: not a JSON file"),
        (
            layout.EVALUATION / "features.npz",
            None,
            "reports/evaluation/features.npz: no such file; run: dvc repro eval",
        ),
        (
            layout.EVALUATION / "features.npz",
            "x",
            "reports/evaluation/features.npz: damaged .*; run: dvc repro --force",
        ),
        (layout.EVALUATION / "case_scores.parquet", "x", "reports/evaluation/case_scores.parquet: damaged"),
        (layout.MODEL, None, "models/pbe: holds no model; train one first"),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_missing_or_damaged_input_is_named(path: Path, content: str | None, message: str) -> None:
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

    monkeypatch.setattr("pbe.serving.registry.version_evaluations._flatten", fail)
    with pytest.raises(ValueError, match="could not be broadcast") as raised:
        register(PARAMETERS, Path())
    assert not isinstance(raised.value, UserError)
