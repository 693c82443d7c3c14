"""Which services a project has: their commands, ports and addresses."""

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from flows.links import MLFLOW_URL, REPORTS_URL
from pbe import layout
from pbe.errors import UserError
from pbe.runtime.files import read_json, write_json
from pbe.runtime.ports import LOOPBACK, require_free_port

FOLDER = layout.STATE / "services"
LOGS = layout.STATE / "logs"
PORTS = FOLDER / "ports.json"  # of the services that run, or ran last
MARK = "PBE_SERVICES"  # the project's folder, in the environment of every process of its services
PROJECT = "PBE_PROJECT"  # the folder in which the worker's runs take place: see prefect.yaml
PREFECT, WORKER, MLFLOW, PAGE, REPORTS, FIFTYONE = "prefect", "worker", "mlflow", "page", "reports", "fiftyone"

_PBE = ("-m", "pbe.serving.commands.main")
_FILES = ("-m", "http.server", "--bind", LOOPBACK, "--directory", str(layout.REPORTS))


@dataclass(frozen=True)
class Ports:
    """The ports on 127.0.0.1, each with a flag of the same name, such as --mlflow-port."""

    prefect: int = 4200
    worker: int = 4201
    mlflow: int = 5000
    page: int = 8000
    reports: int = 8001
    fiftyone: int = 5151

    def url(self, name: str) -> str:
        """Return the address of a service."""
        return f"http://{LOOPBACK}:{getattr(self, name)}"


@dataclass(frozen=True)
class Service:
    """A process of `python COMMAND...` that answers on a port."""

    name: str
    purpose: str
    command: tuple[str, ...]
    port: int
    health: str  # the address that answers 200 when the service is usable
    on_request: bool = False

    @property
    def url(self) -> str:
        """Return the address for people."""
        return f"http://{LOOPBACK}:{self.port}"


def services(ports: Ports, configured: Mapping[str, str]) -> list[Service]:
    """Return the project's services in the order in which they start.

    `configured` names servers that run elsewhere, Prefect's and MLflow's: they are used, and not started here.
    """
    known = (
        (
            PREFECT,
            "runs, schedules, and forms that start runs",
            ("-m", "flows.server", "--port", "{port}"),
            "/api/health",
        ),
        (MLFLOW, "training runs and registered models", ("-m", "flows.mlflow_server", "--port", "{port}"), "/health"),
        (PAGE, "paint; the HTTP service is at /v1", (*_PBE, "app", "--port", "{port}"), "/healthz"),
        (REPORTS, "the last evaluation, and those of single models", (*_FILES, "{port}"), "/"),
        (WORKER, "starts the runs", ("-m", "flows.services.worker"), "/health"),
        (FIFTYONE, "the curated images", (*_PBE, "browse", "--port", "{port}"), "/"),
    )
    found = []
    for name, purpose, command, health in known:
        if name in configured:
            continue
        port = int(getattr(ports, name))
        arguments = tuple(part.format(port=port) for part in command)
        found.append(Service(name, purpose, arguments, port, f"{ports.url(name)}{health}", name == FIFTYONE))
    return found


def configured_servers() -> dict[str, str]:
    """Return the addresses of Prefect's and MLflow's servers that the environment or prefect.toml names."""
    from prefect.settings import PREFECT_API_URL

    found = {PREFECT: PREFECT_API_URL.value(), MLFLOW: os.environ.get("MLFLOW_TRACKING_URI")}
    return {name: address for name, address in found.items() if address}


def environment(folder: Path, ports: Ports, configured: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the services: this process's, and where the project and the servers are."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        **os.environ,
        "PATH": path,
        "PYTHONUNBUFFERED": "1",
        MARK: str(folder),
        PROJECT: str(folder),
        "PREFECT_API_URL": configured.get(PREFECT) or f"{ports.url(PREFECT)}/api",
        "PREFECT_WORKER_WEBSERVER_HOST": LOOPBACK,
        "PREFECT_WORKER_WEBSERVER_PORT": str(ports.worker),
        MLFLOW_URL: configured.get(MLFLOW) or ports.url(MLFLOW),
        REPORTS_URL: ports.url(REPORTS),
    }


def require_free_ports(wanted: list[Service]) -> None:
    """Raise UserError, which names the process and the flag, when another process listens on the port of a service."""
    used: dict[int, str] = {}
    for service in wanted:
        option = f"--{service.name}-port"
        if service.port in used:
            raise UserError(f"{option} {service.port}: is the port of {used[service.port]} as well; choose another one")
        used[service.port] = service.name
        require_free_port(service.port, option)


def read_ports() -> Ports:
    """Return the ports on which the services run, or ran last; the usual ones in a new project."""
    if not PORTS.is_file():
        return Ports()
    known = {field.name for field in fields(Ports)}
    return Ports(**{name: port for name, port in read_json(PORTS).items() if name in known})


def write_ports(ports: Ports) -> None:
    """Keep the ports for `down` and `status`."""
    write_json(PORTS, asdict(ports))
