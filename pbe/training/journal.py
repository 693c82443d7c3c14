"""What is written down of every step: one JSON line each, which a driver on any machine follows while workers train."""

import json
from dataclasses import dataclass
from pathlib import Path

from pbe.files import written_whole

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class StepRecord:
    """What is written down of a step: the global batch's mean loss, its halves by timestep, rate and gradient norm."""

    step: int
    loss: float
    loss_early: float  # timesteps 0..499: details
    loss_late: float  # timesteps 500..999: composition
    lr: float
    grad_norm: float


class Journal:
    """One JSON line a step, rewritten from the checkpoint's records when a run goes on."""

    def __init__(self, path: Path, records: list[StepRecord]) -> None:
        with written_whole(path) as part:
            part.write_text("".join(self._line(r) for r in records))
        self._path = path

    def append(self, record: StepRecord) -> None:
        with self._path.open("a") as file:
            file.write(self._line(record))
            file.flush()

    @staticmethod
    def _line(record: StepRecord) -> str:
        return json.dumps(record.__dict__) + "\n"


def read_journal(path: Path, first: int = 0) -> list[StepRecord]:
    """The whole lines of a journal from step `first` on; a line still being written is left for the next look."""
    if not path.exists():
        return []
    text = path.read_text()
    return [StepRecord(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()[first:]]
