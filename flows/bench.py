"""Stage bench: makes the project's own bench of curated validation images, data/bench."""

from pathlib import Path

from flows.inputs import require
from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.demo.accuracy import read_truth
from pbe.evaluation.benches.case_selection import CaseRules, make_bench
from pbe.settings import Settings
from pbe.types import ProgressBars, no_progress_bars


def bench(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Write boxes of validation images, each with an exemplar of another image, in COCOEE's layout."""
    require(folder, layout.CURATED / "boxes.parquet")
    rules = CaseRules(
        settings.bench.num_cases,
        settings.bench.min_area_frac,
        settings.bench.max_area_frac,
        settings.bench.image_px or settings.method.image_px,
        settings.method.exemplar.pad_frac,
    )
    raw, curated, out = folder / layout.RAW, folder / layout.CURATED, folder / layout.BENCH
    made = make_bench(raw, curated, out, rules, seed=settings.seed, truth=read_truth(raw))
    return {"num_cases": len(made), "num_reused_boxes": made.num_reused_boxes}


bench_flow = stage_flow("bench", bench)

if __name__ == "__main__":
    main(bench_flow)
