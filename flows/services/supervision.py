"""supervisord starts the services, and starts one again that ends: its configuration and its XML-RPC interface."""

import configparser
import hashlib
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError
from xmlrpc.client import Fault, ServerProxy

from flows.services.plan import FOLDER, LOGS, WORKER, Service
from pbe.errors import UnavailableError

CONFIGURATION = FOLDER / "supervisord.conf"
STOP_S = 10  # until a service that does not end is killed
MAX_STARTS = 3
LOG_BYTES, LOG_BACKUPS = "10MB", 3
_DAEMON_LOG = "supervisord.log"
_GONE = (OSError, HTTPException, ExpatError, Fault)  # the last two while it ends


@dataclass(frozen=True)
class ServiceState:
    """What supervisord knows of a service."""

    state: str  # STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED or FATAL
    pid: int  # 0 when it does not run

    @property
    def has_failed(self) -> bool:
        """Return whether supervisord does not start it again."""
        return self.state in ("FATAL", "EXITED", "UNKNOWN")


class Supervisor:
    """A running supervisord."""

    def __init__(self, socket_path: str) -> None:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{socket_path}")
        self._api: Any = ServerProxy("http://127.0.0.1", transport=transport).supervisor

    @property
    def pid(self) -> int:
        """The process of supervisord."""
        return int(self._api.getPID())

    def states(self) -> dict[str, ServiceState]:
        """Return the state of each service; raises UnavailableError when supervisord does not answer."""
        try:
            found = self._api.getAllProcessInfo()
        except _GONE:
            raise UnavailableError("supervisord does not answer; run: make down up") from None
        return {each["name"]: ServiceState(each["statename"], each["pid"]) for each in found}

    def start(self, name: str) -> None:
        """Start a service that does not run."""
        with suppress(Fault):  # it runs already, or its end is in `states`
            self._api.startProcess(name, False)

    def stop(self, name: str, *, wait: bool = True) -> None:
        """Stop a service; with `wait` return when it has ended."""
        with suppress(Fault):  # it does not run
            self._api.stopProcess(name, wait)

    def shut_down(self) -> None:
        """Let supervisord stop all services, the last one first, and end."""
        with suppress(*_GONE):  # it may end before it answers, or be ending already
            self._api.shutdown()


def connect() -> Supervisor | None:
    """Return the supervisord of the project in the working directory; None when none runs."""
    parser = configparser.RawConfigParser()
    if not parser.read(CONFIGURATION):
        return None
    supervisor = Supervisor(parser["unix_http_server"]["file"].replace("%%", "%"))
    try:
        supervisor.states()
    except UnavailableError:
        return None
    return supervisor


def start_supervisord(folder: Path, services: Sequence[Service], environment: Mapping[str, str]) -> Supervisor:
    """Start supervisord with these services in the background, and return when it answers."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    with CONFIGURATION.open("w") as file:
        configuration(folder, services).write(file)
    command = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(CONFIGURATION)]
    ended = subprocess.run(command, env=dict(environment), capture_output=True, text=True)
    supervisor = connect()
    if supervisor is None:
        raise RuntimeError(
            f"supervisord did not start: {ended.stderr or ended.stdout}; its log is {LOGS / _DAEMON_LOG}"
        )
    return supervisor


def configuration(folder: Path, services: Sequence[Service]) -> configparser.RawConfigParser:
    """Return supervisord's configuration for the services of the project in `folder`."""
    found = configparser.RawConfigParser()
    # Paths are relative to the folder in which supervisord starts: it expands a percent sign in some of them twice.
    found["supervisord"] = _escaped(logfile=LOGS / _DAEMON_LOG, pidfile=FOLDER / "supervisord.pid")
    found["unix_http_server"] = _escaped(file=socket_path(folder), chmod="0700")
    found["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    found["supervisorctl"] = _escaped(serverurl=f"unix://{socket_path(folder)}")
    for priority, service in enumerate(services):
        found[f"program:{service.name}"] = _escaped(
            command=shlex.join([sys.executable, *service.command]),
            priority=priority,
            autostart=not service.on_request,
            autorestart=True,
            startsecs=2,
            startretries=MAX_STARTS,
            stopwaitsecs=STOP_S,
            stopasgroup=service.name != WORKER,  # the worker stops its runs
            killasgroup=True,
            redirect_stderr=True,
            stdout_logfile=LOGS / f"{service.name}.log",
            stdout_logfile_maxbytes=LOG_BYTES,
            stdout_logfile_backups=LOG_BACKUPS,
        )
    return found


def socket_path(folder: Path) -> Path:
    """Return the path of supervisord's socket: a path of more than 107 characters cannot be one."""
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"pbe-{digest}.sock"


def _escaped(**values: object) -> dict[str, str]:
    return {name: str(value).replace("%", "%%") for name, value in values.items()}
