"""The records of a run's steps: one JSON line for each, which the driver on any machine follows while workers train."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbe.runtime.files import write_text

JOURNAL = "journal.jsonl"
TIMINGS = "timings.jsonl"
NUM_BANDS = 4


@dataclass(frozen=True)
class StepRecord:
    """The losses of a step, means over the global batch, with its learning rate and gradient norm.

    The same run always gives the same records. The loss of a band of timesteps is None if the batch has no sample in
    that band, and the validation loss is None for a step without validation.
    """

    step: int
    loss: float
    loss_t000: float | None  # timesteps 0..249: details
    loss_t250: float | None
    loss_t500: float | None
    loss_t750: float | None  # timesteps 750..999: composition
    lr: float
    grad_norm: float  # before clipping
    validation_loss: float | None = None  # of the averaged weights


class JsonLines:
    """A file of JSON lines that only grows; `first` replaces the lines that it held.

    The file stays open: a worker that Ray has given up but that still runs writes to the file that it opened, not to
    that of the worker after it.
    """

    def __init__(self, path: Path, first: Iterable[Mapping[str, Any]]) -> None:
        write_text(path, "".join(json.dumps(dict(row)) + "\n" for row in first))
        self._file = path.open("a")

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a line; readers see it when this returns."""
        self._file.write(json.dumps(dict(row)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_lines(path: Path, first: int = 0) -> list[dict[str, Any]]:
    """Return the complete lines of a file from line `first` on; none when the file does not exist."""
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()[first:]]


def read_journal(path: Path, first: int = 0) -> list[StepRecord]:
    """Return the records of a journal from step `first` on."""
    return [StepRecord(**row) for row in read_lines(path, first)]
