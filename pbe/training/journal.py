"""What is written down of every step: one JSON line each, which a driver on any machine follows while workers train."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbe.runtime.files import atomic_file

JOURNAL = "journal.jsonl"
TIMINGS = "timings.jsonl"
NUM_BANDS = 4


@dataclass(frozen=True)
class StepRecord:
    """What is written down of a step, the same at each run: means over the global batch, rate and gradient norm.

    A band of timesteps of which the batch has none, and the validation loss of a step without validation, are None.
    """

    step: int
    loss: float
    loss_t000: float | None  # timesteps 0..249: details
    loss_t250: float | None
    loss_t500: float | None
    loss_t750: float | None  # timesteps 750..999: composition
    lr: float
    grad_norm: float
    validation_loss: float | None = None  # of the averaged weights


class Lines:
    """A file of JSON lines that only grows; `first` replaces what it held.

    The file stays open: a worker that was given up but still runs writes to the file it knew, not to its successor's.
    """

    def __init__(self, path: Path, first: Iterable[Mapping[str, Any]]) -> None:
        with atomic_file(path) as part:
            part.write_text("".join(json.dumps(dict(row)) + "\n" for row in first))
        self._file = path.open("a")

    def append(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(dict(row)) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path, first: int = 0) -> list[dict[str, Any]]:
    """The whole lines of a file from line `first` on; a line still being written is left for the next look."""
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()[first:]]


def read_journal(path: Path, first: int = 0) -> list[StepRecord]:
    """The records of a journal from step `first` on."""
    return [StepRecord(**row) for row in read_lines(path, first)]
