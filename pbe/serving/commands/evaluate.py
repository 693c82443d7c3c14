"""`pbe evaluate` scores results that any tool has painted on a bench, in one report.

It does not paint, and needs no project: bench, results, encoder and real images are folders or files.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from cyclopts import App, Parameter

from pbe import layout
from pbe.errors import UserError
from pbe.serving.commands.flags import Device, Flag, Number, Positive, Whole
from pbe.serving.commands.progress import progress_bar

if TYPE_CHECKING:
    import torch

    from pbe.evaluation.benches.bench_checks import CheckedBench
    from pbe.evaluation.benches.results_folder import ResultsFolder
    from pbe.evaluation.scoring.case_scores import CaseScorer, Method
    from pbe.evaluation.scoring.comparison import MeasuredProtocol
    from pbe.types import Progress

ENCODER, REAL = layout.MODEL / "image_encoder", layout.CURATED  # where a project has them
BaselineFlag = Literal["source", "copy_paste", "poisson", "none"]
Acceptable = Literal["misnamed", "wrong_size", "greyscale", "transparent", "soft_mask", "inverted", "tiny"]
BASELINES = tuple(name for name in get_args(BaselineFlag) if name != "none")
ACCEPTABLE = get_args(Acceptable)
_SHOWN = ("fid", "fid_official", "qs", "qs_official", "kid", "clip_score", "clip_score_official", "identity")

app = App(
    name="evaluate",
    help_epilogue="""\
example:
  pbe evaluate --bench COCOEE --results ours=results/ours \\
               --results anydoor=results/anydoor --encoder clip-vit-base-patch32 \\
               --real test2017.safetensors --protocol both --out evaluation

Results are images named by the cases' ids, such as 000000000285.png.
The report is OUT/index.html.""",
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ComputingFlags:
    """The flags of real images, encoder, seed and device."""

    encoder: Annotated[
        Path,
        Parameter(metavar="FOLDER", help="CLIP ViT-B/32 for the paper's metrics, or a model's image_encoder"),
    ] = ENCODER
    max_real_images: Annotated[Positive, Parameter(show_default="all", help="encode no more real images")] = 1_000_000
    seed: Annotated[Whole, Parameter(help="of mixtures and of the bootstrap")] = 0
    device: Device = "auto"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EvaluateFlags(ComputingFlags):
    """All flags of `pbe evaluate`."""

    bench: Annotated[Path, Parameter(metavar="FOLDER", help="a bench in COCOEE's layout")]
    results: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="[NAME=]FOLDER",
            required=True,
            help="results of a tool; may be given several times, the first is compared with all others",
        ),
    ]
    baseline: Annotated[
        tuple[BaselineFlag, ...],
        Parameter(metavar="NAME", show_default="all", help="score a baseline as well, or none"),
    ] = ()
    real: Annotated[
        Path,
        Parameter(
            metavar="FOLDER_OR_FILE",
            help="real images for FID and QS, or their statistics from pbe reference",
        ),
    ] = REAL
    protocol: Annotated[
        Literal["corrected", "official", "both"], Parameter(help="official: the authors' tools, bit by bit")
    ] = "corrected"
    identity: Annotated[
        str,
        Parameter(
            metavar="ENCODER",
            help="measures identity: efficientnet_lite0, none, or a folder with DINO, DINOv2, DINOv3 or CLIP",
        ),
    ] = "efficientnet_lite0"
    lpips: Annotated[Path | None, Parameter(metavar="FOLDER", help="weights of LPIPS, to measure it as well")] = None
    foreground: Annotated[
        Path | None, Parameter(metavar="ONNX", help="U2-Net, which finds the exemplars' objects for identity")
    ] = None
    num_cases: Annotated[Positive | None, Parameter(show_default="all", help="the first cases of the bench")] = None
    damaged: Annotated[
        Literal["refuse", "skip"],
        Parameter(help="cases without a usable result or file: stop, or leave them out and count them"),
    ] = "refuse"
    accept: Annotated[
        tuple[Acceptable, ...],
        Parameter(metavar="FAULT", show_default=False, help="use cases in spite of this fault"),
    ] = ()
    out: Annotated[Path, Parameter(metavar="FOLDER", help="for the report")] = Path("evaluation")
    batch_size: Annotated[Positive, Parameter(help="exemplars encoded at once")] = 32
    confidence: Annotated[Number, Parameter(metavar="C", help="of intervals")] = 0.95
    draws: Annotated[Positive, Parameter(help="of the bootstrap")] = 2000
    json: Annotated[Flag, Parameter(help="print the metrics as JSON instead of a table")] = False


@app.default
def evaluate(options: EvaluateFlags) -> None:
    """Check bench and results, score the results, and write the report."""
    folders = _named_folders(options.results)
    if not 0.5 < options.confidence < 1:
        raise UserError(f"--confidence {options.confidence:g}: must be above 0.5 and below 1")
    check_exists("--encoder", options.encoder)
    check_exists("--real", options.real)
    from pbe.evaluation.report.page import write_gallery, write_report
    from pbe.evaluation.scoring.results import score_results, write_metrics
    from pbe.runtime.devices import choose_device

    device, cache = choose_device(options.device, "--device"), options.out / "cache"
    checked, results = _open_all(options, folders, cache)
    methods = _methods(options, results)
    with progress_bar("encoding real images") as progress:
        protocols = _protocols(options, checked, cache, device, progress)
    scorers = _scorers(options, checked, device)
    with progress_bar("scoring") as progress:
        metrics = score_results(
            checked.bench,
            methods,
            scorers,
            protocols,
            options.out,
            bench_digest=checked.digest,
            conditions={},
            confidence=options.confidence,
            draws=options.draws,
            seed=options.seed,
            progress=progress,
        )
    metrics["bench"] = _bench_counts(checked)
    metrics["results"] = {name: opened.report.counts() for name, opened in results.items()}
    write_metrics(options.out / "metrics.json", metrics)
    write_report(options.out / "index.html", checked.bench, methods, options.out, metrics)
    write_gallery(options.out / "gallery.png", checked.bench, methods)
    print(json.dumps(metrics, indent=2) if options.json else _table(metrics["methods"]))
    print(f"{options.out / 'index.html'}: {len(checked.bench)} cases", file=sys.stderr)


def _named_folders(arguments: Sequence[str]) -> dict[str, Path]:
    """Return the folders by the names that reports give them; raises UserError when two have the same name."""
    folders: dict[str, Path] = {}
    for text in arguments:
        name, equals, path = text.partition("=")
        folder = Path(path if equals and not Path(text).is_dir() else text)
        if not folder.is_dir():
            raise UserError(f"--results {text}: no such folder")
        name = name if equals and folder != Path(text) else _name_of(folder.resolve())
        if not name or name in folders or name in BASELINES:
            raise UserError(f"--results {text}: the name {name!r} is taken; write --results NAME={folder}")
        folders[name] = folder
    return folders


def _name_of(folder: Path) -> str:
    """Return a folder's name; that of a folder called results, as the official code writes, is its parent's."""
    return folder.parent.name if folder.name == "results" and folder.parent.name else folder.name


def check_exists(flag: str, path: Path) -> None:
    """Raise UserError unless the file or folder of a flag exists."""
    if not path.exists():
        raise UserError(f"{flag} {path}: does not exist; see pbe evaluate --help")


def _open_all(
    options: EvaluateFlags, folders: Mapping[str, Path], cache: Path
) -> "tuple[CheckedBench, dict[str, ResultsFolder]]":
    """Check every case and result, and keep the cases that all tools have a usable result of; print what is left out.

    Raises UserError when a case or result cannot be used and --damaged is not skip, or when no case is left.
    """
    from dataclasses import replace

    from pbe.evaluation.benches.bench_checks import open_bench
    from pbe.evaluation.benches.case_checks import Policy
    from pbe.evaluation.benches.results_folder import open_results

    policy = Policy(options.damaged, frozenset(options.accept), "--damaged skip", "--accept {fault}")
    with progress_bar("checking cases") as progress:
        checked = open_bench(
            options.bench, policy, num_cases=options.num_cases, cache=cache / "bench.json", progress=progress
        )
    opened = {}
    for name, folder in folders.items():
        with progress_bar(f"checking {name}") as progress:
            opened[name] = open_results(
                folder, checked.bench, policy, cache=cache / f"results-{name}.json", progress=progress
            )
    reports = [checked.report, *(results.report for results in opened.values())]
    for line in (line for report in reports for line in report.lines()):
        print(line, file=sys.stderr)
    ids = set(checked.bench.ids).intersection(*(results.ids for results in opened.values()))
    if not ids:
        raise UserError(f"{options.bench}: no case has a usable result of every tool")
    usable = tuple(i for i in checked.report.usable if i in ids)
    digests = {i: checked.report.digests[i] for i in usable}
    report = replace(checked.report, usable=usable, digests=digests)  # a case without a result is counted below
    return replace(checked, bench=checked.bench.only(ids), report=report), opened


def _bench_counts(checked: "CheckedBench") -> dict[str, Any]:
    """Return how many cases there are and are scored, and how many are not, by reason."""
    counts = checked.report.counts()
    skipped = counts.get("skipped", {})
    without_result = counts["cases"] - counts["usable"] - sum(skipped.values())
    return counts | {"skipped": skipped | {"no_result": without_result}} if without_result else counts


def _methods(options: EvaluateFlags, results: "Mapping[str, ResultsFolder]") -> "list[Method]":
    from pbe.evaluation.baselines.computed import baseline_methods
    from pbe.evaluation.scoring.case_scores import Method

    named = options.baseline or BASELINES
    painted = [Method(name, opened, opened.digest) for name, opened in results.items()]
    baselines = [name for name in BASELINES if name in named and "none" not in named]
    return [*painted, *baseline_methods(baselines, options.seed)]


def _protocols(
    options: EvaluateFlags, checked: "CheckedBench", cache: Path, device: "torch.device", progress: "Progress"
) -> "list[MeasuredProtocol]":
    from pbe.evaluation.scoring.opened_protocols import open_measured_protocols

    return open_measured_protocols(
        options.protocol,
        options.encoder,
        options.real,
        layout.RAW,
        checked.bench,
        limit=options.max_real_images,
        seed=options.seed,
        cache=cache,
        device=device,
        progress=progress,
    )


def _scorers(options: EvaluateFlags, checked: "CheckedBench", device: "torch.device") -> "list[CaseScorer]":
    from pbe.evaluation.scorers.opening import open_scorers

    return open_scorers(
        checked.bench,
        identity=options.identity,
        lpips=options.lpips,
        foreground=options.foreground,
        batch_size=options.batch_size,
        device=device,
    )


def _table(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the main metrics, a line for each method."""
    from pbe.evaluation.scoring.metric_table import metric_spec

    columns = [name for name in _SHOWN if any(row.get(name) is not None for row in methods.values())]
    lines = [["", *(metric_spec(name).title for name in columns)]]
    for method, row in methods.items():
        numbers = ("-" if row.get(name) is None else f"{row[name]:.{metric_spec(name).digits}f}" for name in columns)
        lines.append([method, *numbers])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines)
