"""The Ray cluster of a stage: a private one on this machine by default, an existing one if an address is given."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.data import DataContext
from ray.exceptions import RayTaskError

from pbe.errors import UserError, disk_error


@contextmanager
def ray_cluster(address: str | None, num_cpus: int) -> Iterator[None]:
    """Connect to the cluster at `address`, or run a private cluster of `num_cpus` logical CPUs for the block.

    The private cluster needs one CPU more than the workers take: Ray Data would otherwise wait for ever beside them.
    Raises UserError when no cluster answers at `address`.
    """
    if address:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except ConnectionError:
            raise UserError(f"RAY_ADDRESS={address}: no Ray cluster answers; start it, or unset RAY_ADDRESS") from None
    else:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # for `user_errors_of_tasks`
    for library in ("ray.data", "ray.train"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # the exception that reaches the stage says as much
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def user_errors_of_tasks() -> Iterator[None]:
    """Raise the UserError of a remote task as itself; any other exception keeps Ray's, with the worker's traceback."""
    try:
        yield
    except RayTaskError as error:
        user_error = as_user_error(error.cause)
        if user_error is None:
            raise
        raise user_error from None


def as_user_error(cause: BaseException) -> UserError | None:
    """Return the UserError that a remote exception is, or stands for (a full or protected disk); None for a bug."""
    if isinstance(cause, UserError):
        return type(cause)(str(cause).partition("\n")[0])  # Ray Data appends lines on its own settings
    return disk_error(cause) if isinstance(cause, OSError) else None


def check_resources(section: str, num_cpus: int, num_gpus: int, can_grow: bool) -> None:
    """Check that the cluster has the CPUs and GPUs that a stage reserves; without them, Ray waits silently.

    `section` is the stage's section of params.yaml. Raises UserError, unless the cluster can grow: then a line on
    stderr says what it lacks, and Ray waits for new nodes.
    """
    available = ray.cluster_resources()
    lacking = [
        f"{needed} {kind}s are needed and it has {available.get(kind, 0):.0f}"
        for kind, needed in (("CPU", num_cpus), ("GPU", num_gpus))
        if available.get(kind, 0) < needed
    ]
    if not lacking:
        return
    if not can_grow:
        key = f"{section}.num_workers" if available.get("GPU") or not num_gpus else f"{section}.use_gpu"
        fix = f"lower {section}.num_workers" if key.endswith("num_workers") else f"set {key} to false"
        raise UserError(f"{key}: this machine is too small: {', '.join(lacking)}; {fix}, or set RAY_ADDRESS")
    print(f"waiting for the Ray cluster to grow: {', '.join(lacking)}", file=sys.stderr, flush=True)
