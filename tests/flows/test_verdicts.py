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


def written(outs: list[str], deps: set[str]) -> list[str]:
    """Return the files that stand for the outputs: those below a folder that are dependencies, or the output itself."""
    below = {out: sorted(dep for dep in deps if dep.startswith(f"{out}/")) for out in outs}
    return [file for out in outs for file in below[out] or [out]]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with the graph of dvc.yaml, and a placeholder for every file that it names."""
    folder = tmp_path_factory.mktemp("pipeline")
    stages = {name: stage | {"cmd": f"python -S stand_in.py {name}"} for name, stage in PIPELINE.items()}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (folder / "stand_in.py").write_text(STAND_IN)
    deps = {dep for stage in PIPELINE.values() for dep in stage["deps"]}
    named = {name: (stage["deps"], written(outputs(stage), deps)) for name, stage in PIPELINE.items()}
    (folder / "stages.json").write_text(json.dumps(named))
    made = {file for name, (_, files) in named.items() for file in (*files, *outputs(PIPELINE[name]))}
    for dep in sorted(deps - made, reverse=True):
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
    assert second.split()[0] == "curate"
    assert set(second.split()) == {"curate", "bench", "encode", "train", "evaluate", "register"}
