"""The project's mongod: it ends with its owner, and a folder has one owner at a time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pymongo
import pytest

from pbe.errors import UnavailableError
from pbe.runtime import mongod

OWNER = """
import sys, time
from pathlib import Path
from pbe.runtime.mongod import running_mongod
with running_mongod(Path(sys.argv[1])) as uri:
    print(uri, flush=True)
    time.sleep(120)
"""


def start_owner(home: Path) -> tuple[subprocess.Popen[str], str]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(home)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    return owner, owner.stdout.readline().strip()


def gone(uri: str) -> bool:
    for _ in range(100):
        if not mongod.answers(uri):
            return True
        time.sleep(0.1)
    return False


def write(uri: str, value: int) -> None:
    with pymongo.MongoClient(uri) as client:
        client.here.things.insert_one({"value": value})


def read(uri: str) -> list[int]:
    with pymongo.MongoClient(uri) as client:
        return [thing["value"] for thing in client.here.things.find()]


def test_stops_on_leaving_and_keeps_what_was_written(tmp_path: Path) -> None:
    with mongod.running_mongod(tmp_path / ".fiftyone") as uri:
        write(uri, 7)
    assert not mongod.answers(uri)
    with mongod.running_mongod(tmp_path / ".fiftyone") as uri:
        assert read(uri) == [7]
    assert not (tmp_path / ".fiftyone/mongod.json").exists()


def test_the_mongod_of_a_killed_owner_ends_and_the_folder_opens_again(tmp_path: Path) -> None:
    owner, uri = start_owner(tmp_path)
    write(uri, 3)
    owner.kill()
    owner.wait()
    with mongod.running_mongod(tmp_path) as again:  # immediately: the old mongod may still be closing
        assert read(again) == [3]
    assert gone(uri)
    if owner.stdout:
        owner.stdout.close()


def test_opens_after_mongod_itself_was_killed(tmp_path: Path) -> None:
    with mongod.running_mongod(tmp_path) as uri:
        write(uri, 5)
        time.sleep(0.3)  # the journal is flushed every 100 ms
        os.kill(int((tmp_path / "db/mongod.lock").read_text()), signal.SIGKILL)
        assert gone(uri)
    with mongod.running_mongod(tmp_path) as uri:
        assert read(uri) == [5]


def test_a_second_process_uses_the_owners_and_leaves_it_running(tmp_path: Path) -> None:
    owner, uri = start_owner(tmp_path)
    try:
        with mongod.running_mongod(tmp_path) as second:
            assert second == uri
        assert mongod.answers(uri)
    finally:
        owner.terminate()
        owner.wait(120)
        if owner.stdout:
            owner.stdout.close()
    assert gone(uri)


def test_honours_a_given_address(tmp_path: Path) -> None:
    with mongod.running_mongod(tmp_path / "a") as uri, mongod.running_mongod(tmp_path / "b", uri) as given:
        assert given == uri
        assert not (tmp_path / "b").exists()


def test_an_address_that_does_not_answer_is_named(tmp_path: Path) -> None:
    no_answer = pytest.raises(UnavailableError, match=r"mongodb://127\.0\.0\.1:9: no MongoDB answers")
    with no_answer, mongod.running_mongod(tmp_path, "mongodb://127.0.0.1:9"):
        pass


def test_a_mongod_that_cannot_start_names_its_log(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db/journal").touch()  # where mongod wants a folder
    with pytest.raises(RuntimeError, match=r"mongod\.log"), mongod.running_mongod(tmp_path):
        pass
