"""The tables of docs/photographs.md, from the reports of a finished run of projects/photo.

    .venv/bin/python benchmarks/photographs.py [--project projects/photo] [--write docs/photographs.md]

Prints each method's scores, the painter's differences to each baseline and the stages' times; `--write` puts them
between the two marks in a page. The stages' times are those of their last completed runs in Prefect.

A bench of photographs has many cases of few clips, which share object, light and ground. Both tables give intervals
over clips: the clips of the sources and those of the exemplars are resampled independently of each other (the
pigeonhole bootstrap, Owen 2007), with the same draws for all methods. FID belongs to a whole method, and has the
evaluation's own intervals, over cases.
"""

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sizes import machine

from flows import server
from flows.pipeline import STAGES
from pbe import layout
from pbe.errors import UserError
from pbe.evaluation.names import CASE_SCORES, METHOD
from pbe.runtime.files import read_json, write_text

Floats = NDArray[np.float64]

METRICS = {  # of single cases: the arrow says what is better
    "identity": "identity ↑",
    "class_agreement": "class agreement, % ↑",
    "seam_visibility": "seam visibility ↓",
    "copy_paste_score": "copy-paste score ↓",
    "background_psnr": "background PSNR, dB ↑",
}
COMPARED = ("identity", "class_agreement", "seam_visibility", "copy_paste_score")
NAMES = {
    METHOD: "**Paint by Example**",
    "copy_paste": "copy and paste",
    "poisson": "Poisson blending",
    "text_inpainting": "inpainting by the class name",
    "stock": "diffusers' pipeline, same weights",
    "source": "untouched source",
}
MARKS = ("<!-- results: benchmarks/photographs.py writes these tables -->", "<!-- end of results -->")
DRAWS = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Clips:
    """Weights of the cases in each draw of clips, (DRAWS, N), for the cases in `case_ids`; clips as numbers."""

    case_ids: list[int]
    sources: NDArray[np.int64]
    exemplars: NDArray[np.int64]
    weights: Floats

    def means(self, values: Floats) -> tuple[float, float, float]:
        """Return the mean of the cases' values and the interval over clips; cases that are NaN do not count."""
        known = ~np.isnan(values)
        drawn = self.weights[:, known]
        total = drawn.sum(1)
        means = (drawn @ values[known])[total > 0] / total[total > 0]
        low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(values[known].mean()), float(low), float(high)


def draw_clips(project: Path) -> Clips:
    """Read which clips the bench's sources and exemplars are of, and draw both."""
    boxes = pl.read_parquet(project / layout.CURATED / "boxes.parquet")
    clip_of = dict(boxes.select("box_id", "group").iter_rows())
    cases = pl.read_csv(project / layout.BENCH / "cases.csv", infer_schema=False)
    names = [[clip_of[box] or box for box in cases[column]] for column in ("source_box_id", "exemplar_box_id")]
    rng = np.random.default_rng(0)
    (sources, source_draws), (exemplars, exemplar_draws) = (_draw(each, rng) for each in names)
    weights = source_draws[:, sources] * exemplar_draws[:, exemplars]
    return Clips([int(case) for case in cases["case_id"]], sources, exemplars, weights.astype(np.float64))


def _draw(names: Sequence[str], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of each case's clip, (N,), and how often each draw has each clip, (DRAWS, clips)."""
    clips, numbers = np.unique(names, return_inverse=True)
    return numbers, rng.multinomial(len(clips), np.full(len(clips), 1 / len(clips)), size=DRAWS)


def scores_of(project: Path, clips: Clips) -> dict[str, dict[str, Floats]]:
    """Return method -> metric -> the cases' values in the order of `clips`, NaN where there is none."""
    frame = pl.read_parquet(project / layout.EVALUATION / CASE_SCORES)
    order = pl.DataFrame({"case_id": clips.case_ids}, schema={"case_id": frame.schema["case_id"]})
    methods = [name for name in NAMES if name in frame["method"].unique()]
    rows = {
        name: order.join(frame.filter(pl.col("method") == name), on="case_id", how="left", maintain_order="left")
        for name in methods
    }
    return {name: {each: _values(rows[name], each) for each in METRICS if each in frame.columns} for name in methods}


def _values(frame: pl.DataFrame, column: str) -> Floats:
    return np.asarray(frame[column].cast(pl.Float64).fill_null(float("nan")).to_numpy(), np.float64)


def method_table(project: Path, clips: Clips, scores: dict[str, dict[str, Floats]]) -> Iterator[str]:
    """Yield the scores of each method with their intervals, as rows of Markdown."""
    comparison = pl.read_csv(project / layout.EVALUATION / "comparison.csv")
    shown = [metric for metric in METRICS if metric in scores[METHOD]]
    yield from _header("", shown)
    for method, values in scores.items():
        cells = [_interval(metric, *clips.means(values[metric])) for metric in shown]
        fid = comparison.filter((pl.col("method") == method) & (pl.col("metric") == "fid"))
        cells += [_interval("fid", *fid.row(0)[2:5]) if len(fid) else ""]
        yield f"| {NAMES[method]} | " + " | ".join(cells) + " |"


def _header(first: str, shown: list[str]) -> Iterator[str]:
    yield f"| {first} | " + " | ".join([*(METRICS[metric] for metric in shown), "FID ↓"]) + " |"
    yield "|---" * (len(shown) + 2) + "|"


def difference_table(project: Path, clips: Clips, scores: dict[str, dict[str, Floats]]) -> Iterator[str]:
    """Yield the painter's differences to each baseline; those whose interval does not contain zero are bold."""
    comparison = pl.read_csv(project / layout.EVALUATION / "comparison.csv")
    shown = [metric for metric in COMPARED if metric in scores[METHOD]]
    yield from _header("painter minus", shown)
    for method, values in scores.items():
        if method == METHOD:
            continue
        found = [clips.means(scores[METHOD][metric] - values[metric]) for metric in shown]
        cells = [_difference(metric, *each) for metric, each in zip(shown, found, strict=True)]
        fid = comparison.filter((pl.col("method") == method) & (pl.col("metric") == "fid"))
        cells += [_difference("fid", *fid.row(0)[5:8]) if len(fid) else ""]
        yield f"| {NAMES[method]} | " + " | ".join(cells) + " |"


def _digits(metric: str) -> int:
    return {"fid": 4, "seam_visibility": 2}.get(metric, 1)


def _interval(metric: str, value: float, low: float, high: float) -> str:
    digits = _digits(metric)
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _difference(metric: str, value: float, low: float, high: float) -> str:
    digits = _digits(metric)
    text = f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    return text if low <= 0 <= high else f"**{text}**"


def stage_table(project: Path) -> Iterator[str]:
    """Yield what each stage left and how long its last completed run took."""
    seconds = stage_seconds(project)
    yield "| stage | minutes | |"
    yield "|---|---|---|"
    for stage in STAGES:
        took = f"{seconds[stage] / 60:.1f}" if stage in seconds else "?"
        yield f"| `{stage}` | {took} | {stage_text(project, stage)} |"
    yield f"| together | {sum(seconds.values()) / 60:.0f} | {machine()} |"


def stage_seconds(project: Path) -> dict[str, float]:
    """Return the seconds that the last completed run of each stage took, from the project's Prefect."""
    from prefect import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    found: dict[str, float] = {}
    before = Path.cwd()
    os.chdir(project)  # Prefect's database is found from the working directory
    try:
        with server.available(), get_client(sync_client=True) as client:
            names = {flow.id: flow.name for flow in client.read_flows()}
            for run in client.read_flow_runs(sort=FlowRunSort.END_TIME_DESC, limit=200):
                if run.state is not None and run.state.is_completed() and names[run.flow_id] in STAGES:
                    found.setdefault(names[run.flow_id], run.total_run_time.total_seconds())
    finally:
        os.chdir(before)
    return found


def stage_text(project: Path, stage: str) -> str:
    """Return what a stage left, in a few words."""
    counts: dict[str, Any] = {}
    if (project / layout.counts(stage)).is_file():
        counts = read_json(project / layout.counts(stage))
    if stage == "acquire":
        return f"{sum(split.get('ok', 0) for split in counts['outcomes'].values()):,} images"
    if stage == "curate":
        train, validation = (f"{counts['boxes'][split]:,}" for split in ("train", "validation"))
        return f"{train} boxes to train on, {validation} for validation"
    if stage == "encode":
        return f"{counts['rows']:,} samples of {counts['boxes']:,} boxes"
    if stage == "train":
        return f"{counts['steps']:,} steps"
    if stage in ("bench", "evaluate"):
        return f"{read_json(project / layout.METRICS)['num_cases']} cases" if stage == "bench" else ""
    if stage == "register":
        registered = read_json(project / layout.REGISTERED)
        return f"{'promoted' if registered['promoted'] else 'refused'} by the gate ({registered['outcome']})"
    return ""


def results(project: Path) -> str:
    """Return all tables as Markdown."""
    if not (project / layout.METRICS).is_file():
        raise UserError(f"{project / layout.METRICS}: no such file; run the pipeline in this project first")
    clips = draw_clips(project)
    scores, metrics = scores_of(project, clips), read_json(project / layout.METRICS)
    sources, exemplars = len(set(clips.sources)), len(set(clips.exemplars))
    lines = [
        f"{len(clips.case_ids)} cases: sources of {sources} clips, exemplars of {exemplars} clips; guidance scale "
        f"{metrics['guidance_scale']:g}, {metrics['num_steps']} sampling steps, max_magnification "
        f"{metrics['max_magnification']:g}. Intervals of 95 % over clips; FID's over cases.",
        "",
        *method_table(project, clips, scores),
        "",
        "Differences of the same cases; bold: the interval does not contain zero.",
        "",
        *difference_table(project, clips, scores),
        "",
        *stage_table(project),
    ]
    return "\n".join(lines)


def write_between_marks(page: Path, text: str) -> None:
    """Replace what is between the two marks of a page."""
    first, last = MARKS
    content, count = re.subn(
        f"{re.escape(first)}.*?{re.escape(last)}",
        lambda _: f"{first}\n\n{text}\n\n{last}",
        page.read_text(),
        flags=re.DOTALL,
    )
    if count != 1:
        raise UserError(f"{page}: needs the lines {first} and {last} once")
    write_text(page, content)


def main() -> None:
    """Print the tables, and write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path("projects/photo"))
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args()
    text = results(options.project)
    print(text)
    if options.write:
        write_between_marks(options.write, text)


if __name__ == "__main__":
    main()
