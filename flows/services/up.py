"""`up` starts the services and returns when all answer; Ctrl-C and a service that fails stop them again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flows.services import processes
from flows.services.down import down
from flows.services.health import wait_until_healthy
from flows.services.plan import (
    FIFTYONE,
    LOGS,
    Ports,
    Service,
    configured_servers,
    environment,
    read_ports,
    require_free_ports,
    services,
    write_ports,
)
from flows.services.supervision import STOP_S, Supervisor, connect, start_supervisord
from pbe import layout
from pbe.errors import UnavailableError, UserError
from pbe.runtime.locks import hold_lock
from pbe.settings import load_settings

DEPLOYMENTS = Path("prefect.yaml")
_INTERRUPTED_GRACE_S = 3.0


@dataclass(frozen=True)
class Plan:
    """What `up` was asked for."""

    folder: Path
    ports: Ports
    configured: Mapping[str, str]  # servers that run elsewhere
    with_fiftyone: bool

    @property
    def services(self) -> list[Service]:
        """Return all services of the project."""
        return services(self.ports, self.configured)

    @property
    def wanted(self) -> list[Service]:
        """Return the services that are to run."""
        return [service for service in self.services if self.with_fiftyone or not service.on_request]


def up(ports: Mapping[str, int], *, with_fiftyone: bool = False) -> str:
    """Start the services that do not run, wait until all answer, and return their addresses as a text.

    `ports` are those that are not the usual ones, by the services' names. A second `up` may add FiftyOne's App. Raises
    UserError when a port is taken, before anything starts, or when a service fails; then nothing stays that this call
    has started.
    """
    folder = Path().resolve()
    if not DEPLOYMENTS.is_file():
        raise UserError(f"{DEPLOYMENTS}: no such file; run this in the root of the checkout")
    load_settings(layout.PARAMS)  # an error in it would end every run
    with hold_lock(layout.stage_lock("services"), timeout_s=0.0):
        supervisor = connect()
        plan = Plan(folder, _ports(ports, supervisor), configured_servers(), with_fiftyone)
        if supervisor is None:
            _start_all(plan)
        elif with_fiftyone:
            _start_fiftyone(plan, supervisor)
        else:
            _require_healthy(plan, supervisor)
    return overview(plan)


def _ports(given: Mapping[str, int], supervisor: Supervisor | None) -> Ports:
    if supervisor is None:
        return replace(Ports(), **given)
    ports = read_ports()
    for name, port in given.items():
        if getattr(ports, name) != port:
            raise UserError(f"--{name}-port {port}: the services run, with port {getattr(ports, name)}; run: make down")
    return ports


def _start_all(plan: Plan) -> None:
    processes.end_all(plan.folder, STOP_S)  # processes that a killed supervisord has left
    require_free_ports(plan.wanted)
    _require_configured(plan.configured)
    write_ports(plan.ports)
    try:
        supervisor = start_supervisord(
            plan.folder, plan.services, environment(plan.folder, plan.ports, plan.configured)
        )
        if plan.with_fiftyone:
            supervisor.start(FIFTYONE)
        _require_healthy(plan, supervisor)
    except KeyboardInterrupt:
        processes.end_all(plan.folder, _INTERRUPTED_GRACE_S)
        raise
    except UserError:
        down(plan.folder)
        raise


def _start_fiftyone(plan: Plan, supervisor: Supervisor) -> None:
    if supervisor.states()[FIFTYONE].pid == 0:
        require_free_ports([service for service in plan.services if service.name == FIFTYONE])
        supervisor.start(FIFTYONE)
    try:
        _require_healthy(plan, supervisor)
    except (KeyboardInterrupt, UserError):
        supervisor.stop(FIFTYONE)
        raise


def _require_healthy(plan: Plan, supervisor: Supervisor) -> None:
    if problem := wait_until_healthy(supervisor, plan.wanted, plan.folder):
        raise UserError(problem)


def _require_configured(configured: Mapping[str, str]) -> None:
    from flows import server

    if "prefect" in configured and not server.answers(attempts=3):
        raise UnavailableError(
            f"PREFECT_API_URL={configured['prefect']}: no Prefect server answers; start it, or unset PREFECT_API_URL"
        )


def overview(plan: Plan) -> str:
    """Return the services' addresses, where their logs are, and how to stop them."""
    rows = [(service.name, service.url, service.purpose) for service in plan.wanted]
    rows += [(name, address, "runs elsewhere, and is used") for name, address in plan.configured.items()]
    if not plan.with_fiftyone:
        rows.append((FIFTYONE, "-", "the curated images; on request: make up FIFTYONE=1"))
    width = max(len(address) for _, address, _ in rows)
    lines = [f"{name:9} {address:{width}}  {purpose}" for name, address, purpose in rows]
    return "\n".join([*lines, f"logs: {LOGS}/  health: make status  stop: make down"])
