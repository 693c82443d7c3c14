"""Experiments that DVC lists and applies, though no pipeline ran in the workspace."""

import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

from flows.experiments import record_experiment

PARAMS = "seed: 0\ntrain:\n  steps: 5  # of AdamW\n"
METRICS = '{"identity": 10.0}\n'


def git(folder: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "user.email", "a@b.c")
    git(tmp_path, "config", "user.name", "A")
    Repo.init(str(tmp_path)).close()
    (tmp_path / "reports").mkdir()
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "reports/scores.json").write_text(METRICS)
    (tmp_path / "dvc.yaml").write_text("params:\n  - params.yaml\nmetrics:\n  - reports/scores.json\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "start")
    return tmp_path


def test_dvc_lists_an_experiment_and_applies_it(project: Path) -> None:
    for identity in (50.0, 60.0):  # the second replaces the first
        assert record_experiment(project, "prior-1", {"seed": 1, "train.steps": 9}, {"identity": identity})
    assert git(project, "status", "--short") == ""
    with Repo(str(project)) as repo:
        listed = repo.experiments.ls()
        assert [name for names in listed.values() for name, _ in names] == ["prior-1"]
        repo.experiments.apply("prior-1")
    assert (project / "params.yaml").read_text() == "seed: 1\ntrain:\n  steps: 9  # of AdamW\n"
    assert '"identity": 60.0' in (project / "reports/scores.json").read_text()


def test_outside_git_there_are_no_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert not record_experiment(tmp_path, "prior-1", {}, {})
