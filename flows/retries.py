"""When a run tries again: only after a server, a network or a disk has failed, which may come back without a person."""

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from flows.stage import UNAVAILABLE

RETRIES = 2
RETRY_DELAYS_S = [10.0, 60.0]


def is_retryable(task_: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether another attempt may succeed: an error of the user or a bug would only repeat itself."""
    return state.name == UNAVAILABLE
