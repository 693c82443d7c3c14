"""The pipeline over a toy project: DVC decides, Prefect records, and a killed run blocks nothing."""

import signal
from typing import Any

import httpx
import pytest
from dvc.exceptions import ReproductionError
from dvc.stage.exceptions import StageCmdFailedError

from flows.reproduction import dvc_failure, reason_to_run, reproduce
from flows.retries import is_retryable
from tests.support.toy_project import TOY, Project, running, wait_for

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
    assert found["acquire"]["name"] == "acquire: naps.txt, acquire.out"  # the stage, and what has changed
    again = project.run(*PIPELINE, *TWO)
    assert (again.returncode, again.stdout) == (0, "every stage is up to date\nthe end\n")
    assert runs(project)["pipeline"]["id"] == found["pipeline"]["id"]  # nothing was even started


def test_a_failing_stage_ends_the_pipeline_with_its_exit_code(project: Project) -> None:
    project.naps(13)
    ended = project.run(*PIPELINE, *TWO)
    assert ended.returncode == 2
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert errors[0] == "error: naps.txt: 13 is unlucky; give another number"
    assert errors[1] == "error: stage acquire: naps.txt: 13 is unlucky; give another number"
    assert "Traceback" not in ended.stderr
    assert not (project.folder / "filter.out").exists()


def test_prefect_shows_why_a_run_failed_and_what_it_printed(project: Project) -> None:
    """An unknown key ends the stage before it has a run of its own."""
    params = project.folder / "params.yaml"
    broken = params.read_text().replace("min_side_px: 8", "min_side_px: 8\n  min_area: 0.1")
    project.naps(3)
    (project.folder / "toy.py").write_text(f"import pathlib; pathlib.Path('params.yaml').write_text({broken!r})\n{TOY}")
    assert project.run(*PIPELINE, "acquire").returncode == 2
    run, message = runs(project)["pipeline"], "params.yaml: filter.min_area: unknown key; did you mean min_area_frac?"
    assert (run["name"], run["state"]["message"]) == ("acquire", f"stage acquire: {message}")
    url = project.env["PREFECT_API_URL"]
    logs = httpx.post(f"{url}/logs/filter", json={"logs": {"flow_run_id": {"any_": [run["id"]]}}}).json()
    assert f"error: {message}" in [each["message"] for each in logs]


def test_the_reason_names_what_has_changed() -> None:
    changes = [
        {"changed deps": {"params.yaml": {"train.steps": "modified", "train.lr": "modified"}, "data/latents": "new"}},
        {"changed outs": {"models/pbe": "deleted"}},
        "changed command",
    ]
    assert reason_to_run(changes) == "train.steps, train.lr, data/latents and 2 more"
    assert reason_to_run([]) == ""


@pytest.mark.parametrize(("naps", "code", "name"), [(13, 2, "UserError"), (16, 75, "Unavailable"), (15, 1, None)])
def test_the_exit_code_of_a_stage_names_the_pipelines_state(naps: int, code: int, name: str | None) -> None:
    """DVC keeps the exit code in its message alone; the state's name decides about retries."""
    failed = StageCmdFailedError("python toy.py acquire", code)
    error = ReproductionError("acquire")
    error.__cause__ = failed
    state = dvc_failure("acquire", error)
    assert state.name == (name or "Failed")
    assert is_retryable(reproduce, None, state) == (name == "Unavailable")  # type: ignore[arg-type]


def test_an_unknown_stage_is_named(project: Project) -> None:
    ended = project.run(*PIPELINE, "aquire")
    assert ended.returncode == 2
    assert "aquire" in ended.stderr.splitlines()[-1]


@pytest.mark.long
def test_with_no_server_configured_the_pipeline_starts_and_stops_its_own(new_project: Project) -> None:
    ended = new_project.run(*PIPELINE, *TWO)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("the end\n")
    assert (new_project.folder / ".prefect/prefect.db").exists()
    assert (new_project.folder / "filter.out").read_text() == "2"


def test_a_stage_ends_after_dvc_repro_is_killed_and_the_next_repro_completes(project: Project) -> None:
    project.naps(600)
    dvc = project.start("dvc", "repro")
    holder = project.folder / ".pbe/acquire.pid"
    assert wait_for(lambda: holder.exists() and holder.read_text() != "")
    stage = int(holder.read_text())
    dvc.send_signal(signal.SIGKILL)
    dvc.communicate()
    project.naps(1)
    assert project.run("dvc", "repro").returncode == 0
    assert not running(stage)
    assert (project.folder / "filter.out").read_text() == "1"
