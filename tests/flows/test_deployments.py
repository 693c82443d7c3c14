"""The deployments of prefect.yaml on a real server: what people can start, with which forms, and which runs wait."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Running
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import import_object

from flows.evaluate_model import evaluate_model
from flows.pipeline import STAGES, pipeline
from flows.promote import promote, rollback
from flows.retrain import retrain
from flows.services import worker
from flows.services.processes import FLOW_RUN
from tests.support.toy_project import ROOT

DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
NAMES = ["pipeline/nightly", "retrain/weekly", "evaluate-model/on-request", "promote/on-request", "rollback/on-request"]


@pytest.fixture(scope="module")
def client(api_url: str) -> Iterator[SyncPrefectClient]:
    """Return a client of the tests' server, which has no deployments and scheduled runs afterwards."""
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        yield client
        for deployment in client.read_deployments():
            client.delete_deployment(deployment.id)
        for run in client.read_flow_runs():
            client.delete_flow_run(run.id)


def form(flow: Any) -> dict[str, Any]:
    """Return the form that Prefect's interface shows for a flow's parameters."""
    return dict(parameter_schema(flow).model_dump_for_openapi()["properties"])


def test_every_deployment_names_a_flow_and_a_queue() -> None:
    found = [f"{import_object(each['entrypoint']).name}/{each['name']}" for each in DEPLOYMENTS]
    assert found == NAMES
    pools = {name: each["work_pool"] for name, each in zip(NAMES, DEPLOYMENTS, strict=True)}
    assert {pool["name"] for pool in pools.values()} == {worker.POOL}
    heavy = [name for name, pool in pools.items() if pool["work_queue_name"] == worker.HEAVY_QUEUE]
    assert heavy == NAMES[:3]  # promotion does not wait for a training


def test_the_forms_have_choices_and_limits() -> None:
    stages = form(pipeline)["stages"]["anyOf"][0]["items"]
    assert stages["enum"] == list(STAGES)
    assert form(pipeline)["force"]["type"] == form(retrain)["look_for_images"]["type"] == "boolean"
    assert form(evaluate_model)["num_cases"]["anyOf"][0] == {"minimum": 1, "type": "integer"}
    assert form(promote)["reason"]["minLength"] == 1
    for flow in (pipeline, retrain, evaluate_model, promote, rollback):
        assert all(field["description"] for field in form(flow).values()), flow.name


@pytest.mark.slow
def test_deploying_twice_creates_the_pool_the_queue_and_all_deployments(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PREFECT_API_URL", str(client.api_url).rstrip("/"))
    monkeypatch.setenv("PBE_PROJECT", "/some/checkout")
    for _ in range(2):
        worker.create_pool(client)
    worker.deploy()
    queue = client.read_work_queue_by_name(worker.HEAVY_QUEUE, work_pool_name=worker.POOL)
    assert queue.concurrency_limit == 1
    nightly = client.read_deployment_by_name("pipeline/nightly")
    assert [str(each.schedule.cron) for each in nightly.schedules] == ["0 3 * * *"]  # type: ignore[union-attr]
    # each worker's own checkout, not that of the person who deploys
    assert nightly.pull_steps == [
        {"prefect.deployments.steps.set_working_directory": {"directory": "{{ $PBE_PROJECT }}"}}
    ]
    assert sorted(NAMES) == sorted(
        f"{client.read_flow(each.flow_id).name}/{each.name}" for each in client.read_deployments()
    )


def test_a_run_whose_process_was_killed_is_crashed_and_others_are_left_alone(client: SyncPrefectClient) -> None:
    """A run that stays Running would hold the queue's only slot for ever."""
    deployment = client.create_deployment(client.create_flow(retrain), name=str(uuid4()))
    lost, alive = (client.create_flow_run_from_deployment(deployment) for _ in range(2))
    by_hand = client.create_flow_run(retrain)
    for run in (lost, alive, by_hand):
        client.set_flow_run_state(run.id, Running(), force=True)
    assert worker.end_lost_runs(client, {str(alive.id)}) == [lost.name]
    assert [state_of(client, run) for run in (lost, alive, by_hand)] == [
        (StateType.CRASHED, worker.LOST),
        (StateType.RUNNING, None),
        (StateType.RUNNING, None),
    ]


def state_of(client: SyncPrefectClient, run: FlowRun) -> tuple[StateType, str | None]:
    state = client.read_flow_run(run.id).state
    assert state is not None
    return state.type, state.message


def test_a_process_belongs_to_the_run_in_its_environment(tmp_path: Path) -> None:
    from flows.services.plan import MARK
    from flows.services.processes import flow_runs, marked

    env = os.environ | {MARK: str(tmp_path), FLOW_RUN: "b1"}
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=env) as process:
        found = {run: [each.pid for each in processes] for run, processes in flow_runs(marked(tmp_path)).items()}
        assert found == {"b1": [process.pid]}
        process.kill()
