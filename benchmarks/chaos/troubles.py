"""The disturbances: each changes the environment of a command, strikes while it runs, or both, and is lifted after."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from ruamel.yaml import YAML

from benchmarks.chaos.cases import SIGNALS, Case
from benchmarks.chaos.rooms import BALLAST, LOCK, Room, can_mount, fill, mount, remove, title
from benchmarks.small_project import change_parameters
from flows.mlflow_server import SETTINGS
from pbe.demo.faulty_endpoint import serve_faulty
from pbe.layout import MLFLOW_DATABASE
from pbe.runtime.ports import free_port

PREFECT, ENDPOINT, MONGOD = "flows.server", "pbe.demo.endpoint", "mongod"
APPEAR_S = 60.0  # until the process that is to be hit has started
HANG_S = 20.0
FAILING_SHARE = 0.25
JUMP_S = 3 * 86_400
MLFLOW_START_S = 120.0


class NotPossibleError(Exception):
    """This machine or this user cannot make the disturbance."""


@dataclass
class Trouble:
    """What is wrong while a command runs.

    `strike` happens at the drawn moment and returns what it hit, or None when it found nothing. `variables` are the
    disturbed command's and `later` those of the `dvc repro` after it. With `one_line` the command must end with its
    outputs or with one line, without a traceback. `lift` ends the trouble before that.
    """

    variables: dict[str, str] = field(default_factory=dict)
    later: dict[str, str] = field(default_factory=dict)
    strike: Callable[[], str | None] | None = None
    lift: Callable[[], object] = lambda: None
    one_line: bool = True


def trouble_of(room: Room, case: Case) -> AbstractContextManager[Trouble]:
    """Return the disturbance of a case, which lasts for the block."""
    if case.kind in SIGNALS:
        return killed(room, case)
    return TROUBLES[case.kind](room, case)


@contextmanager
def killed(room: Room, case: Case) -> Iterator[Trouble]:
    """Send a signal to one process of the project, whichever it is; every kind of process is as likely."""
    number = signal.Signals[f"SIG{case.kind}"]

    def strike() -> str | None:
        by_title: dict[str, list[psutil.Process]] = {}
        for process in room.processes():
            by_title.setdefault(title(process), []).append(process)
        if not by_title:
            return None
        name = sorted(by_title)[int(case.choice * len(by_title))]
        return f"{name} killed" if hit(by_title[name][0], number) else None

    yield Trouble(strike=strike, one_line=False)


def killing(name: str) -> Callable[[Room, Case], AbstractContextManager[Trouble]]:
    """Return the disturbance that kills the process with a title as soon as the moment has come and it runs."""

    @contextmanager
    def trouble(room: Room, case: Case) -> Iterator[Trouble]:
        def strike() -> str | None:
            process = appeared(room, name)
            return f"{name} killed" if process is not None and hit(process, signal.SIGKILL) else None

        yield Trouble(strike=strike)

    return trouble


@contextmanager
def hanging_endpoint(room: Room, case: Case) -> Iterator[Trouble]:
    """Stop the S3 endpoint for HANG_S seconds: its connections stay open, and nothing answers."""

    def strike() -> str | None:
        process = appeared(room, ENDPOINT)
        if process is None or not hit(process, signal.SIGSTOP):
            return None
        threading.Timer(HANG_S, hit, (process, signal.SIGCONT)).start()
        return f"{ENDPOINT} stopped for {HANG_S:.0f} s"

    yield Trouble(strike=strike)


@contextmanager
def full_disk(room: Room, case: Case) -> Iterator[Trouble]:
    """Fill the file system of the project, which `Room.opened` has made."""

    def strike() -> str | None:
        fill(room.folder)
        return "no byte left"

    yield Trouble(strike=strike, lift=lambda: remove(room.folder / BALLAST))


@contextmanager
def read_only(room: Room, case: Case) -> Iterator[Trouble]:
    """Make the folder read-only that holds the stage's first output: mounted so for root, by its mode for others."""
    outs = YAML(typ="safe").load((room.pristine / LOCK).read_text())["stages"][case.stage]["outs"]
    folder = room.folder / Path(outs[0]["path"]).parent
    if os.geteuid():
        folder.chmod(0o555)
        yield Trouble(lift=lambda: folder.chmod(0o755))
        return
    if not can_mount(room.pristine.parent / "mounted"):
        raise NotPossibleError
    mount("--bind", str(folder), str(folder))
    with ExitStack() as mounted:
        mounted.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        mount("-o", "remount,bind,ro", str(folder))
        yield Trouble(lift=mounted.pop_all().close)


@contextmanager
def clock_jump(room: Room, case: Case) -> Iterator[Trouble]:
    """Kill every process at once, and let the next run find what a clock that jumped in between leaves.

    Whatever the killed run has written is then from three days ahead, when the clock jumps back, or from three days
    ago. libfaketime was tried: under it, Python's waits with a limit never end.
    """
    began_s, goes_back = time.time(), case.choice < 0.5

    def strike() -> str | None:
        alive = [hit(process, signal.SIGKILL) for process in room.processes()]
        way = "back" if goes_back else "forward"
        return f"everything killed, the clock {JUMP_S // 86_400} days {way}" if any(alive) else None

    def jump() -> None:
        room.wait_until_gone(APPEAR_S)
        shift_times(room.folder, began_s, JUMP_S if goes_back else -JUMP_S)

    yield Trouble(strike=strike, lift=jump, one_line=False)


def shift_times(folder: Path, since_s: float, by_s: float) -> None:
    """Move the modification times of the files that were written since a time."""
    for path in folder.rglob("*"):
        status = path.lstat()
        if status.st_mtime >= since_s and not path.is_symlink():
            os.utime(path, (status.st_atime, status.st_mtime + by_s))


@contextmanager
def mlflow_unreachable(room: Room, case: Case) -> Iterator[Trouble]:
    """Name a port on which nothing listens."""
    yield Trouble({"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"})


@contextmanager
def mlflow_killed(room: Room, case: Case) -> Iterator[Trouble]:
    """Track in a server that is killed in the middle, and answers again for the next `dvc repro`."""
    port = free_port()
    variables = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    servers = [start_mlflow(room, port)]

    def strike() -> str | None:
        end_group(servers[0])
        return "MLflow's server killed"

    def start_again() -> None:
        end_group(servers[0])
        servers[0] = start_mlflow(room, port)

    try:
        yield Trouble(variables, variables, strike, lift=start_again)
    finally:
        end_group(servers[0])


@contextmanager
def endpoint_refuses(room: Room, case: Case) -> Iterator[Trouble]:
    """Read from an S3 endpoint that does not answer; the next `dvc repro` has the parameters as they were."""
    yield Trouble(lift=read_from_s3(room, f"http://127.0.0.1:{free_port()}"))


@contextmanager
def endpoint_fails(room: Room, case: Case) -> Iterator[Trouble]:
    """Read the demo's bucket from an S3 endpoint that fails or delays a share of the requests."""
    seed = int(case.choice * 2**16)
    with serve_faulty(room.pristine / "data/world-bucket", FAILING_SHARE, seed) as server:
        yield Trouble(lift=read_from_s3(room, server.url))


def read_from_s3(room: Room, url: str) -> Callable[[], object]:
    """Let the project read OpenImages' layout from an S3 endpoint; return what restores its parameters."""
    params = room.folder / "params.yaml"
    before = params.read_text()
    source = {"source": "openimages", "endpoint_url": url, "annotations_url": f"{url}/openimages"}
    change_parameters(params, {"acquire": source})
    return lambda: params.write_text(before)


def appeared(room: Room, name: str) -> psutil.Process | None:
    """Wait until a process with a title runs, and return it; None when the project's last process has ended."""
    deadline = time.monotonic() + APPEAR_S
    while time.monotonic() < deadline and (running := room.processes()):
        found = [process for process in running if title(process) == name]
        if found:
            return found[0]
        time.sleep(0.1)
    return None


def hit(process: psutil.Process, number: signal.Signals) -> bool:
    """Send a signal; return False when the process has ended."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def start_mlflow(room: Room, port: int) -> "subprocess.Popen[bytes]":
    """Start MLflow's server on the project's database, and return when it answers."""
    store = ("--backend-store-uri", f"sqlite:///{room.folder / MLFLOW_DATABASE}")
    command = (sys.executable, "-m", "mlflow", "server", *store, "--port", str(port), "--workers", "1")
    process = subprocess.Popen(
        command,
        cwd=room.pristine.parent,  # outside of the project, whose processes are those that run in its folder
        env=room.server_variables() | SETTINGS,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + MLFLOW_START_S
    while not answers(f"http://127.0.0.1:{port}/health"):
        if process.poll() is not None or time.monotonic() > deadline:
            end_group(process)
            raise RuntimeError(f"MLflow's server did not start on port {port}")
        time.sleep(0.2)
    return process


def answers(url: str) -> bool:
    """Return whether a server answers at an address."""
    try:
        return httpx.get(url, timeout=2.0).is_success
    except httpx.TransportError:
        return False


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


TROUBLES: dict[str, Callable[[Room, Case], AbstractContextManager[Trouble]]] = {
    "full disk": full_disk,
    "read-only folder": read_only,
    "clock jump": clock_jump,
    "MongoDB killed": killing(MONGOD),
    "Prefect's server killed": killing(PREFECT),
    "MLflow unreachable": mlflow_unreachable,
    "MLflow killed": mlflow_killed,
    "S3 killed": killing(ENDPOINT),
    "S3 hangs": hanging_endpoint,
    "S3 refuses": endpoint_refuses,
    "S3 slow and failing": endpoint_fails,
}
