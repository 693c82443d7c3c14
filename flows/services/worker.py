"""The Prefect worker of `make up`: creates the work pool and the deployments of prefect.yaml, then polls for runs.

`python -m flows.services.worker` waits for Prefect's server, and becomes the worker.
"""

import os
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Crashed
from prefect.workers.process import ProcessWorker

from flows import server
from flows.services.plan import PREFECT, PROJECT, read_ports
from flows.services.processes import flow_runs, marked

POOL = "local"
HEAVY_QUEUE = "pipeline"  # of the runs that use the whole machine: one at a time
LOST = "its process was killed; start the run again"
_WAIT_S = 300.0
_OPTIONS = f"--pool {POOL} --type process --name make-up --install-policy never --with-healthcheck".split()
_UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


def main() -> None:
    """Prepare the server, and become its worker."""
    deadline = time.monotonic() + _WAIT_S
    while not server.answers(attempts=1):
        if time.monotonic() > deadline:
            raise SystemExit("error: Prefect's server does not answer")
        time.sleep(0.5)
    with get_client(sync_client=True) as client:
        create_pool(client)
        if is_own_server():
            end_lost_runs(client, flow_runs(marked(Path(os.environ[PROJECT]))))
    deploy()
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO"  # the worker's log has the runs' logs as well
    os.execv(sys.executable, [sys.executable, "-m", "prefect", "worker", "start", *_OPTIONS])


def is_own_server() -> bool:
    """Return whether Prefect's server is one of the services: another one has other workers as well."""
    return os.environ["PREFECT_API_URL"] == f"{read_ports().url(PREFECT)}/api"


def create_pool(client: SyncPrefectClient) -> None:
    """Create the work pool of prefect.yaml and its queue for heavy runs, unless they exist."""
    template = ProcessWorker.get_default_base_job_template()
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))
    try:
        queue = client.create_work_queue(HEAVY_QUEUE, work_pool_name=POOL, concurrency_limit=1)
    except ObjectAlreadyExists:
        queue = client.read_work_queue_by_name(HEAVY_QUEUE, work_pool_name=POOL)
        client.update_work_queue(queue.id, concurrency_limit=1)


def end_lost_runs(client: SyncPrefectClient, alive: Collection[str]) -> list[str]:
    """Mark as crashed the runs of deployments that have no process, and the stages below them; return their names.

    `alive` are the ids of the runs that have one. A run that was killed would block its queue for ever.
    """
    unfinished = FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED))
    runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=unfinished))
    lost = [run for run in runs if run.deployment_id is not None and str(run.id) not in alive]
    if lost:
        parents = FlowRunFilterParentFlowRunId(any_=[run.id for run in lost])
        lost += client.read_flow_runs(flow_run_filter=FlowRunFilter(state=unfinished, parent_flow_run_id=parents))
    for run in lost:
        client.set_flow_run_state(run.id, Crashed(message=LOST), force=True)
    return [run.name for run in lost]


def deploy() -> None:
    """Create or update the deployments of prefect.yaml.

    PBE_PROJECT is left out, so that each worker's environment says where its checkout is.
    """
    environment = {name: value for name, value in os.environ.items() if name != PROJECT}
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main()
