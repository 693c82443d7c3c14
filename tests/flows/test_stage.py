"""A stage's command line: what it prints, what it leaves in Prefect, and how it ends."""

import json

import httpx
import pytest

from flows.stage import flatten
from tests.support.toy_project import Project


def test_a_wrong_parameter_is_one_line_and_exit_code_2(lone_project: Project) -> None:
    params = lone_project.folder / "params.yaml"
    params.write_text(params.read_text().replace("min_side_px: 8", "min_side_px: 8\n  min_area: 0.1"))
    ended = lone_project.run("python", "toy.py", "acquire")
    assert ended.returncode == 2
    assert ended.stderr == "error: params.yaml: filter.min_area: unknown key; did you mean min_area_frac?\n"
    assert not (lone_project.folder / ".prefect/server.log").exists()  # reported before a server starts


def test_a_stage_reports_its_counts_and_progress(project: Project) -> None:
    ended = project.run("python", "toy.py", "acquire")
    assert (ended.returncode, ended.stdout) == (0, "acquire: naps 2, skipped.rain 2\n")
    assert ended.stderr.startswith("acquire: naps 2/2 (100 %")
    assert ended.stderr.count("\n") == 1
    found = httpx.post(f"{project.env['PREFECT_API_URL']}/artifacts/latest/filter", json={}).json()
    artifacts = {each["key"]: each for each in found}
    assert artifacts["acquire-naps"]["data"] == 100.0
    assert {"what": "skipped.rain", "value": 2} in json.loads(artifacts["acquire-counts"]["data"])


@pytest.mark.parametrize(
    ("naps", "code", "message"),
    [
        (13, 2, "naps.txt: 13 is unlucky; give another number"),
        (16, 75, "http://127.0.0.1:9: does not answer"),
        (17, 2, "data/raw: the disk is full; free some space and run the command again"),
    ],
)
def test_an_error_of_the_user_or_the_machine_is_one_line(project: Project, naps: int, code: int, message: str) -> None:
    project.naps(naps)
    ended = project.run("python", "toy.py", "acquire")
    assert (ended.returncode, ended.stderr) == (code, f"error: {message}\n")
    assert not (project.folder / "acquire.out").exists()


@pytest.mark.parametrize(
    ("naps", "source_line"), [(14, 'raise TypeError("a planted bug")'), (15, "np.zeros(2) + np.zeros(3)")]
)
def test_a_bug_keeps_its_traceback_even_a_value_error_of_a_library(
    project: Project, naps: int, source_line: str
) -> None:
    project.naps(naps)
    ended = project.run("python", "toy.py", "acquire")
    assert ended.returncode == 1
    assert source_line in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("error: acquire: ")


def test_counts_are_flattened_in_order() -> None:
    assert flatten({"b": 1, "a": {"y": 2, "x": 3}}) == [("b", 1), ("a.y", 2), ("a.x", 3)]
