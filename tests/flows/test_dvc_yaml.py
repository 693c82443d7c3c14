"""dvc.yaml against the design and the code: the stages, their imports, and what git ignores."""

import re
import subprocess
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from flows.pipeline import STAGES
from pbe.runtime.code_digest import NO_RESULT
from tests.support.parameters import PARAMETERS
from tests.support.toy_project import ROOT

DESIGN = ["acquire", "filter", "curate", "backbone", "encode", "train", "bench", "evaluate", "register"]
# These decide how a stage runs, not its output; DVC tracks the settings' values as parameters.
_MODULES = "artifacts environment inputs interruption output progress provenance server stage"
MACHINERY = {f"flows.{name}" for name in _MODULES.split()}


def resolved(text: str) -> str:
    """Return dvc.yaml with the values of params.yaml in place of `${section.key}`."""
    parameters = PARAMETERS.model_dump(by_alias=True)
    return re.sub(r"\$\{(\w+)\.(\w+)\}", lambda match: str(parameters[match[1]][match[2]]), text)


PIPELINE: dict[str, dict[str, Any]] = yaml.safe_load(resolved((ROOT / "dvc.yaml").read_text()))["stages"]


def named(entries: list[Any]) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def outputs(stage: dict[str, Any]) -> list[str]:
    return named([*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])])


def test_the_stages_are_the_designs_in_order() -> None:
    assert list(PIPELINE) == DESIGN
    assert all(PIPELINE[name]["cmd"] == f"python -m flows.{name}" for name in DESIGN)


def test_the_pipeline_runs_every_stage_after_what_it_reads() -> None:
    assert sorted(STAGES) == sorted(DESIGN)
    made: set[str] = set()
    every = {out for stage in PIPELINE.values() for out in outputs(stage)}
    for name in STAGES:
        assert set(PIPELINE[name]["deps"]) & every <= made, name
        made |= set(outputs(PIPELINE[name]))


def imported_files(stage: str) -> set[Path]:
    """Return the files that a stage's flow imports, directly or not, and that can change its output."""
    graph = grimp.build_graph("pbe", "flows", cache_dir=None, exclude_type_checking_imports=True)
    modules = {f"flows.{stage}"} | graph.find_upstream_modules(f"flows.{stage}") - MACHINERY
    modules = {module for module in modules if not f"{module}.".startswith(tuple(f"{each}." for each in NO_RESULT))}
    files = {Path(*module.split(".")).with_suffix(".py") for module in modules}
    return {file for file in files if (ROOT / file).is_file()}  # the file of a package holds its docstring alone


def code_deps(stage: str) -> set[Path]:
    return {Path(dep) for dep in PIPELINE[stage]["deps"] if dep.startswith(("pbe/", "flows/"))}


@pytest.mark.parametrize("name", DESIGN)
def test_every_file_a_stage_imports_is_among_its_deps(name: str) -> None:
    assert [str(file) for file in sorted(imported_files(name)) if not code_deps(name) & {file, *file.parents}] == []


@pytest.mark.parametrize("name", DESIGN)
def test_every_code_dep_is_a_file_or_folder_that_the_stage_imports(name: str) -> None:
    reached = {path for file in imported_files(name) for path in (file, *file.parents)}
    served = {Path("pbe/serving/pyfunc.py")} if name == "register" else set()  # MLflow loads it by its path
    assert [str(dep) for dep in sorted(code_deps(name)) if dep not in reached | served] == []


def test_every_parameter_is_a_setting() -> None:
    known: Any = PARAMETERS.model_dump(by_alias=True)
    for stage in PIPELINE.values():
        for key in stage["params"]:
            tree = known
            for part in key.split("."):
                assert part in tree, key
                tree = tree[part]


def test_git_ignores_every_cached_output_and_nothing_that_it_tracks(tmp_path: Path) -> None:
    """Otherwise DVC would add .gitignore files, and a repro would leave untracked files in git's status."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    for stage in PIPELINE.values():
        for entry in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
            options = {} if isinstance(entry, str) else next(iter(entry.values()))
            assert ignored(tmp_path, named([entry])[0]) == options.get("cache", True), entry
    assert not ignored(tmp_path, "data/photo/vae/config.json")
    assert not ignored(tmp_path, "data/tiny/vae/config.json")


def ignored(repository: Path, path: str) -> bool:
    return subprocess.run(["git", "check-ignore", "--quiet", path], cwd=repository).returncode == 0
