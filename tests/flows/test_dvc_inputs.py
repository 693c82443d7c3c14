"""DVC sees the contents of a bench, of real images and of an encoder wherever they lie, by the paths in params.yaml."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image as PillowImage

from pbe.evaluation.benches.bench import source_path
from tests.support.benches import make_case, write_bench
from tests.support.toy_project import ROOT, Project

STATUS = """
import json
from dvc.repo import Repo
repo = Repo(".")
{0}
print("STATUS", json.dumps(repo.status()))
"""


def evaluate_stage() -> dict[str, Any]:
    """Return the stage as dvc.yaml has it, with another command and without the code among its dependencies."""
    stage: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["evaluate"]
    paths = [dep for dep in stage["deps"] if dep.startswith("${")]
    return {"cmd": "echo done > out.txt", "params": stage["params"], "deps": paths, "outs": ["out.txt"]}


def status(project: Project, before: str = "") -> dict[str, Any]:
    """Run `before` with `repo`, and return what DVC says has changed."""
    ended = project.run("python", "-c", STATUS.format(before))
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.rpartition("STATUS ")[2])
    return found


@pytest.mark.parametrize("is_absolute", [True, False])
def test_one_changed_pixel_in_a_bench_outside_the_project_makes_evaluate_stale(
    tmp_path: Path, is_absolute: bool
) -> None:
    folder, outside = tmp_path / "project", write_bench(tmp_path / "bench", (7, 8))
    for path in (folder / ".dvc", folder / "real", folder / "encoder"):
        path.mkdir(parents=True)
        (path / "file").touch()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": evaluate_stage()}}))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    bench = str(outside) if is_absolute else os.path.relpath(outside, folder)
    params["evaluate"] |= {"bench": bench, "real": "real", "encoder": "encoder"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    project = Project(folder, None)

    assert status(project, "repo.reproduce()") == {}
    pixels = make_case(8).source
    pixels[0, 0, 0] ^= 1
    PillowImage.fromarray(pixels).save(source_path(outside, 8))
    (changed,) = status(project)["evaluate"]
    assert list(changed["changed deps"].values()) == ["modified"]
    assert str(outside) in {bench, *changed["changed deps"]}
