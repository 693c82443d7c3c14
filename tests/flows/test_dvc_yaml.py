"""dvc.yaml against the design and the code: what each stage uses, and what git ignores."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from flows.pipeline import STAGES
from flows.scores import SCORES
from tests.support.stage_inputs import PIPELINE, ROOT, code_deps, imported_files, leaves, parameters, tracked_keys

DESIGN = ["acquire", "filter", "curate", "backbone", "encode", "train", "bench", "evaluate", "register"]


def named(entries: list[Any]) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def outputs(stage: dict[str, Any]) -> list[str]:
    return named([*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])])


def test_the_stages_are_the_designs_in_order() -> None:
    assert list(PIPELINE) == DESIGN
    assert all(PIPELINE[name]["cmd"] == f"sh flows/run.sh {name}" for name in DESIGN)


def test_the_pipeline_runs_every_stage_after_what_it_reads() -> None:
    assert sorted(STAGES) == sorted(DESIGN)
    made: set[str] = set()
    every = {out for stage in PIPELINE.values() for out in outputs(stage)}
    for name in STAGES:
        assert set(PIPELINE[name]["deps"]) & every <= made, name
        made |= set(outputs(PIPELINE[name]))


@pytest.mark.parametrize("name", DESIGN)
def test_the_code_among_the_deps_is_what_the_stage_imports(name: str) -> None:
    assert [dep for dep in PIPELINE[name]["deps"] if dep.startswith(("pbe/", "flows/"))] == code_deps(name)


@pytest.mark.parametrize("name", DESIGN)
def test_files_that_are_no_modules_are_below_a_folder_among_the_deps(name: str) -> None:
    """Such as the report's template: `code_deps` finds modules alone."""
    folders = {file.parent for file in imported_files(name) if file.parent != Path("flows")}
    for file in {each for folder in folders for each in (ROOT / folder).iterdir() if each.suffix not in (".py", "")}:
        assert {str(parent) for parent in file.relative_to(ROOT).parents} & set(PIPELINE[name]["deps"]), file


@pytest.mark.parametrize("name", DESIGN)
def test_the_params_are_what_the_stage_reads_and_what_can_change_its_output(name: str) -> None:
    assert tracked_keys(name) == parameters(name)
    assert all(any(f"{key}.".startswith(f"{each}.") for key in leaves()) for each in PIPELINE[name]["params"])


def test_dvc_compares_a_dozen_scores_and_no_nested_report() -> None:
    metrics = {name: named(stage["metrics"]) for name, stage in PIPELINE.items() if "metrics" in stage}
    assert metrics == {"evaluate": ["reports/scores.json"]}
    assert len(SCORES) <= 12


def test_dvcs_run_cache_does_not_stand_for_a_registration() -> None:
    """DVC would restore reports/registered.json from an earlier run, or an experiment, and register nothing."""
    assert PIPELINE["register"]["outs"] == [{"reports/registered.json": {"persist": True}}]


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
