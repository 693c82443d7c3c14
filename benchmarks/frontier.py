"""Solver x steps x guidance interval: what a bench's pictures lose and save against 50 PLMS steps (docs/sampling.md).

    .venv/bin/python benchmarks/frontier.py paint --project DEMO --out OUT --num-cases 64 plms:50 unipc:16
    .venv/bin/python benchmarks/frontier.py score --project DEMO --out OUT
    .venv/bin/python benchmarks/frontier.py write --out demo=OUT photographs=OUT --page docs/sampling.md

A configuration is SAMPLER:STEPS[:LOW-HIGH][:cacheN][:nograin]; LOW-HIGH is the guidance interval in noise levels sigma,
cacheN runs the deep part of the UNet at every N-th call only (`pbe.method.feature_cache`), and nograin adds no grain to
painted ground (`pbe.method.grain`). Two more configurations ask for no sampling, and add no grain: `source` leaves the
source, and `reconstruction` passes it through the VAE, as far as the mask goes.
`paint` paints the bench of a finished run with the model of the same run, or with --model, from the noise that the
evaluation draws; pictures that exist are kept. `score` scores them as the evaluation does, and takes differences of the
same cases from the first configuration painted, with intervals of 95 %: over clips where the project's boxes have clips
(see photographs.py), otherwise over cases. FID's are over cases.
Evaluations are calls of the UNet, predictions are rows of its contexts: a guided call makes two. Seconds are CPU time.
"""

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib as mpl
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from photographs import draw_clips
from sizes import machine
from torch import nn

from pbe import layout
from pbe.evaluation.benches.bench import Bench, result_path, write_image
from pbe.evaluation.benches.bench_folder import read_bench
from pbe.evaluation.encoders.encode import batches
from pbe.evaluation.painting.processes import CPU_CALL_SIZE, case_seed
from pbe.evaluation.painting.windows import PaintSettings, Request, Squares, paint_windows
from pbe.evaluation.scorers.opening import open_scorers
from pbe.evaluation.scorers.paper import ClipScorer
from pbe.evaluation.scoring.case_scores import CaseBatch, CaseScorer, read_result
from pbe.evaluation.scoring.comparison import MeasuredProtocol
from pbe.evaluation.scoring.intervals import Interval, bootstrap_counts, draws_interval, mean_draws, sample_frechet
from pbe.evaluation.scoring.opened_protocols import open_measured_protocols
from pbe.method import regions
from pbe.method.conditioner import to_pixels
from pbe.method.exemplars import resize
from pbe.method.painter import Painter
from pbe.runtime.files import write_text

Floats = NDArray[np.float64]

SCORES = ("identity", "class_agreement", "clip_score", "seam_visibility")
COLUMNS = {"identity": "identity", "class_agreement": "class agreement, %", "clip_score": "CLIP score",
           "seam_visibility": "seam visibility", "fid": "FID"}  # fmt: skip
DIGITS = {"fid": 4, "seam_visibility": 3}
CONFIDENCE, DRAWS = 0.95, 2000
MARKS = ("<!-- frontier: benchmarks/frontier.py writes these tables -->", "<!-- end of frontier -->")
UNPAINTED = ("source", "reconstruction")
COSTS = ("configuration", "num_cases", "evaluations", "predictions", "seconds")


@dataclass(frozen=True)
class Configuration:
    """How pictures are sampled."""

    name: str
    sampler: str
    num_steps: int
    interval: tuple[float, float] | None
    cache_every: int
    grain: bool = True

    @property
    def kind(self) -> str:
        """The configuration without its number of steps."""
        return (
            self.sampler
            + ", interval" * (self.interval is not None)
            + ", cache" * (self.cache_every > 1)
            + ", no grain" * (not self.grain)
        )

    @classmethod
    def parse(cls, name: str) -> "Configuration":
        """Read SAMPLER:STEPS[:LOW-HIGH][:cacheN][:nograin], source or reconstruction."""
        if name in UNPAINTED:
            return cls(name, name, 0, None, 1, grain=False)
        sampler, steps, *rest = name.split(":")
        grain = "nograin" not in rest
        rest = [part for part in rest if part != "nograin"]
        every = int(rest.pop().removeprefix("cache")) if rest and rest[-1].startswith("cache") else 1
        low, high = rest[0].split("-") if rest else ("", "")
        return cls(name, sampler, int(steps), (float(low), float(high)) if rest else None, every, grain)

    def keywords(self) -> dict[str, Any]:
        return {
            "sampler": self.sampler,
            "num_steps": self.num_steps,
            "guidance_interval": self.interval,
            "cache_every": self.cache_every,
        }


class CallCounter:
    """Counts the calls of a UNet, the rows of latents in them, and the predictions that they ask for."""

    def __init__(self, unet: nn.Module) -> None:
        self.calls = self.rows = self.predictions = 0
        self.handle = unet.register_forward_pre_hook(self._count)

    def _count(self, unet: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.calls += 1
        self.rows += len(inputs[0])
        self.predictions += len(inputs[2])


def paint(options: argparse.Namespace) -> None:
    """Paint the bench with each configuration, and write what each cost into costs.csv."""
    torch.set_num_threads(options.threads)
    painter = Painter.from_pretrained(options.model or options.project / layout.MODEL)
    bench = read_bench(options.project / layout.BENCH)
    ids = bench.ids[: options.num_cases]
    for configuration in map(Configuration.parse, options.configurations):
        folder = options.out / configuration.name
        left = [i for i in ids if not result_path(folder, i).is_file()]
        for start in range(0, len(left), CPU_CALL_SIZE):
            part = left[start : start + CPU_CALL_SIZE]
            cost = paint_part(painter, bench, part, configuration, folder, options.max_magnification)
            append(options.out / "costs.csv", dict(zip(COSTS, (configuration.name, len(part), *cost), strict=True)))
        print(f"{configuration.name}: {len(ids)} cases", flush=True)


def paint_part(
    painter: Painter, bench: Bench, ids: Sequence[int], configuration: Configuration, folder: Path, magnification: float
) -> tuple[float, float, float]:
    """Paint cases; return evaluations and predictions of a square, and the CPU seconds of a picture."""
    counter = CallCounter(painter.unet)
    requests = [Request(bench.case(i), case_seed(0, i)) for i in ids]
    side = painter.exemplar_px
    exemplars = np.stack([resize(request.case.exemplar, side, side) for request in requests])
    num_squares = 0

    def paint_squares(sources: Squares, masks: Squares, exemplars: Squares, seeds: NDArray[np.int64]) -> Squares:
        nonlocal num_squares
        num_squares += len(sources)
        if configuration.name in UNPAINTED:
            return unpainted(painter, sources, masks, configuration.name)
        return painter.paint(sources, masks, exemplars, seeds=seeds.tolist(), **configuration.keywords())

    settings = PaintSettings(
        "cpu", "fp32", configuration.sampler, configuration.num_steps, configuration.interval, magnification,
        CPU_CALL_SIZE,
    )  # fmt: skip
    began = time.process_time()
    with nullcontext() if configuration.grain else without_grain():
        images = paint_windows(requests, exemplars, painter.image_px, settings, paint_squares)
    took = time.process_time() - began
    counter.handle.remove()
    for i, image in zip(ids, images, strict=True):
        result_path(folder, i).parent.mkdir(parents=True, exist_ok=True)
        write_image(result_path(folder, i), image)
    return counter.rows / num_squares, counter.predictions / num_squares, took / num_squares


@contextmanager
def without_grain() -> Iterator[None]:
    with patch.object(regions, "match_grain", lambda painted, *rest: painted):
        yield


@torch.inference_mode()
def unpainted(painter: Painter, sources: Squares, masks: NDArray[np.uint8], name: str) -> Squares:
    """Return the sources, or the sources with what the VAE makes of them where the mask is 1."""
    if name == "source":
        return sources
    pixels = painter.decode(painter.encode(to_pixels(sources)))
    decoded = pixels.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return np.where(masks[..., None] == 1, decoded, sources)


def append(path: Path, row: dict[str, Any]) -> None:
    """Append a row to a CSV, with a header if it is new."""
    is_new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def score(options: argparse.Namespace) -> None:
    """Score the configurations painted so far, and write frontier.csv with differences from the first."""
    torch.set_num_threads(options.threads)
    bench = read_bench(options.project / layout.BENCH)
    costs = read_costs(options.out)
    protocol = open_protocol(options, bench)
    scorers = [*open_scorers(bench, identity="efficientnet_lite0", batch_size=32), ClipScorer(protocol.protocol)]
    base = costs[0]["configuration"]
    rows = []
    for cost in costs:
        painted = [i for i in bench.ids if is_painted(options.out, (base, cost["configuration"]), i)]
        found = [score_cases(bench, painted, options.out / name, scorers, protocol) for name in
                 (cost["configuration"], base)]  # fmt: skip
        rows.append(cost | {"num_cases": len(painted)} | differences(options.project, bench, painted, found, protocol))
        pl.DataFrame(rows).write_csv(options.out / "frontier.csv")
        print(rows[-1], flush=True)


def read_costs(out: Path) -> list[dict[str, Any]]:
    """Return the mean cost of each configuration, in the order of their painting."""
    frame = pl.read_csv(out / "costs.csv")
    weighted = [(pl.col(name) * pl.col("num_cases")).sum() / pl.col("num_cases").sum() for name in COSTS[2:]]
    return frame.group_by("configuration", maintain_order=True).agg(*weighted).to_dicts()


def is_painted(out: Path, names: Sequence[str], case_id: int) -> bool:
    return all(result_path(out / name, case_id).is_file() for name in names)


def open_protocol(options: argparse.Namespace, bench: Bench) -> MeasuredProtocol:
    """Open the corrected protocol with the painter's own CLIP tower and the project's real images."""
    project = options.project
    encoder = (options.model or project / layout.MODEL) / "image_encoder"
    return open_measured_protocols(
        "corrected", encoder, project / layout.CURATED, project / layout.RAW, bench,
        limit=4000, seed=0, cache=options.out, device=torch.device("cpu"),
    )[0]  # fmt: skip


def score_cases(
    bench: Bench, ids: Sequence[int], folder: Path, scorers: Sequence[CaseScorer], protocol: MeasuredProtocol
) -> tuple[dict[str, Floats], NDArray[np.float32]]:
    """Return each score of the cases, (N,), and the features of their whole pictures, (N, D)."""
    origins = dict(zip(bench.ids, bench.origins or (), strict=False))
    scores: dict[str, list[Floats]] = {}
    features = []
    for part in batches(iter(ids), 32):  # type: ignore[arg-type]  # of ids instead of images
        batch = CaseBatch(tuple(bench.case(i) for i in part), tuple(origins[i] for i in part) if origins else None)
        results = [read_result(folder, case) for case in batch.cases]
        features.append(protocol.protocol.features.whole(results))
        for scorer in scorers:
            for name, values in scorer.score(batch, results).items():
                scores.setdefault(name, []).append(np.asarray(values))
    return {name: np.concatenate(parts) for name, parts in scores.items()}, np.concatenate(features)


def differences(
    project: Path, bench: Bench, ids: Sequence[int], found: Sequence[Any], protocol: MeasuredProtocol
) -> dict[str, float]:
    """Return each score with its difference from the base: metric, metric_difference, _low and _high."""
    (scores, features), (base_scores, base_features) = found
    counts = bootstrap_counts(len(ids), DRAWS, 0)
    weights = clip_weights(project, bench, ids)
    row: dict[str, float] = {}
    for name in SCORES:
        if np.isnan(scores[name]).all():
            continue
        change = scores[name] - base_scores[name]
        interval = draws_interval(float(np.nanmean(change)), mean_draws(change, weights), CONFIDENCE)
        row |= {name: float(np.nanmean(scores[name]))} | columns(name, interval)
    moments = protocol.reference.moments
    fid, base = (sample_frechet(each, moments, counts) for each in (features, base_features))
    return row | {"fid": fid.value} | columns("fid", fid.difference(base, CONFIDENCE))


def columns(name: str, interval: Interval) -> dict[str, float]:
    ends = {"difference": interval.value, "low": interval.low, "high": interval.high}
    return {f"{name}_{end}": value for end, value in ends.items()}


def clip_weights(project: Path, bench: Bench, ids: Sequence[int]) -> Floats:
    """Return the weights of the cases in each draw: of clips where the boxes have clips, otherwise of cases."""
    boxes = pl.read_parquet(project / layout.CURATED / "boxes.parquet")
    if "group" not in boxes.columns or boxes["group"].null_count() == len(boxes) or not boxes["group"].n_unique() > 1:
        return bootstrap_counts(len(ids), DRAWS, 0)
    clips = draw_clips(project)
    places = {case: n for n, case in enumerate(clips.case_ids)}
    return clips.weights[:, [places[i] for i in ids]]


def tables(named: dict[str, Path]) -> Iterator[str]:
    """Yield a table for each bench, as Markdown."""
    for name, out in named.items():
        rows = pl.read_csv(out / "frontier.csv").to_dicts()
        shown = [each for each in COLUMNS if each in rows[0]]
        yield f"### {name.capitalize()}"
        yield ""
        yield (
            "| configuration | cases | evaluations | predictions | s a picture | "
            + " | ".join(COLUMNS[each] for each in shown)
            + " |"
        )
        yield "|---" * (5 + len(shown)) + "|"
        for row in rows:
            cells = [f"{row[each]:.{DIGITS.get(each, 1)}f}" if row is rows[0] else cell(row, each) for each in shown]
            cost = f"{row['evaluations']:.0f} | {row['predictions']:.0f} | {row['seconds']:.2f}"
            yield f"| `{row['configuration']}` | {row['num_cases']} | {cost} | " + " | ".join(cells) + " |"
        yield ""


def cell(row: dict[str, Any], name: str) -> str:
    """Return a difference with its interval, bold where the interval has no 0 in it."""
    digits = DIGITS.get(name, 1) + (name not in DIGITS)
    value, low, high = (row[f"{name}_{end}"] for end in ("difference", "low", "high"))
    text = f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    return text if low <= 0 <= high else f"**{text}**"


def draw(named: dict[str, Path], path: Path) -> None:
    """Draw each bench's differences of identity over the predictions of a picture."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(named), figsize=(5 * len(named), 4), squeeze=False, layout="constrained")
    colours: dict[str, str] = {}  # by kind, the same in every bench
    for ax, (name, out) in zip(axes[0], named.items(), strict=True):
        frame = pl.read_csv(out / "frontier.csv").slice(1)
        kinds = [Configuration.parse(name).kind for name in frame["configuration"]]
        for kind in sorted(set(kinds)):
            rows = frame.filter(pl.Series(each == kind for each in kinds)).sort("predictions")
            value = rows["identity_difference"]
            bars = np.stack([value - rows["identity_low"], rows["identity_high"] - value])
            colour = colours.setdefault(kind, f"C{len(colours)}")
            ax.errorbar(rows["predictions"], value, bars, marker="o", capsize=3, color=colour, label=kind)
        ax.axhline(0, color="grey", linewidth=0.8)
        ax.set(title=name, xlabel="predictions of the UNet a picture", ylabel="identity minus that of 50 PLMS steps")
    handles = {label: line for ax in axes[0] for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    figure.savefig(path, dpi=110)


def write(options: argparse.Namespace) -> None:
    """Write the tables between the marks of a page, and the figure beside it."""
    named = {name: Path(out) for name, out in (each.split("=", 1) for each in options.outs)}
    text = "\n".join([*tables(named), machine()])
    before, _, rest = options.page.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    write_text(options.page, f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}")
    draw(named, options.page.with_suffix(".png"))


def main() -> None:
    """Run one of the three commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run in (paint, score):
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.add_argument("--project", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--model", type=Path, help="instead of the project's")
        command.add_argument("--threads", type=int, default=1)
        command.set_defaults(run=run)
        if run is paint:
            command.add_argument("--num-cases", type=int)
            command.add_argument("--max-magnification", type=float, default=2.0)
            command.add_argument("configurations", nargs="+")
    command = commands.add_parser("write", help=write.__doc__)
    command.add_argument("--out", dest="outs", nargs="+", required=True, metavar="NAME=OUT")
    command.add_argument("--page", type=Path, default=Path("docs/sampling.md"))
    command.set_defaults(run=write)
    options = parser.parse_args()
    if hasattr(options, "out"):
        options.out.mkdir(parents=True, exist_ok=True)
    options.run(options)


if __name__ == "__main__":
    main()
