"""`status` says what each service does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.services.health import failure, is_healthy
from flows.services.plan import LOGS, Service, configured_servers, read_ports, services
from flows.services.processes import marked
from flows.services.supervision import ServiceState, connect

HEALTHY, NOT_STARTED = "healthy", "not started"
ALL_ANSWER_CODE, NOT_ALL_CODE, NOTHING_RUNS_CODE = 0, 1, 3
_STOPPED = ServiceState("STOPPED", 0)


@dataclass(frozen=True)
class Row:
    """A service and what it does."""

    service: Service
    state: str
    pid: int

    @property
    def is_wrong(self) -> bool:
        """Return whether the service should answer and does not."""
        return self.state not in (HEALTHY, NOT_STARTED)


def status(folder: Path) -> tuple[str, int]:
    """Return a table of the project's services, and the exit code: 0 all answer, 1 not all, 3 nothing runs."""
    supervisor = connect()
    if supervisor is None and not marked(folder):
        return "nothing runs; to start the services: make up", NOTHING_RUNS_CODE
    states = supervisor.states() if supervisor else {}
    configured = configured_servers()
    rows = [
        Row(
            service, _state(service, states.get(service.name, _STOPPED), folder), states.get(service.name, _STOPPED).pid
        )
        for service in services(read_ports(), configured)
    ]
    lines = [*_table(rows), *(f"{name:9} {'elsewhere':15} {'-':>7}  {address}" for name, address in configured.items())]
    lines += [failure(row.service, row.state) for row in rows if row.is_wrong]
    lines.append(f"logs: {LOGS}/")
    if supervisor is None:
        lines.append("supervisord was killed, so nothing starts a service again; run: make down up")
    is_wrong = supervisor is None or any(row.is_wrong for row in rows)
    return "\n".join(lines), NOT_ALL_CODE if is_wrong else ALL_ANSWER_CODE


def _table(rows: Sequence[Row]) -> list[str]:
    head = f"{'service':9} {'state':15} {'process':>7}  address"
    return [head, *(f"{row.service.name:9} {row.state:15} {row.pid or '-':>7}  {row.service.url}" for row in rows)]


def _state(service: Service, known: ServiceState, folder: Path) -> str:
    if is_healthy(service, folder):
        return HEALTHY
    if known.has_failed:
        return "has failed"
    if known.state in ("STARTING", "BACKOFF"):
        return "starting"
    return "does not answer" if known.pid else NOT_STARTED
