"""FiftyOne's default database: the one that FiftyOne uses when nothing is configured, in ~/.fiftyone.

FiftyOne's own settings, in its environment variables and ~/.fiftyone/config.json, may move it.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from pbe.runtime.mongod import running_mongod
from pbe.runtime.ports import LOOPBACK


def default_database_folder() -> Path:
    """Return the folder of the default database, which may not exist."""
    configured = os.environ.get("FIFTYONE_DATABASE_DIR") or _config().get("database_dir")
    return Path(str(configured)).expanduser() if configured else Path.home() / ".fiftyone" / "var" / "lib" / "mongo"


@contextmanager
def running_default_database() -> Iterator[str]:
    """Yield the address of a MongoDB on the default database: a running one, or one that stops with the block.

    Raises what `running_mongod` raises.
    """
    folder = default_database_folder()
    port = _port_of_owner(folder)
    uri = _config().get("database_uri") or (port and f"mongodb://{LOOPBACK}:{port}")
    with tempfile.TemporaryDirectory(prefix="pbe-fiftyone-") as scratch:
        if not uri:
            (Path(scratch) / "db").symlink_to(folder)
        with running_mongod(Path(scratch), str(uri) if uri else None) as found:
            yield found


def _config() -> dict[str, Any]:
    path = Path(os.environ.get("FIFTYONE_CONFIG_PATH") or Path.home() / ".fiftyone" / "config.json")
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _port_of_owner(folder: Path) -> int | None:
    """Return the port of the mongod that holds the folder now, which writes its process id into mongod.lock."""
    try:
        process = psutil.Process(int((folder / "mongod.lock").read_text()))
        if "mongod" not in process.name():
            return None
        listening = [each for each in process.net_connections() if each.status == psutil.CONN_LISTEN]
        return int(listening[0].laddr.port) if listening else None
    except (OSError, ValueError, psutil.Error):
        return None
