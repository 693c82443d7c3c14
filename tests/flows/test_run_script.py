"""flows/run.sh finds the interpreter of the environment, whatever PATH says: a worker's PATH does not name it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.toy_project import ROOT

ENVIRONMENT = Path(sys.executable).parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project of one stage, which ends after its imports: its parameters are wrong."""
    for package in ("flows", "pbe"):
        (tmp_path / package).symlink_to(ROOT / package)
    (tmp_path / "params.yaml").write_text("sead: 1")
    (tmp_path / "dvc.yaml").write_text("stages: {filter: {cmd: sh flows/run.sh filter}}")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return tmp_path


def run(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], "PREFECT_HOME": str(folder / ".prefect"), **variables}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_dvc_repro_needs_no_environment_on_path(project: Path) -> None:
    ended = run(project, str(ENVIRONMENT / "dvc"), "repro")
    assert "error: params.yaml: seed: missing" in ended.stderr
    assert "exited with 2" in ended.stderr


def test_a_named_interpreter_comes_first(project: Path, tmp_path: Path) -> None:
    named = tmp_path / "python"
    named.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} "$@"\necho "$@"\n')
    named.chmod(0o755)
    assert run(project, "sh", "flows/run.sh", "filter", PBE_PYTHON=str(named)).stdout == "-m flows.filter\n"


def test_without_any_environment_the_error_is_one_line(tmp_path: Path) -> None:
    """A copy of the script that asks no parent process, and has no checkout around it."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/run.sh").write_text((ROOT / "flows/run.sh").read_text().replace("process=$PPID", "process=1"))
    ended = run(tmp_path, "sh", "flows/run.sh", "filter")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no Python here has the project's packages; run make install")
    assert ended.stderr.count("\n") == 1
