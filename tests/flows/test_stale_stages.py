"""Which stages become stale when a file, a parameter or an output is touched.

Only the stages that read it directly are stale; those after them follow when an output changes.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from pbe.settings import Settings
from tests.flows.test_dvc_yaml import DESIGN, outputs
from tests.support.stage_inputs import PIPELINE, ROOT, leaves, no_result_keys, tracked_keys

FILES = {
    "pbe/interchange/ldm.py": "",  # `pbe import` and `pbe export` alone
    "pbe/interchange/folder.py": "evaluate",
    "pbe/settings.py": "",
    "pbe/runtime/files.py": "",
    "pbe/errors.py": "",
    "flows/stage.py": "",
    "flows/pipeline.py": "",
    "flows/train.py": "train",
    "pbe/acquisition/stores.py": "acquire",
    "pbe/filtering/box_rules.py": "filter",
    "pbe/curation/app.py": "",  # `pbe browse` alone
    "pbe/curation/quality.py": "curate",
    "pbe/dataset/attributions.py": "",
    "pbe/latents/encoding.py": "encode",
    "pbe/latents/samples.py": "encode train",
    "pbe/method/masks.py": "encode train",
    "pbe/method/conditioner.py": "curate encode train evaluate",
    "pbe/method/guidance.py": "train evaluate",
    "pbe/method/backbone.py": "backbone train evaluate",
    "pbe/training/loop.py": "train",
    "pbe/evaluation/metrics/identity.py": "evaluate",
    "pbe/evaluation/metrics/kid.py": "evaluate register",
    "pbe/evaluation/report/page.html.j2": "evaluate",
    "pbe/evaluation/benches/case_selection.py": "bench",
    "pbe/serving/editor.py": "",
    "pbe/serving/page/page.py": "",
    "pbe/serving/registry/gate.py": "register",
    "pbe/demo/scenes.py": "acquire bench evaluate",
    "data/verdicts.csv": "curate",
    "data/tiny/attribute_classifier/file": "backbone evaluate",
}
OUTPUTS = {
    "data/raw": "filter curate encode train bench evaluate",
    "data/boxes": "curate",
    "data/curated": "encode train bench evaluate",
    "models/backbone": "curate encode train evaluate",
    "data/latents": "train",
    "models/pbe": "evaluate register",
    "data/bench": "evaluate",
    "reports/metrics.json": "register",
    "reports/train.json": "",
    "reports/scores.json": "",
}
SECTIONS = {
    "seed": "acquire filter encode train bench evaluate register",
    "acquire": "acquire",
    "filter": "filter",
    "curate": "curate",
    "backbone": "backbone register",
    "method": "encode train",
    "encode": "encode",
    "train": "train",
    "bench": "bench",
    "evaluate": "evaluate",
    "register": "register",
}
PARAMETERS = {
    "acquire.workers": "",
    "encode.num_workers": "",
    "encode.draw_workers": "",
    "train.storage": "",
    "train.loader_threads": "",
    "train.checkpoint_every": "",
    "train.keep_checkpoints": "",
    "evaluate.num_workers": "",
    "method.image_px": "encode train bench",
    "method.exemplar.pad_frac": "encode train bench",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with the checkout's code and dvc.yaml, in which DVC takes every stage for done."""
    folder = tmp_path_factory.mktemp("project")
    for package in ("pbe", "flows"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    made = {path for stage in PIPELINE.values() for path in outputs(stage)}
    for path in made | {dep for stage in PIPELINE.values() for dep in stage["deps"]}:
        _make(folder / path)
    _make(folder / "data/tiny/attribute_classifier/file")
    with chdir(folder), Repo() as repo:
        repo.commit(force=True)
        assert repo.status() == {}
    return folder


def _make(path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        path.write_text("made\n")
    else:
        path.mkdir()
        (path / "file").write_text("made\n")


def stale(project: Path) -> str:
    """Return the stages whose dependencies DVC says have changed, in the pipeline's order."""
    with chdir(project), Repo() as repo:
        changed: Mapping[str, list[Any]] = repo.status()
    read = {name for name, what in changed.items() if any("changed deps" in each for each in what)}
    return " ".join(name for name in DESIGN if name in read)


@pytest.fixture
def edited(project: Path) -> Iterator[Path]:
    """Return the project; parameters are what they were afterwards."""
    before = (project / "params.yaml").read_text()
    yield project
    (project / "params.yaml").write_text(before)


def touch(path: Path) -> bytes:
    """Change a file's content, or that of a file in a folder; return what it was."""
    file = path / "file" if path.is_dir() else path
    before = file.read_bytes()
    file.write_bytes(before + b"# a comment\n")
    return before


@pytest.mark.parametrize(("path", "stages"), (FILES | OUTPUTS).items())
def test_a_file_makes_the_stages_stale_that_use_it(path: str, stages: str) -> None:
    assert (ROOT / path).exists() or path in OUTPUTS or path.endswith("/file")
    above = {path, *map(str, Path(path).parents)}
    assert " ".join(name for name in DESIGN if above & set(PIPELINE[name]["deps"])) == stages


def test_dvc_says_the_same_of_files(project: Path) -> None:
    for group in ([path for path, stages in FILES.items() if not stages], ["pbe/method/masks.py"], ["data/latents"]):
        before = {path: touch(project / path) for path in group}
        assert stale(project) == (FILES | OUTPUTS)[group[0]]
        for path, content in before.items():
            (project / path / "file" if path in OUTPUTS else project / path).write_bytes(content)


def test_dvc_does_not_rerun_a_stage_for_parameters_that_change_no_result(edited: Path) -> None:
    content = yaml.safe_load((edited / "params.yaml").read_text())
    for key in no_result_keys():
        section, name = key.split(".")
        content[section][name] = "elsewhere" if name == "storage" else content[section][name] + 1
    (edited / "params.yaml").write_text(yaml.safe_dump(content))
    assert stale(edited) == ""
    content["train"]["lr"] *= 2
    (edited / "params.yaml").write_text(yaml.safe_dump(content))
    assert stale(edited) == "train"


def test_every_parameter_makes_the_stages_stale_that_use_it() -> None:
    tracked = {name: tracked_keys(name) for name in DESIGN}
    for section, field in Settings.model_fields.items():
        name = field.alias or section
        for key in keys_of(name):
            found = " ".join(stage for stage in DESIGN if key in tracked[stage])
            assert found == PARAMETERS.get(key, SECTIONS[name]), key


def keys_of(section: str) -> list[str]:
    return [key for key in leaves() if key.split(".")[0] == section]
