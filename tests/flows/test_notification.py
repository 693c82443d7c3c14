"""Notifications, sent to a real server on this machine."""

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect import Flow, flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, PREFECT_UI_URL, temporary_settings
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed

from flows.notification import STATES, URL, notify
from pbe.runtime.ports import LOOPBACK, free_port
from tests.flows.test_pipeline import PIPELINE, runs
from tests.support.toy_project import ROOT, Project

DEPLOYED = [
    load_flow_from_entrypoint(deployment["entrypoint"])
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
]
UI = "http://127.0.0.1:4200"


class Webhook:
    """A server that keeps what it gets, and answers with `status`."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                webhook.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(webhook.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self.server.server_port}/hooks/secret"


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """Return a webhook that is set."""
    webhook = Webhook()
    thread = threading.Thread(target=webhook.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.setenv(URL, webhook.url)
    monkeypatch.delenv(STATES, raising=False)
    yield webhook
    webhook.server.shutdown()
    webhook.server.server_close()


@flow(name="pipeline")
def some_flow() -> None:
    """Stand for the pipeline."""


def send(state: State[Any]) -> FlowRun:
    run = FlowRun(id=uuid4(), flow_id=uuid4(), name="all stages")
    with temporary_settings({PREFECT_API_URL: f"{UI}/api", PREFECT_UI_URL: UI, PREFECT_LOGGING_TO_API_ENABLED: False}):
        notify(some_flow, run, state)
    return run


def test_a_failure_says_which_run_why_and_where(webhook: Webhook) -> None:
    run = send(Failed(name="UserError", message="stage train: data/latents:\n empty"))
    assert webhook.got == [
        {
            "text": "all stages: UserError: stage train: data/latents: empty",
            "flow": "pipeline",
            "run": "all stages",
            "state": "FAILED",
            "state_name": "UserError",
            "reason": "stage train: data/latents: empty",
            "url": f"{UI}/runs/flow-run/{run.id}",
        }
    ]


@pytest.mark.parametrize(
    ("states", "expected"),
    [(None, ["FAILED", "CRASHED", "CANCELLED", "CANCELLED"]), ("completed, crashed", ["CRASHED", "COMPLETED"])],
)
def test_the_states_that_are_sent_are_a_setting(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, states: str | None, expected: list[str]
) -> None:
    if states is not None:
        monkeypatch.setenv(STATES, states)
    for state in (Failed(), Crashed(), Cancelled(), Cancelling(), Completed()):
        send(state)
    assert [each["state"] for each in webhook.got] == expected


def test_without_an_address_nothing_is_sent(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL)
    send(Failed())
    assert webhook.got == []


def test_a_webhook_that_fails_is_a_warning_without_its_address(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The address is often a secret."""
    webhook.status = 403
    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr(logging.getLogger("prefect"), "propagate", True)
        send(Failed())
        monkeypatch.setenv(URL, f"http://{LOOPBACK}:{free_port()}/secret")
        send(Failed())
    assert [record.getMessage() for record in caplog.records] == [
        f"{URL}: the notification was not sent: status 403",
        f"{URL}: the notification was not sent: [Errno 111] Connection refused",
    ]


@pytest.mark.parametrize("each", DEPLOYED, ids=lambda each: each.name)
def test_every_deployed_flow_sends_its_ends(each: Flow[..., Any]) -> None:
    hooks = (each.on_completion_hooks, each.on_failure_hooks, each.on_cancellation_hooks, each.on_crashed_hooks)
    assert all(notify in of_state for of_state in hooks)


@pytest.mark.slow
def test_a_stage_that_fails_is_sent(webhook: Webhook, project: Project) -> None:
    project.env |= {URL: webhook.url}
    project.naps(13)
    assert project.run(*PIPELINE, "acquire").returncode == 2
    (got,) = webhook.got
    run = runs(project)["pipeline"]
    assert (got["run"], got["state"], got["state_name"]) == ("acquire", "FAILED", "UserError")
    assert got["reason"] == "stage acquire: naps.txt: 13 is unlucky; give another number"
    assert got["url"].endswith(f"/runs/flow-run/{run['id']}")
