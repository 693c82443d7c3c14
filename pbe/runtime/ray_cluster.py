"""The Ray cluster of a stage: a private one on this machine by default, an existing one if an address is given."""

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.data import DataContext
from ray.exceptions import RayError, RayTaskError

from pbe.errors import UserError, disk_error

KINDS = ("CPU", "GPU")
WAITING_S, REPORT_EVERY_S = 5.0, 60.0  # Ray needs a moment to place what it can place
_STATUS_TIMEOUT_S = 10


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
    except KeyboardInterrupt:
        raise  # the process ends now, and its cluster with it; a shutdown holds the interpreter for 15 s
    except BaseException:
        ray.shutdown()
        raise
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
    stderr says what it lacks, Ray waits for new nodes, and `waiting_reported` repeats the line.
    """
    available = ray.cluster_resources()
    lacking = _lacking({"CPU": num_cpus, "GPU": num_gpus}, available)
    if not lacking:
        return
    if not can_grow:
        key = f"{section}.num_workers" if available.get("GPU") or not num_gpus else f"{section}.use_gpu"
        fix = f"lower {section}.num_workers" if key.endswith("num_workers") else f"set {key} to false"
        raise UserError(f"{key}: this machine is too small: {lacking}; {fix}, or set RAY_ADDRESS")
    print(f"{section}: waiting for the Ray cluster to grow: {lacking}", file=sys.stderr, flush=True)


@contextmanager
def waiting_reported(section: str, *, first_s: float = WAITING_S, every_s: float = REPORT_EVERY_S) -> Iterator[None]:
    """Say on stderr what Ray waits for during the block: after `first_s` seconds, and again every `every_s`.

    Ray itself waits silently: for nodes that a cluster lacks, and for CPUs and GPUs that another job holds.
    """
    ended = threading.Event()
    client = ray.get_runtime_context().gcs_address
    thread = threading.Thread(
        target=_report_waiting, args=(section, client, ended, first_s, every_s), name="ray-waiting", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_STATUS_TIMEOUT_S)


def _report_waiting(section: str, address: str, ended: threading.Event, first_s: float, every_s: float) -> None:
    pause_s = first_s
    seen: str | None = None
    while not ended.wait(pause_s):
        try:
            needed = unmet_demands(address)
        except (RayError, RuntimeError, OSError):
            # The head does not answer, and the stage itself finds out: another attempt, which holds the interpreter's
            # lock for 40 s, would only delay that, and Ctrl-C.
            return
        if needed is not None and (needed == seen or pause_s == every_s):
            print(f"{section}: waiting for the Ray cluster: {needed}", file=sys.stderr, flush=True)
            pause_s = every_s
        else:
            pause_s = first_s
        seen = needed


def unmet_demands(address: str) -> str | None:
    """Return what tasks, actors and groups of the cluster at `address` wait for, and what is free; None for nothing."""
    status = get_cluster_status(address, timeout=_STATUS_TIMEOUT_S)
    demands = status.resource_demands
    bundles = [each for demand in demands.ray_task_actor_demand for each in demand.bundles_by_count]
    bundles += [each for demand in demands.placement_group_demand for each in demand.bundles_by_count]
    total = {kind: sum(float(each.bundle.get(kind, 0)) * each.count for each in bundles) for kind in KINDS}
    if not any(total.values()):
        return None
    usage = {each.resource_name: each for each in status.cluster_resource_usage}
    free = {kind: usage[kind].total - usage[kind].used if kind in usage else 0 for kind in KINDS}
    wanted = " and ".join(f"{amount:g} {kind}s" for kind, amount in total.items() if amount)
    return _lacking(total, free, " free") or f"{wanted} are needed, and no node has them free"


def _lacking(needed: Mapping[str, float], available: Mapping[str, float], state: str = "") -> str:
    """Return `9 CPUs are needed and it has 2, ...` for each kind that is lacking; empty when none is."""
    amounts = [(kind, needed.get(kind, 0), available.get(kind, 0)) for kind in KINDS]
    return ", ".join(
        f"{wanted:g} {kind}{' is' if wanted == 1 else 's are'} needed and it has {has:g}{state}"
        for kind, wanted, has in amounts
        if has < wanted
    )
