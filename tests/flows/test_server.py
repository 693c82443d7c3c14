"""The Prefect server of a run: whose port it takes, and what a run does that loses it."""

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import httpx
import pytest
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows import server, stage
from pbe.errors import UnavailableError, UserError
from pbe.runtime.child_processes import start_child
from pbe.runtime.ports import LOOPBACK, listen
from tests.support.toy_project import ROOT, Project, healthy, wait_for

GONE = "http://127.0.0.1:9/api"


def test_a_port_of_another_program_is_refused_before_anything_starts(lone_project: Project) -> None:
    """Another clone's Prefect server is such a program: two projects would share their deployments."""
    with listen(0, "--port") as taken:
        taken.listen()
        port = taken.getsockname()[1]
        ended = lone_project.run("python", "-m", "flows.pipeline", "--serve", "--port", str(port))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: port {port} of {LOOPBACK} is in use by process {os.getpid()} (")
    assert ended.stderr.endswith("choose another one with --port\n")
    assert not (lone_project.folder / ".prefect/server.log").exists()


def test_the_server_of_make_up_refuses_such_a_port_as_well(lone_project: Project) -> None:
    with listen(0, "--port") as taken:
        taken.listen()
        port = taken.getsockname()[1]
        ended = lone_project.run("python", "-m", "flows.server", "--port", str(port))
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: port {port} of {LOOPBACK} is in use by process {os.getpid()} (")


def test_a_configured_server_that_does_not_answer_is_one_line() -> None:
    with (
        temporary_settings({PREFECT_API_URL: GONE, PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(UnavailableError, match=f"^PREFECT_API_URL={GONE}: no Prefect server answers; start it"),
        server.available(),
    ):
        pass


def test_a_run_in_a_terminal_uses_the_server_of_make_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers would share one database, and the run would be missing from the interface."""
    monkeypatch.setattr(server, "running_prefect", lambda: GONE)
    monkeypatch.setattr(server, "OwnServer", pytest.fail)
    monkeypatch.setattr(server, "send_queued_records", lambda: None)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), server.available() as url:
        assert url == GONE == os.environ["PREFECT_API_URL"] == PREFECT_API_URL.value()
    assert "PREFECT_API_URL" not in os.environ


def lost(*_: object, **__: object) -> State[None]:
    raise httpx.ConnectError("All connection attempts failed")


def test_a_stage_that_has_finished_does_not_need_its_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = stage.stage_flow("acquire", lambda *_: {})
    monkeypatch.setattr(stage, "run_stage", lambda *_: {})
    monkeypatch.setattr(stage, "run_flow", lambda flow, **_: (flow.fn() and None) or lost())
    assert stage.run_nested(finished).is_completed()
    assert "warning: Prefect's server has not recorded the end of acquire" in capsys.readouterr().err


def test_a_stage_that_has_not_begun_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "run_flow", lost)
    with pytest.raises(UnavailableError, match="Prefect's server failed before acquire began: All connection attempts"):
        stage.run_nested(stage.stage_flow("acquire", lambda *_: {}))


@pytest.mark.slow
@pytest.mark.long
def test_a_server_that_is_killed_starts_again_at_the_same_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(server.layout, "PREFECT_HOME", tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    own = server.OwnServer(0, on_loss=pytest.fail)
    try:
        own.start()
        first = own._process
        assert first is not None
        assert os.getsid(first.pid) == first.pid  # Ctrl-C on a terminal does not reach it
        first.send_signal(signal.SIGKILL)
        assert wait_for(lambda: own._process is not first and healthy(own.url), within_s=120)
    finally:
        own.stop()
    assert capsys.readouterr().err == f"Prefect's server on port {own.port} has ended; starting it again\n"
    assert not healthy(own.url)


def test_the_last_server_that_is_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []
    lost = threading.Event()

    def start(*_: object) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(["sleep", "60"], text=True))
        return started[-1]

    monkeypatch.setattr(server, "_start", start)
    own = server.OwnServer(0, on_loss=lost.set)
    own.start()
    for number in range(1, server.MAX_RESTARTS + 2):
        assert wait_for(lambda number=number: len(started) == number, within_s=10)
        assert not lost.wait(0.1)
        started[-1].kill()
    assert lost.wait(10)
    assert len(started) == server.MAX_RESTARTS + 1
    own.stop()


def test_a_child_in_a_session_of_its_own_inherits_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, socket, sys; print(socket.socket(fileno=int(sys.argv[1])).getsockname()[1], os.getsid(0))"
    (tmp_path / "child.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with listen(0, "--port") as bound:
        fd = bound.fileno()
        child = start_child("child", [str(fd)], subprocess.PIPE, pass_fds=[fd], new_session=True)
        assert child.communicate()[0].split() == [str(bound.getsockname()[1]), str(child.pid)]


def test_a_busy_port_names_its_process() -> None:
    with listen(0, "--port") as taken:
        taken.listen()
        with pytest.raises(UserError, match=rf"in use by process {os.getpid()} .*; choose another one with --to"):
            listen(taken.getsockname()[1], "--to")


def test_a_server_that_does_not_start_is_one_line(new_project: Project) -> None:
    database = new_project.folder / ".prefect/prefect.db"
    database.parent.mkdir()
    database.write_bytes(b"not a database" * 100)
    ended = new_project.run("python", "toy.py", "acquire")
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 75
    assert line.startswith("error: Prefect's server did not start on http://127.0.0.1:")
    assert line.endswith("(.prefect/server.log)")


def test_a_server_that_does_not_start_on_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "server.log"
    log.write_text("sqlite3.OperationalError: disk I/O error\n")
    assert str(server.not_started("http://x", log)) == (
        f"Prefect's server did not start on http://x: sqlite3.OperationalError: disk I/O error ({log})"
    )
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(server.shutil, "disk_usage", lambda _: usage._replace(free=4096))
    assert str(server.not_started("http://x", log)).startswith(f"{tmp_path}: the disk is full; free some space")
