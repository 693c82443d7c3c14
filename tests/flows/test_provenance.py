"""What a run says of its code and data: the commit without the run's outputs, and the hashes of what lies there now."""

import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from flows.provenance import data_version, git_commit, input_hashes, output_hashes

PIPELINE = """
stages:
  encode:
    cmd: cp -r data/curated data/latents
    deps: [data/curated]
    outs: [data/latents]
  train:
    cmd: mkdir -p models reports && cat data/latents/x flows/train.py > models/pbe && cp models/pbe reports/train.json
    params: [steps]
    deps: [data/latents, flows/train.py]
    outs:
      - models/pbe
      - reports/train.json:
          cache: false
  register:
    cmd: cp models/pbe registered.json
    deps: [models/pbe]
    outs: [registered.json]
"""


def git(folder: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository whose pipeline has run, with its outputs and dvc.lock committed."""
    folder = tmp_path_factory.mktemp("project")
    files = {"dvc.yaml": PIPELINE, "params.yaml": "steps: 1", "data/curated/x": "boxes\n", "flows/train.py": "code\n"}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / ".gitignore").write_text("/data\n/models\n/registered.json\n")
    git(folder, "init", "-q")
    git(folder, "config", "user.email", "a@b.c")
    git(folder, "config", "user.name", "A")
    Repo.init(str(folder)).close()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with Repo() as repo:
            repo.reproduce()
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "run")
    return folder


def test_the_outputs_of_a_run_do_not_make_its_commit_dirty(project: Path) -> None:
    commit = git(project, "rev-parse", "HEAD")
    assert git_commit(project) == commit
    for name in ("reports/train.json", "dvc.lock"):
        (project / name).write_text((project / name).read_text() + "\n")
    (project / "untracked.txt").touch()
    assert git_commit(project) == commit
    (project / "flows/train.py").write_text("other code\n")
    assert git_commit(project) == f"{commit}-dirty"
    git(project, "checkout", "-q", "flows/train.py", "reports/train.json", "dvc.lock")


def test_hashes_are_of_what_lies_there_and_not_of_the_last_run(project: Path) -> None:
    locked = {
        out["path"]: out["md5"] for out in yaml.safe_load((project / "dvc.lock").read_text())["stages"]["train"]["outs"]
    }
    assert output_hashes(project, "train") == locked
    assert list(input_hashes(project, "train")) == ["data/latents"]  # neither code nor parameters
    before = input_hashes(project, "train")
    (project / "models/pbe").unlink()
    (project / "models/pbe").write_text("another model")
    (project / "data/latents/x").unlink()
    (project / "data/latents/x").write_text("other latents")
    assert output_hashes(project, "train")["models/pbe"] != locked["models/pbe"]
    assert input_hashes(project, "train") != before


def test_a_version_has_the_hashes_of_what_came_before_it_and_not_of_the_version_before(project: Path) -> None:
    hashes = data_version(project, "register")
    assert set(hashes) == {"data/latents", "models/pbe", "reports/train.json"}
    assert hashes["models/pbe"] == output_hashes(project, "train")["models/pbe"]


def test_outside_git_and_dvc_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) is None
    assert input_hashes(tmp_path, "train") == output_hashes(tmp_path, "train") == data_version(tmp_path, "train") == {}
