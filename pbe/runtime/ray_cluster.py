"""The Ray cluster of a stage: this machine by default, an existing cluster where an address is given."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.data import DataContext

from pbe.errors import UserError


@contextmanager
def ray_cluster(address: str | None, num_cpus: int) -> Iterator[None]:
    """Connect to `address`, or start a private cluster of `num_cpus` logical CPUs here and stop it at the end.

    One CPU more than the workers need keeps Ray Data from waiting for ever beside them.
    """
    if address:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    else:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    DataContext.get_current().enable_progress_bars = False
    for library in ("ray.data", "ray.train"):
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def check_room(num_cpus: int, num_gpus: int, can_grow: bool) -> None:
    """Tell when the cluster lacks what a stage reserves, where Ray would wait without a word.

    A cluster that can grow is waited for, after a line on stderr; else raises UserError.
    """
    there = ray.cluster_resources()
    lacking = [
        f"{wanted} {kind}s are wanted, {there.get(kind, 0):.0f} are there"
        for kind, wanted in (("CPU", num_cpus), ("GPU", num_gpus))
        if there.get(kind, 0) < wanted
    ]
    if not lacking:
        return
    if not can_grow:
        raise UserError(f"this machine is too small: {', '.join(lacking)}; lower num_workers, or set RAY_ADDRESS")
    print(f"waiting for the Ray cluster to grow: {', '.join(lacking)}", file=sys.stderr, flush=True)
