"""The Ray cluster of a stage: this machine by default, an existing cluster where an address is given."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.data import DataContext


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
