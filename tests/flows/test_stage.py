"""A stage's command line: what it prints, what it leaves in Prefect, and how it ends."""

import json
from pathlib import Path

import httpx
import pytest

from flows.stage import flat, one_line, write_json
from tests.support.toy_project import Project


def test_a_wrong_parameter_is_one_line_and_exit_code_2(lone_project: Project) -> None:
    (lone_project.folder / "params.yaml").write_text("filter:\n  min_area: 0.1\n")
    ended = lone_project.run("python", "toy.py", "acquire")
    assert ended.returncode == 2
    assert ended.stderr == "error: params.yaml: filter.min_area: unknown key; did you mean min_area_frac?\n"
    assert not (lone_project.folder / ".prefect/server.log").exists()  # told before a server was started


def test_a_stage_reports_its_counts_and_progress(project: Project) -> None:
    ended = project.run("python", "toy.py", "acquire")
    assert (ended.returncode, ended.stdout) == (0, "acquire: naps 2, skipped.rain 2\n")
    assert ended.stderr.startswith("acquire: naps 2/2 (100 %")
    assert ended.stderr.count("\n") == 1
    found = httpx.post(f"{project.env['PREFECT_API_URL']}/artifacts/latest/filter", json={}).json()
    artifacts = {each["key"]: each for each in found}
    assert artifacts["acquire-naps"]["data"] == 100.0
    assert {"what": "skipped.rain", "value": 2} in json.loads(artifacts["acquire-counts"]["data"])


def test_a_mistake_is_one_line_without_a_traceback(project: Project) -> None:
    project.naps(13)
    ended = project.run("python", "toy.py", "acquire")
    assert ended.returncode == 2
    assert ended.stderr == "error: naps.txt: 13 is unlucky; give another number\n"
    assert "ValueError" in (project.folder / ".pbe/acquire.traceback").read_text()
    assert not (project.folder / "acquire.out").exists()


def test_a_bug_keeps_its_traceback(project: Project) -> None:
    project.naps(14)
    ended = project.run("python", "toy.py", "acquire")
    assert ended.returncode == 1
    assert 'raise TypeError("what a bug")' in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("error: acquire: ")


def test_a_file_error_names_the_file() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Path("nowhere/x.csv").read_text()
    assert one_line(caught.value) == "nowhere/x.csv: no such file or directory"


def test_counts_are_flattened_in_order() -> None:
    assert flat({"b": 1, "a": {"y": 2, "x": 3}}) == [("b", 1), ("a.y", 2), ("a.x", 3)]


def test_json_is_the_same_bytes_for_the_same_payload(tmp_path: Path) -> None:
    write_json(tmp_path / "reports/a.json", {"b": 1, "a": 2})
    write_json(tmp_path / "reports/b.json", {"a": 2, "b": 1})
    assert (tmp_path / "reports/a.json").read_bytes() == (tmp_path / "reports/b.json").read_bytes()
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == ["a.json", "b.json"]
