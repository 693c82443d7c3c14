"""Which cases an evaluation paints with which methods, guidance scales and seeds.

    out/results/paint_by_example/               all cases at the evaluated guidance scale
    out/results/paint_by_example_guidance_1/    all cases without guidance; the same for each other scale, fewer cases
    out/results/paint_by_example_seed_1/        the first cases with another seed; the same for each further seed
    out/results/text_inpainting/                all cases painted by a baseline; the same for each that needs a model

Neither this module nor `processes` imports the model's code, so that painting starts before the code that scores loads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.names import METHOD
from pbe.evaluation.painting.methods import PAINTED_METHODS
from pbe.evaluation.painting.processes import PaintJob

UNGUIDED_SCALE = 1.0


@dataclass(frozen=True)
class GuidanceSweep:
    """The guidance scales that an evaluation paints at.

    All cases are painted at `scale` and at 1, and the first `num_cases` at the scales in `compared`.
    """

    scale: float
    compared: tuple[float, ...]
    num_cases: int

    @property
    def shown(self) -> list[float]:
        """The scales that the report compares, in ascending order; `scale` is always one of them."""
        return sorted({*self.compared, self.scale})

    def method_name(self, scale: float) -> str:
        """Return the name that a guidance scale has in folders and scores."""
        return METHOD if scale == self.scale else f"{METHOD}_guidance_{scale:g}"

    def jobs(self, bench: Bench, out: Path) -> list[PaintJob]:
        """Return the work that is left for `out`: first the scales at which all cases are painted."""
        num_cases = dict.fromkeys((self.scale, UNGUIDED_SCALE), len(bench))
        for scale in self.shown:
            num_cases.setdefault(scale, min(self.num_cases, len(bench)))
        return [PaintJob(scale, number, results_folder(out, self, scale)) for scale, number in num_cases.items()]


def results_folder(out: Path, sweep: GuidanceSweep, scale: float) -> Path:
    """Return the folder of the results at a guidance scale."""
    return out / "results" / sweep.method_name(scale)


@dataclass(frozen=True)
class Diversity:
    """The first `num_cases` cases are painted with `num_seeds` seeds, of which the first is that of the evaluation."""

    num_cases: int
    num_seeds: int

    def jobs(self, scale: float, bench: Bench, out: Path) -> list[PaintJob]:
        """Return the work that is left for `out`, a job for each further seed."""
        number = min(self.num_cases, len(bench))
        folders = {draw: out / "results" / f"{METHOD}_seed_{draw}" for draw in range(1, self.num_seeds)}
        return [PaintJob(scale, number, folder, draw=draw) for draw, folder in folders.items()] if number else []


def baseline_jobs(names: Sequence[str], scale: float, bench: Bench, out: Path) -> list[PaintJob]:
    """Return the work that is left for `out` of those baselines that paint with a model."""
    return [
        PaintJob(scale, len(bench), out / "results" / name, method=name) for name in names if name in PAINTED_METHODS
    ]


def evaluation_jobs(
    bench: Bench, out: Path, sweep: GuidanceSweep, diversity: Diversity, baselines: Sequence[str]
) -> list[PaintJob]:
    """Return all that an evaluation paints into `out`: the sweep, the further seeds, and the baselines."""
    seeds = diversity.jobs(sweep.scale, bench, out)
    return [*sweep.jobs(bench, out), *seeds, *baseline_jobs(baselines, sweep.scale, bench, out)]
