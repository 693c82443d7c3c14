"""`make up`, `make down` and `make status`: the real supervisord, with small services in place of the real ones."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from flows.services import processes
from flows.services import status as status_module
from flows.services import up as up_module
from flows.services.down import down
from flows.services.health import is_healthy, running_prefect
from flows.services.plan import (
    FIFTYONE,
    LOGS,
    MARK,
    PREFECT,
    Ports,
    Service,
    environment,
    require_free_ports,
    services,
    write_ports,
)
from flows.services.status import status
from flows.services.supervision import CONFIGURATION, connect
from flows.services.up import up
from pbe.errors import UnavailableError, UserError
from pbe.runtime.ports import LOOPBACK, free_port, listen
from tests.support.toy_project import ROOT, wait_for

FAILING = ("-c", "import time; print('starting', flush=True); raise SystemExit('error: models/pbe: no such folder')")
SILENT = ("-c", "import time; time.sleep(600)")
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)


def site(name: str, *, command: tuple[str, ...] = (), on_request: bool = False) -> Service:
    """Return a service that serves a folder, or that runs another command and never answers."""
    port = free_port()
    command = command or ("-m", "http.server", str(port), "--bind", LOOPBACK)
    return Service(name, "files", command, port, f"http://{LOOPBACK}:{port}/", on_request)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a project's folder with a blank and a percent sign, in which nothing runs afterwards."""
    folder = (tmp_path / "a 100% project").resolve()
    folder.mkdir()
    for name in ("params.yaml", "prefect.yaml"):
        (folder / name).write_text((ROOT / name).read_text())
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield folder
    processes.end_all(folder, 1.0)


def plan(monkeypatch: pytest.MonkeyPatch, *given: Service) -> None:
    for module in (up_module, status_module):
        monkeypatch.setattr(module, "services", lambda *_: list(given))


def test_up_is_repeatable_restarts_what_is_killed_and_down_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, app = site("mlflow"), site(FIFTYONE, on_request=True)
    plan(monkeypatch, one, app)
    text = up({})
    assert f"mlflow    {one.url}" in text
    assert "make up FIFTYONE=1" in text
    assert (is_healthy(one, folder), is_healthy(app, folder)) == (True, False)
    supervisor = connect()
    assert supervisor is not None
    first = supervisor.states()["mlflow"].pid
    os.kill(first, signal.SIGKILL)
    assert wait_for(lambda: supervisor.states()["mlflow"].pid not in (0, first), within_s=15)

    up({}, with_fiftyone=True)  # adds FiftyOne's App to what runs
    assert is_healthy(app, folder)
    table, code = status(folder)
    assert code == 0
    assert [line.split()[1] for line in table.splitlines()[1:3]] == ["healthy", "healthy"]
    assert sorted(path.name for path in LOGS.iterdir()) == ["fiftyone.log", "mlflow.log", "supervisord.log"]

    assert down(folder)
    assert not processes.marked(folder)
    assert status(folder) == ("nothing runs; to start the services: make up", 3)
    assert not down(folder)


def test_down_and_up_clean_up_after_a_killed_supervisord(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = site("mlflow")
    plan(monkeypatch, one)
    up({})
    kill_supervisord(folder)
    text, code = status(folder)
    assert (code, text.splitlines()[-1]) == (
        1,
        "supervisord was killed, so nothing starts a service again; run: make down up",
    )
    up({})  # the service that is left does not count as another program on the port
    assert is_healthy(one, folder)
    kill_supervisord(folder)
    assert down(folder)
    assert not processes.marked(folder)


def kill_supervisord(folder: Path) -> None:
    (daemon,) = (each for each in processes.marked(folder) if "supervisor.supervisord" in each.cmdline())
    daemon.kill()
    assert wait_for(lambda: connect() is None)


def test_a_service_that_fails_is_one_line_and_stops_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(monkeypatch, site("mlflow"), site("page", command=FAILING))
    monkeypatch.setattr("flows.services.supervision.MAX_STARTS", 0)
    with pytest.raises(UserError, match=r"^page does not start: models/pbe: no such folder \(\.pbe/logs/page\.log\)$"):
        up({})
    assert not processes.marked(folder)


def test_ctrl_c_while_services_start_leaves_nothing(folder: Path) -> None:
    code = f"""
import sys
from flows.services import main, up
from flows.services.plan import Service
up.services = lambda *_: [Service("page", "", {SILENT!r}, {free_port()}, "http://{LOOPBACK}:9/")]
sys.exit(main.main(["up"]))
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True)
    assert wait_for(lambda: any(each.cmdline()[1:] == list(SILENT) for each in processes.marked(folder)), within_s=30)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "error: interrupted\n"
    assert process.returncode == 130
    assert not processes.marked(folder)


@pytest.mark.parametrize("name", ["prefect", "worker", "mlflow", "page", "reports", "fiftyone"])
def test_a_port_of_another_program_is_refused_before_anything_starts(folder: Path, name: str) -> None:
    """The server of another clone is such a program: two projects would share its runs, deployments and models."""
    with listen(0, "--port") as taken:
        taken.listen()
        port = taken.getsockname()[1]
        ports = {each: free_port() for each in vars(Ports())} | {name: port}
        with pytest.raises(
            UserError, match=f"^port {port} of {LOOPBACK} is in use by process {os.getpid()} .*--{name}"
        ):
            up(ports, with_fiftyone=name == FIFTYONE)
    assert not CONFIGURATION.exists()


def test_the_prefect_server_that_runs_is_found_by_other_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "api").mkdir()
    (folder / "api/health").write_text("true")
    one = replace(site("mlflow"), name=PREFECT)
    plan(monkeypatch, one)
    assert running_prefect() is None
    up({"prefect": one.port})
    assert running_prefect() == f"{one.url}/api"
    down(folder)
    assert running_prefect() is None


def test_another_programs_answer_is_not_taken_for_a_service(folder: Path) -> None:
    service = site("mlflow")
    with subprocess.Popen([sys.executable, *service.command], stderr=subprocess.DEVNULL) as stranger:
        assert wait_for(
            lambda: any(c.laddr.port == service.port for c in psutil.Process(stranger.pid).net_connections())
        )
        assert not is_healthy(service, folder)
        stranger.terminate()


def test_two_services_cannot_have_one_port() -> None:
    port = free_port()
    with pytest.raises(UserError, match=f"^--page-port {port}: is the port of mlflow as well; choose another one"):
        require_free_ports(services(Ports(mlflow=port, page=port, prefect=free_port()), {}))


def test_a_configured_server_is_used_and_not_started(folder: Path) -> None:
    elsewhere = {PREFECT: "http://prefect:4200/api", "mlflow": "http://mlflow:5000"}
    assert [each.name for each in services(Ports(), elsewhere)] == ["page", "reports", "worker", "fiftyone"]
    found = environment(folder, Ports(), elsewhere)
    assert (found["PREFECT_API_URL"], found["PBE_MLFLOW_URL"]) == ("http://prefect:4200/api", "http://mlflow:5000")
    assert found[MARK] == found["PBE_PROJECT"] == str(folder)


@pytest.mark.usefixtures("folder")
def test_a_configured_server_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up_module, "configured_servers", lambda: {PREFECT: "http://127.0.0.1:9/api"})
    monkeypatch.setattr("flows.server.answers", lambda attempts: False)
    ports = {each: free_port() for each in vars(Ports())}
    with pytest.raises(UnavailableError, match=r"^PREFECT_API_URL=http://127\.0\.0\.1:9/api: no Prefect"):
        up(ports)


def test_a_folder_without_deployments_is_refused_before_anything_starts(folder: Path) -> None:
    (folder / "prefect.yaml").unlink()
    with pytest.raises(UserError, match=r"^prefect\.yaml: no such file; run this in the root of the checkout$"):
        up({})


@pytest.mark.usefixtures("folder")
def test_the_ports_of_running_services_cannot_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up_module, "connect", lambda: object())
    (CONFIGURATION.parent).mkdir(parents=True)
    write_ports(Ports(mlflow=5001))
    with pytest.raises(UserError, match=r"^--mlflow-port 5002: the services run, with port 5001; run: make down$"):
        up({"mlflow": 5002})


def test_a_process_that_ignores_sigterm_is_killed(folder: Path) -> None:
    env = os.environ | {MARK: str(folder)}
    with subprocess.Popen([sys.executable, "-c", STUBBORN], env=env, stdout=subprocess.PIPE, text=True) as stubborn:
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == "ready\n"
        assert [each.pid for each in processes.marked(folder)] == [stubborn.pid]
        assert processes.end_all(folder, grace_s=0.2)
        assert stubborn.wait(5) == -signal.SIGKILL


def test_the_processes_of_another_project_are_left_alone(folder: Path) -> None:
    env = os.environ | {MARK: f"{folder}/another"}
    with subprocess.Popen([sys.executable, *SILENT], env=env) as other:
        assert processes.end_all(folder, grace_s=0.2)
        assert other.poll() is None
        other.kill()
