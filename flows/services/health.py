"""Whether a service answers, and what it said when it does not."""

import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from flows.services.plan import LOGS, PORTS, PREFECT, Service, read_ports, services
from flows.services.processes import listens
from flows.services.supervision import Supervisor

START_S = 600.0  # a new Prefect database, MLflow's, and a model, on a busy machine
_ANSWER_S = 5.0
_PAUSE_S = 0.5


def is_healthy(service: Service, folder: Path) -> bool:
    """Return whether the service of the project in `folder` answers; another program on its port does not count."""
    try:
        answer = httpx.get(service.health, timeout=_ANSWER_S, follow_redirects=True)
    except httpx.HTTPError:
        return False
    return answer.is_success and listens(service.port, folder)


def running_prefect() -> str | None:
    """Return the address of the API of the Prefect server that runs in this project by `make up`, or None."""
    if not PORTS.is_file():
        return None
    server = next(service for service in services(read_ports(), {}) if service.name == PREFECT)
    return f"{server.url}/api" if is_healthy(server, Path().resolve()) else None


def wait_until_healthy(supervisor: Supervisor, wanted: Sequence[Service], folder: Path) -> str:
    """Return an empty text as soon as all services answer, or which of them has failed and what it said last."""
    deadline = time.monotonic() + START_S
    waiting = list(wanted)
    while waiting := [service for service in waiting if not is_healthy(service, folder)]:
        states = supervisor.states()
        late = time.monotonic() > deadline
        for service in waiting:
            if late or states[service.name].has_failed:
                return failure(service, "does not answer" if late else "does not start")
        time.sleep(_PAUSE_S)
    return ""


def failure(service: Service, what: str) -> str:
    """Return a line about a service that has failed, with the last line of its log."""
    path = LOGS / f"{service.name}.log"
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it has printed nothing")
    return f"{service.name} {what}: {last.removeprefix('error: ')} ({path})"
