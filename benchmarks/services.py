"""`make up` to `make down` in a project: a scheduled run, what Prefect shows of it, services that are killed, and the
processes that are left.

    python -m benchmarks.services --pictures docs      # in the folder of a clone, with usual ports free

Starts the services, lets the schedule of the nightly deployment start a run within a minute, waits until it has
completed, and checks its artifacts and its log. Kills MLflow, which is started again, and supervisord. Prints the
seconds of each part; exits with 1 when a check fails. `--pictures` saves pictures of the interfaces with Chromium.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image as PillowImage
from playwright.sync_api import Page, sync_playwright

from flows.artifacts import GALLERY_KEY, MODEL_KEY, STAGES_KEY
from flows.services import processes
from flows.services.plan import PREFECT, read_ports
from flows.services.supervision import connect

NIGHTLY = "pipeline/nightly"
SIZE = (1280, 860)
RUN_S = 1800.0


def main() -> None:
    """Run the whole check in the working directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    pictures = parser.parse_args().pictures
    folder = Path().resolve()
    with timed("up"):
        services("up")
    try:
        url = read_ports().url(PREFECT)
        with timed("a scheduled run"):
            run = scheduled_run(f"{url}/api")
        check_run(f"{url}/api", run)
        if pictures:
            with timed("pictures"):
                take_pictures(url, run, pictures)
        with timed("MLflow, killed, answers again"):
            kill_service("mlflow")
        services("status")
    finally:
        with timed("down"):
            services("down")
    check(not processes.marked(folder), "no process is left")
    with timed("up"):
        services("up")
    kill_supervisord(folder)
    with timed("down after supervisord was killed"):
        services("down")
    check(not processes.marked(folder), "no process is left after supervisord was killed")


def services(*arguments: str) -> None:
    """Run `python -m flows.services`, and exit with 1 when it fails."""
    subprocess.run([sys.executable, "-m", "flows.services", *arguments], check=True)


def scheduled_run(api: str) -> dict[str, Any]:
    """Let the schedule start the nightly deployment every minute, and return the run when it has completed."""
    deployment = httpx.get(f"{api}/deployments/name/{NIGHTLY}").json()
    (schedule,) = httpx.get(f"{api}/deployments/{deployment['id']}/schedules").json()
    address, before = f"{api}/deployments/{deployment['id']}/schedules/{schedule['id']}", schedule["schedule"]
    set_schedule(address, {"cron": "* * * * *", "timezone": "UTC"})
    try:
        runs = wait(lambda: finished_runs(api, deployment["id"]), RUN_S)
    finally:
        set_schedule(address, before)
    check(runs[0]["state_type"] == "COMPLETED", f"the run has completed: {runs[0]['state']['message']}")
    check(runs[0]["auto_scheduled"], "the schedule has started it")
    return dict(runs[0])


def set_schedule(address: str, schedule: dict[str, Any]) -> None:
    """Change a schedule; while Prefect writes its SQLite database, it may answer 503."""
    wait(lambda: httpx.patch(address, json={"schedule": schedule}).is_success, 60.0)


def finished_runs(api: str, deployment: str) -> list[dict[str, Any]]:
    """Return the deployment's runs that have ended, the first one first."""
    ended = {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}
    query = {"flow_runs": {"deployment_id": {"any_": [deployment]}, "state": ended}, "sort": "START_TIME_ASC"}
    return list(httpx.post(f"{api}/flow_runs/filter", json=query).json())


def check_run(api: str, run: dict[str, Any]) -> None:
    """Check that a run shows its artifacts and its log."""
    query = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    keys = {each["key"] for each in httpx.post(f"{api}/artifacts/filter", json=query).json()}
    check(keys >= {STAGES_KEY, MODEL_KEY, GALLERY_KEY}, f"its artifacts: {', '.join(sorted(keys))}")
    logs = httpx.post(f"{api}/logs/filter", json={"logs": {"flow_run_id": {"any_": [run["id"]]}}}).json()
    check(len(logs) > len(keys), f"lines in its log: {len(logs)}")


def kill_service(name: str) -> None:
    """Kill a service, and return when supervisord has started it again and it answers."""
    supervisor = connect()
    assert supervisor is not None
    pid = supervisor.states()[name].pid
    os.kill(pid, signal.SIGKILL)
    wait(lambda: supervisor.states()[name].pid not in (0, pid), 60.0)
    wait(all_answer, 120.0)


def all_answer() -> bool:
    """Return whether `make status` finds that all services answer."""
    return subprocess.run([sys.executable, "-m", "flows.services", "status"], capture_output=True).returncode == 0


def kill_supervisord(folder: Path) -> None:
    """Kill supervisord alone: the services go on."""
    for process in processes.marked(folder):
        if "supervisor.supervisord" in process.cmdline():
            process.kill()


def take_pictures(url: str, run: dict[str, Any], folder: Path) -> None:
    """Save pictures of the run, its artifacts, the deployments, and a deployment's form."""
    api = f"{url}/api"
    promote = httpx.get(f"{api}/deployments/name/promote/on-request").json()["id"]
    query = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    artifacts = {each["key"]: each["id"] for each in httpx.post(f"{api}/artifacts/filter", json=query).json()}
    pages = {
        "prefect": f"/runs/flow-run/{run['id']}",
        "prefect-artifacts": f"/runs/flow-run/{run['id']}?tab=Artifacts",
        "prefect-model": f"/artifacts/artifact/{artifacts[MODEL_KEY]}",
        "prefect-gallery": f"/artifacts/artifact/{artifacts[GALLERY_KEY]}",
        "prefect-deployments": "/deployments",
        "prefect-form": f"/deployments/deployment/{promote}/run",
    }
    with sync_playwright() as playwright:
        executable = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        for name, path in pages.items():
            picture(page, f"{url}{path}", folder / f"{name}.png")
        browser.close()


def picture(page: Page, address: str, file: Path) -> None:
    """Save a picture of a page, with few enough colours that its file is small."""
    page.goto(address)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(3_000)  # charts and pictures
    page.screenshot(path=file)
    reduced = PillowImage.open(file).convert("RGB").quantize(128)
    reduced.save(file, optimize=True)


def wait(happened: Callable[[], Any], within_s: float) -> Any:
    """Return what `happened` returns as soon as that is true."""
    deadline = time.monotonic() + within_s
    while not (found := happened()):
        if time.monotonic() > deadline:
            check(False, f"within {within_s:g} s")
        time.sleep(1.0)
    return found


def check(holds: Any, what: str) -> None:
    """Print a check that holds, and exit with 1 when it does not."""
    print(f"  {'yes' if holds else 'NO'}: {what}", flush=True)
    if not holds:
        raise SystemExit(1)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the seconds that the block takes."""
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
