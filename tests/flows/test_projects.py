"""The projects below projects/: folders with their own parameters and outputs, and the checkout's stages and code."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from flows.pipeline import stale
from pbe import layout
from pbe.settings import load_settings
from tests.flows.test_dvc_yaml import PIPELINE, ignored, outputs
from tests.support.toy_project import ROOT

PROJECTS = sorted(path.parent for path in (ROOT / "projects").glob("*/params.yaml"))
MADE = {path for stage in PIPELINE.values() for path in outputs(stage)}
TOY = "stages: {acquire: {cmd: cp naps.txt out, deps: [naps.txt, code/toy.py], outs: [out]}}"


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_a_project_has_every_parameter_and_all_that_the_stages_read(project: Path) -> None:
    load_settings(project / layout.PARAMS)
    for link in ("dvc.yaml", "flows", "pbe", "prefect.toml"):
        assert not (project / link).readlink().is_absolute(), link
        assert (project / link).resolve() == ROOT / link
    needed = {dep for stage in PIPELINE.values() for dep in stage["deps"]}
    inputs = {dep for dep in needed if not any(Path(dep).is_relative_to(made) for made in MADE)}
    assert [dep for dep in sorted(inputs) if not (project / dep).exists()] == []


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_git_ignores_the_same_outputs_in_a_project(project: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    folder = project.relative_to(ROOT)
    assert not ignored(tmp_path, f"{folder}/data/tiny")
    for path in [*MADE, "data/verdicts.csv", "dvc.lock", "mlflow.db", ".prefect/prefect.db"]:
        assert ignored(tmp_path, f"{folder}/{path}") == ignored(tmp_path, path), path


def test_a_project_runs_by_the_checkouts_dvc_yaml_and_keeps_its_own_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "projects/inner"
    for folder in (tmp_path / ".dvc", tmp_path / "code", inner):
        folder.mkdir(parents=True)
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (tmp_path / "code/toy.py").touch()
    (tmp_path / "dvc.yaml").write_text(TOY)
    for name in ("code", "dvc.yaml"):
        (inner / name).symlink_to(os.path.relpath(tmp_path / name, inner))
    for folder, text in ((tmp_path, "outer"), (inner, "inner")):
        (folder / "naps.txt").write_text(text)
    monkeypatch.chdir(inner)
    with Repo() as repo:
        assert repo.reproduce(targets=["acquire"], single_item=True)
        assert not repo.reproduce(targets=["acquire"], single_item=True)
    assert (inner / "out").read_text() == "inner"
    assert "acquire" in yaml.safe_load((inner / "dvc.lock").read_text())["stages"]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "dvc.lock").exists()
    assert stale(["acquire"]) == []
    monkeypatch.chdir(tmp_path)
    assert stale(["acquire"]) == ["acquire"]
