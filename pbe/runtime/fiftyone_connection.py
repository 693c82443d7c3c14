"""FiftyOne, connected to one MongoDB with its own files in the project."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def connected_fiftyone(uri: str, home: Path) -> Iterator[Any]:
    """Import FiftyOne (seconds), connect it to the MongoDB at `uri`, and yield the module.

    FiftyOne keeps its own files under `home`. The block ends with a disconnection: at exit, FiftyOne would otherwise
    wait half a minute for a database that has stopped.
    """
    import fiftyone as fo

    _disconnect()
    fo.config.database_uri = uri
    fo.config.database_validation = False  # the wheel's MongoDB 6 works; FiftyOne announces that it will drop it
    fo.config.do_not_track = True
    fo.config.show_progress_bars = False
    for name in ("default_dataset_dir", "dataset_zoo_dir", "model_zoo_dir", "plugins_dir"):
        setattr(fo.config, name, str(home / name.removesuffix("_dir")))
    for name in ("fiftyone", "eta"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield fo
    finally:
        _disconnect()


def _disconnect() -> None:
    """Close FiftyOne's connection and drop its cached handles: 1.13 has no public way to change the database."""
    from fiftyone.core.odm import database
    from fiftyone.factory import repo_factory

    repo_factory.RepositoryFactory.repos.clear()
    repo_factory._db = None
    database._disconnect()
