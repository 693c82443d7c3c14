"""Which cases there are, and the order in which a seed runs them."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.interruptions import STAGES

PIPELINE = "pipeline"
SIGNALS = ("KILL", "INT", "TERM")
FAULTS = {  # and the stages that can meet them
    "full disk": ("acquire", "curate", "encode", "train", "evaluate", "register"),
    "read-only folder": STAGES,
    "clock jump": ("acquire", "curate", "encode", "train", "evaluate", "register"),
    "MongoDB killed": ("curate",),
    "Prefect's server killed": STAGES,
    "MLflow unreachable": ("train", "register"),
    "MLflow killed": ("train",),
    "S3 killed": ("acquire",),
    "S3 hangs": ("acquire",),
    "S3 refuses": ("acquire",),
    "S3 slow and failing": ("acquire",),
    "training on a cluster": ("train",),
}


@dataclass(frozen=True)
class Case:
    """A disturbance of one stage, or of the whole pipeline.

    `part` is the share of the stage's seconds that pass before it, `choice` in [0, 1) draws what it hits, and with
    `at_once` the next `dvc repro` starts before what was killed has wound up.
    """

    kind: str
    stage: str
    part: float
    choice: float
    at_once: bool

    @property
    def name(self) -> str:
        """Return the name under which the case is listed."""
        return f"SIG{self.kind}" if self.kind in SIGNALS else self.kind


def draw_cases(seed: int, stages: Iterable[str] = (), kinds: Iterable[str] = ()) -> list[Case]:
    """Return every signal for every stage and the pipeline, and every fault once, in an order drawn from `seed`.

    A run that is cut off has so seen a sample of all. `stages` and `kinds` select some; empty ones select all.
    """
    rng = random.Random(seed)
    pairs = [(kind, stage) for kind in SIGNALS for stage in (*STAGES, PIPELINE)]
    pairs += [(kind, rng.choice(possible)) for kind, possible in FAULTS.items()]
    rng.shuffle(pairs)
    drawn = [Case(kind, stage, rng.random(), rng.random(), rng.random() < 0.5) for kind, stage in pairs]
    chosen_stages, chosen_kinds = set(stages), set(kinds)
    return [
        case
        for case in drawn
        if (not chosen_stages or case.stage in chosen_stages) and (not chosen_kinds or case.kind in chosen_kinds)
    ]


def forgotten(case: Case) -> tuple[str, ...]:
    """Return the stages that are to run again: the disturbed one, or for the pipeline two that follow one another."""
    if case.stage != PIPELINE:
        return (case.stage,)
    first = int(case.choice * (len(STAGES) - 1))
    return STAGES[first : first + 2]
