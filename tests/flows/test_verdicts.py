"""A reviewer's verdict and the next `dvc repro`: the project's dvc.yaml, with stages that only digest their inputs."""

import json

import pytest
import yaml

from pbe.curation.verdicts import write_verdicts
from pbe.layout import VERDICTS
from tests.flows.test_dvc_yaml import PIPELINE, outputs
from tests.support.toy_project import ROOT, Project

STAND_IN = """
import hashlib, json, sys
from pathlib import Path
deps, outs = json.loads(Path("stages.json").read_text())[sys.argv[1]]
digest = hashlib.sha256(b"".join(Path(dep).read_bytes() for dep in deps if Path(dep).is_file())).hexdigest()
for out in outs:
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(digest + out)
with open("ran.txt", "a") as ran:
    ran.write(sys.argv[1] + " ")
"""


TWICE = """
from pathlib import Path
from dvc.repo import Repo
from pbe.layout import VERDICTS
from pbe.curation.verdicts import write_verdicts
Repo(".").reproduce()
write_verdicts(VERDICTS, {("image", "train", "0011"): "reject"})
with open("ran.txt", "a") as ran:
    ran.write("|")
Repo(".").reproduce()
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with the graph of dvc.yaml, and a placeholder for every file that it names."""
    folder = tmp_path_factory.mktemp("pipeline")
    stages = {name: stage | {"cmd": f"python -S stand_in.py {name}"} for name, stage in PIPELINE.items()}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (folder / "stand_in.py").write_text(STAND_IN)
    named = {name: (stage["deps"], outputs(stage)) for name, stage in PIPELINE.items()}
    (folder / "stages.json").write_text(json.dumps(named))
    made = {out for _, outs in named.values() for out in outs}
    for dep in sorted({dep for deps, _ in named.values() for dep in deps} - made, reverse=True):
        if not (folder / dep).exists():  # the folder of an earlier dependency
            (folder / dep).parent.mkdir(parents=True, exist_ok=True)
            (folder / dep).write_text(dep)
    write_verdicts(folder / VERDICTS, {})
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return Project(folder, None)


def test_a_verdict_reruns_only_curate_and_the_stages_that_depend_on_it(pipeline: Project) -> None:
    ended = pipeline.run("python", "-c", TWICE)
    assert ended.returncode == 0, ended.stderr
    first, second = (pipeline.folder / "ran.txt").read_text().split("|")
    assert set(first.split()) == set(PIPELINE)
    assert second.split() == ["curate", "encode", "train", "bench", "evaluate", "register"]
