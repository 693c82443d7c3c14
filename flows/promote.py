"""Moves the alias `champion` by hand: two deployments of prefect.yaml, which do what `pbe models` does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.links import version_address
from flows.notification import notifies
from flows.provenance import tracking_uri
from flows.retries import RETRIES, RETRY_DELAYS_S, is_retryable
from flows.server import loss_reported
from flows.stage import failed_state
from pbe import layout
from pbe.errors import UserError
from pbe.settings import load_settings

if TYPE_CHECKING:
    from pbe.serving.registry.management import Moved

MAX_REASON_LENGTH = 500
Version = Annotated[str, Field(pattern=r"^\s*([0-9]+|[A-Za-z][A-Za-z0-9_-]*)\s*$")]
Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON_LENGTH)]


@notifies
@flow(
    name="promote",
    flow_run_name="promote {version}",
    persist_result=False,
)
def promote(version: Version, reason: Reason) -> State[Any] | None:
    """Make a registered version the champion, whatever the gate says of it.

    Args:
        version: the number of a version, or an alias such as challenger
        reason: why, in a sentence; it is kept with the version
    """
    return _outcome(move_champion(version.strip(), reason, return_state=True))


@notifies
@flow(
    name="rollback",
    flow_run_name="rollback",
    persist_result=False,
)
def rollback(reason: Annotated[str, Field(max_length=MAX_REASON_LENGTH)] = "") -> State[Any] | None:
    """Make the champion before the present one champion again.

    Args:
        reason: why, in a sentence; it is kept with the version
    """
    return _outcome(move_champion(None, reason, return_state=True))


@task(
    task_run_name="move the alias champion",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=is_retryable,
)
def move_champion(version: str | None, reason: str) -> State[Any] | None:
    """Promote a version, or without one roll back, and show the new champion as an artifact."""
    from pbe.serving.registry import management  # imports MLflow: 3 s

    name, uri = load_settings(layout.PARAMS).register_.name, tracking_uri(Path())
    try:
        if version is None:
            moved = management.rollback(name, reason, tracking_uri=uri)
        else:
            moved = management.promote(name, version, reason, tracking_uri=uri)
    except UserError as error:
        return failed_state(error)
    get_run_logger().info("%s: version %d is the champion", name, moved.version)
    with loss_reported():
        create_markdown_artifact(markdown(moved), key="champion", description="The present champion")
    return None


def markdown(moved: "Moved") -> str:
    """Return which version is the champion now, and why."""
    before = f"Before it, version {moved.previous} was." if moved.previous else "It is the first."
    address = version_address(moved.name, moved.version)
    link = f"\n\n[The version in MLflow]({address})" if address else ""
    return f"## Version {moved.version} of {moved.name} is the champion\n\n{before} Reason: {moved.reason}{link}\n"


def _outcome(state: State[Any]) -> State[Any] | None:
    return None if state.is_completed() else State(type=state.type, name=state.name, message=state.message)
