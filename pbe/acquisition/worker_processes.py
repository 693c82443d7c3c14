"""Packing in several processes, for what one cannot do: a Python process handles some thousand objects a second.

Each process has connections of its own and takes the next shard that no other has taken. It tells of every image and
every shard in a line of JSON; the lines, not the images, are what passes between the processes. Those that are left
when one fails or when the reader goes are killed: what they have of their shards is of use to the next run.
"""

import fcntl
import json
import os
import selectors
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

from pbe.acquisition.shard_packing import Packer, Result
from pbe.acquisition.shard_plan import Folders, take_tasks
from pbe.acquisition.sources import open_bucket
from pbe.runtime.child_processes import exit_with_parent, kill_child, start_child
from pbe.settings import Acquire

LOCK = "crew.lock"  # in the folder of parts; each process holds a share of it

_PIPE_BYTES = 1 << 16


@dataclass(frozen=True)
class CrewJob:
    """What a process has to know to join: where the images are and where the plan and the shards."""

    settings: Acquire
    endpoint_url: str | None
    out: Path
    parts: Path

    def encode(self) -> str:
        texts = {name: value and str(value) for name, value in asdict(self).items() if name != "settings"}
        return json.dumps({**texts, "settings": self.settings.model_dump(mode="json")})

    @classmethod
    def decode(cls, text: str) -> "CrewJob":
        told = json.loads(text)
        settings = Acquire.model_validate(told["settings"])
        return cls(settings, told["endpoint_url"], Path(told["out"]), Path(told["parts"]))


def pack_in_processes(job: CrewJob, num_processes: int, done: Callable[[str], None]) -> Generator[Result]:
    """Fill the shards of the plan and yield each image's result, as it comes; `done` is told of each whole shard.

    Raises UserError or OSError where a process met one, RuntimeError when one ends otherwise.
    """
    children = [start_child("pbe.acquisition.worker_processes", [job.encode()]) for _ in range(num_processes)]
    try:
        for line in _lines(children):
            told = json.loads(line)
            if isinstance(told, str):
                done(told)
            elif isinstance(told, list):
                yield Result(*told)
            else:
                raise _as_error(told)
    finally:
        for child in children:
            kill_child(child)


def _lines(children: list[Popen[str]]) -> Iterator[bytes]:
    """Every line that the children print, as it comes, until all have ended; RuntimeError as soon as one has failed."""
    with selectors.DefaultSelector() as selector:
        for child in children:
            assert child.stdout is not None
            selector.register(child.stdout.fileno(), selectors.EVENT_READ, child)
        begun = {key.fd: b"" for key in selector.get_map().values()}
        while begun:
            for key, _ in selector.select():
                read = os.read(key.fd, _PIPE_BYTES)
                *whole, begun[key.fd] = (begun[key.fd] + read).split(b"\n")
                yield from whole
                if read:
                    continue
                if code := key.data.wait():
                    raise RuntimeError(f"acquire: one of its processes ended with {code}; run it again")
                selector.unregister(key.fd)
                del begun[key.fd]


def _as_error(told: dict[str, Any]) -> Exception:
    if told["errno"] is not None:
        return OSError(told["errno"], told["message"], told["file"])
    return ValueError(told["message"])


def _tell(told: object) -> None:
    print(json.dumps(told), flush=True)


def _work(job: CrewJob) -> None:
    with (job.parts / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        folders = Folders.within(job.out, job.parts)
        packer = Packer(open_bucket(job.settings, job.endpoint_url), job.settings, folders)
        for result in packer.pack(take_tasks(folders), _tell):
            _tell(result)


def main() -> None:
    exit_with_parent()
    try:
        _work(CrewJob.decode(sys.argv[1]))
    except OSError as error:
        _tell({"errno": error.errno, "message": error.strerror or str(error), "file": error.filename})
        raise SystemExit(1) from None
    except ValueError as error:
        _tell({"errno": None, "message": str(error), "file": None})
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
