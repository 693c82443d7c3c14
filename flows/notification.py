"""Notifications: the end of a run is sent as JSON to the webhook that PBE_WEBHOOK_URL names.

    {"text": "all stages: Failed: stage train: ...", "flow": "pipeline", "run": "all stages", "state": "FAILED",
     "state_name": "UserError", "reason": "stage train: ...", "url": "http://127.0.0.1:4200/runs/flow-run/..."}

Slack, Mattermost and others show `text`. PBE_WEBHOOK_STATES names the states to send, by default FAILED, CRASHED and
CANCELLED; COMPLETED is the fourth. A webhook that fails is a warning in the run's log, and changes nothing in the run.
"""

import os
from typing import Any, TypeVar

import httpx
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger
from prefect.utilities.urls import url_for

URL, STATES = "PBE_WEBHOOK_URL", "PBE_WEBHOOK_STATES"
DEFAULT_STATES = "FAILED,CRASHED,CANCELLED"
_TIMEOUT_S = 5.0
_CONNECTION_RETRIES = 2

F = TypeVar("F", bound=Flow[..., Any])


def notifies(flow: F) -> F:
    """Send the ends of a flow's runs, whatever they are; a decorator of a flow."""
    for add_hook in (flow.on_completion, flow.on_failure, flow.on_cancellation, flow.on_crashed):
        add_hook(notify)
    return flow


def notify(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Send the end of a run to the webhook, if one is set; a state hook of Prefect."""
    address = os.environ.get(URL)
    if not address or ended_in(state) not in wanted_states():
        return
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=_CONNECTION_RETRIES), timeout=_TIMEOUT_S) as client:
            client.post(address, json=message(flow, flow_run, state)).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = f"status {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else str(error)
        flow_run_logger(flow_run, flow).warning("%s: the notification was not sent: %s", URL, reason)


def message(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> dict[str, str]:
    """Return what a webhook gets."""
    reason = " ".join((state.message or "").split())
    return {
        "text": f"{flow_run.name}: {state.name}" + (f": {reason}" if reason else ""),
        "flow": flow.name,
        "run": flow_run.name,
        "state": ended_in(state),
        "state_name": str(state.name),
        "reason": reason,
        "url": url_for(flow_run) or "",
    }


def ended_in(state: State[Any]) -> str:
    """Return the type of a state; a run that is being cancelled has ended as cancelled."""
    return "CANCELLED" if state.is_cancelling() else str(state.type.value)


def wanted_states() -> set[str]:
    """Return the states that are sent."""
    return {name.strip().upper() for name in os.environ.get(STATES, DEFAULT_STATES).split(",")}
