"""The pipeline over a toy project: DVC decides, Prefect records, and a killed run leaves nothing in the way."""

import signal
from typing import Any

import httpx
import pytest

from tests.support.toy_project import Project, running, wait_for

pytestmark = pytest.mark.slow

PIPELINE = (
    "python",
    "-c",
    "import sys; from flows import pipeline as p; p.summary = lambda f: 'the end'; p.main(sys.argv[1:])",
)
TWO = ("acquire", "filter")


def runs(project: Project) -> dict[str, Any]:
    url = project.env["PREFECT_API_URL"]
    flows = {each["id"]: each["name"] for each in httpx.post(f"{url}/flows/filter", json={}).json()}
    found = httpx.post(f"{url}/flow_runs/filter", json={"sort": "START_TIME_ASC"}).json()
    return {flows[each["flow_id"]]: each for each in found}


def test_stages_run_nested_under_the_pipeline_then_are_cached(project: Project) -> None:
    assert project.run(*PIPELINE, *TWO).returncode == 0
    found = runs(project)
    parents = {found[name]["parent_task_run_id"] for name in TWO}
    tasks = httpx.post(
        f"{project.env['PREFECT_API_URL']}/task_runs/filter",
        json={"flow_runs": {"id": {"any_": [found["pipeline"]["id"]]}}},
    )
    assert parents == {each["id"] for each in tasks.json()}
    again = project.run(*PIPELINE, *TWO)
    assert (again.returncode, again.stdout) == (0, "all is up to date\nthe end\n")
    assert runs(project)["pipeline"]["id"] == found["pipeline"]["id"]  # nothing was even started


def test_a_failing_stage_ends_the_pipeline_with_its_exit_code(project: Project) -> None:
    project.naps(13)
    ended = project.run(*PIPELINE, *TWO)
    assert ended.returncode == 2
    told = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert told[0] == "error: naps.txt: 13 is unlucky; give another number"
    assert told[1].startswith("error: stage acquire failed; its own message is above")
    assert "Traceback" not in ended.stderr
    assert not (project.folder / "filter.out").exists()


def test_an_unknown_stage_is_told(project: Project) -> None:
    ended = project.run(*PIPELINE, "aquire")
    assert ended.returncode == 2
    assert "aquire" in ended.stderr.splitlines()[-1]


def test_with_no_server_configured_the_pipeline_starts_and_stops_its_own(lone_project: Project) -> None:
    ended = lone_project.run(*PIPELINE, *TWO)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("the end\n")
    assert (lone_project.folder / ".prefect/prefect.db").exists()
    assert (lone_project.folder / "filter.out").read_text() == "2"


def test_after_kill_of_dvc_repro_the_stage_goes_and_the_next_repro_finishes(project: Project) -> None:
    project.naps(600)
    dvc = project.start("dvc", "repro")
    lock = project.folder / ".pbe/acquire.lock"
    assert wait_for(lambda: lock.exists() and lock.read_text() != "")
    stage = int(lock.read_text())
    dvc.send_signal(signal.SIGKILL)
    dvc.communicate()
    project.naps(1)
    assert project.run("dvc", "repro").returncode == 0
    assert not running(stage)
    assert (project.folder / "filter.out").read_text() == "1"
