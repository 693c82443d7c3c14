"""Stage evaluate: paint the bench, score it beside the baselines, and write the report, into reports/."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flows.inputs import require
from flows.scores import main_scores
from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.benches.bench_checks import CheckedBench, open_bench
from pbe.evaluation.benches.case_checks import Policy
from pbe.evaluation.names import METHOD, SOURCE, TEXT_INPAINTING
from pbe.evaluation.painting import processes as painting
from pbe.evaluation.painting.methods import Models
from pbe.evaluation.painting.plan import Diversity, GuidanceSweep, baseline_jobs, evaluation_jobs
from pbe.evaluation.painting.processes import Placement, Sampling
from pbe.runtime.files import digest_folder, write_json
from pbe.settings import Evaluate, Settings
from pbe.types import Progress, ProgressBars, no_progress_bars

if TYPE_CHECKING:
    import torch

    from pbe.evaluation.scoring.case_scores import CaseScorer, Method
    from pbe.evaluation.scoring.comparison import MeasuredProtocol

_CHECKED = layout.STATE / "checked-bench.json"  # verdicts on the bench's files, for the next run


def evaluate(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Paint and score the bench of `evaluate`, then write metrics.json, index.html and gallery.png."""
    options = settings.evaluate
    require(folder, layout.MODEL, *({layout.BENCH} & {Path(options.bench)}))
    if Path(options.real) == layout.CURATED:
        require(folder, layout.CURATED / "boxes.parquet")
    painting.prepare()
    placement_of(options)  # an unknown device is an error before the bench is read
    checked = check_bench(options, folder, bars)
    class_names = name_classes(options, folder, checked.bench, bars)
    baselines = usable_baselines(options, checked.bench, class_names, folder / layout.BACKBONE)
    paint_all(settings, folder, checked.bench, baselines, bars, class_names)
    return score_all(settings, folder, checked, baselines, bars)


def check_bench(options: Evaluate, folder: Path, bars: ProgressBars = no_progress_bars) -> CheckedBench:
    """Open the bench that `evaluate.bench` names and check every case, before anything is painted.

    Prints a line for each fault and note. Raises UserError for faulty cases when `evaluate.damaged` is refuse.
    """
    checked = open_bench(
        folder / options.bench,
        Policy(options.damaged, frozenset(options.accept)),
        num_cases=options.num_cases,
        cache=folder / _CHECKED,
        progress=bars("cases checked"),
    )
    for line in checked.report.lines():
        print(f"{options.bench}: {line}", flush=True)
    return checked


def guidance_sweep(options: Evaluate) -> GuidanceSweep:
    """Return the guidance scales to paint at."""
    return GuidanceSweep(options.guidance_scale, options.sweep, options.sweep_cases)


def diversity(options: Evaluate) -> Diversity:
    """Return how many cases are painted with how many seeds."""
    return Diversity(options.diversity_cases, options.diversity_seeds)


def sampling_of(settings: Settings) -> Sampling:
    """Return how every case is painted."""
    options = settings.evaluate
    return Sampling(
        options.sampler,
        options.num_steps,
        options.guidance_interval,
        options.max_magnification,
        options.batch_size,
        settings.seed,
    )


def placement_of(options: Evaluate) -> Placement:
    """Return where and in which precision to paint: one process on each GPU, or `num_workers` on the CPU.

    Raises UserError for a device that does not exist and for fp16 on a CPU.
    """
    from pbe.runtime.devices import choose_devices, choose_precision, precision_name

    devices = choose_devices(options.device, "evaluate.device")
    dtype = choose_precision(options.precision, devices[0], "evaluate.precision")
    num_workers = options.num_workers if devices[0].type == "cpu" else 1
    return Placement(tuple(map(str, devices)), num_workers, precision_name(dtype))


def name_classes(
    options: Evaluate, folder: Path, bench: Bench, bars: ProgressBars = no_progress_bars
) -> dict[int, str]:
    """Return the class names of the exemplars that text inpainting needs: those of the bench, or CLIP's choice.

    Where `evaluate.encoder` is no CLIP with a text tower, the choice is left out.
    """
    known = {origin.case_id: origin.exemplar_label for origin in bench.origins or () if origin.exemplar_label}
    if TEXT_INPAINTING not in options.baselines or len(known) == len(bench):
        return known
    from pbe.evaluation.baselines.class_names import can_name, name_exemplars
    from pbe.runtime.devices import choose_device

    if not can_name(folder / options.encoder):
        return known
    device, cache = choose_device(options.device, "evaluate.device"), folder / layout.STATE / "class-names.json"
    return name_exemplars(bench, folder / options.encoder, cache, device, bars("exemplars named"))


def usable_baselines(options: Evaluate, bench: Bench, class_names: Mapping[int, str], backbone: Path) -> list[str]:
    """Return `evaluate.baselines` without text inpainting where it has no class names, or no model.

    It paints with the backbone, which is a text-to-image model unless a painter was trained further.
    """
    from pbe.method.backbone import is_painter

    if TEXT_INPAINTING not in options.baselines:
        return list(options.baselines)
    if is_painter(backbone):
        why = f"{layout.BACKBONE}: a painter, which knows no text"
    elif len(class_names) < len(bench):
        why = (
            f"{options.bench}: {len(bench) - len(class_names)} exemplars have no exemplar_label in cases.csv, and "
            "evaluate.encoder has no text tower to name them"
        )
    else:
        return list(options.baselines)
    print(f"{why}, so {TEXT_INPAINTING} is left out", flush=True)
    return [name for name in options.baselines if name != TEXT_INPAINTING]


def paint_all(
    settings: Settings,
    folder: Path,
    bench: Bench,
    baselines: Sequence[str],
    bars: ProgressBars,
    class_names: Mapping[int, str] = MappingProxyType({}),
) -> None:
    """Paint the bench with the trained model and the baselines' models; pictures that exist are kept."""
    options = settings.evaluate
    models = Models(folder / layout.MODEL, folder / layout.BACKBONE)
    jobs = evaluation_jobs(bench, folder / layout.EVALUATION, guidance_sweep(options), diversity(options), baselines)
    painting.paint_cases(
        models,
        bench,
        jobs,
        sampling=sampling_of(settings),
        placement=placement_of(options),
        class_names=class_names,
        progress=bars("cases painted"),
    )


def score_all(
    settings: Settings, folder: Path, checked: CheckedBench, baselines: Sequence[str], bars: ProgressBars
) -> Counts:
    """Score what was painted and the baselines, write metrics and report, and return the painter's metrics.

    The encoders run in fp32 on the first device that paints. The libraries that scoring needs are imported here, so
    that painting does not wait for them.
    """
    from flows.artifacts import publish_report
    from pbe.evaluation.report.page import write_gallery, write_report
    from pbe.evaluation.scoring.results import score_results, write_metrics
    from pbe.runtime.devices import choose_device

    options, bench, out = settings.evaluate, checked.bench, folder / layout.EVALUATION
    device = choose_device(options.device, "evaluate.device")
    methods = scored_methods(settings, folder, bench, baselines, device)
    metrics = score_results(
        bench,
        methods,
        case_scorers(options, folder, bench, device),
        protocols(settings, folder, bench, device, bars("real images encoded")),
        out,
        bench_digest=checked.digest,
        conditions=conditions(settings),
        confidence=options.confidence,
        draws=options.bootstrap_draws,
        seed=settings.seed,
        sweep=guidance_sweep(options),
        progress=bars("results scored"),
    )
    metrics["bench"] = checked.report.counts()
    write_metrics(folder / layout.METRICS, metrics)
    write_json(folder / layout.SCORES, main_scores(metrics["methods"][METHOD]))
    counts = [folder / layout.counts(stage) for stage in ("acquire", "filter", "curate")]
    write_report(folder / layout.PAGE, bench, methods, out, metrics, losses=folder / layout.LOSSES, counts=counts)
    write_gallery(folder / layout.GALLERY, bench, [method for method in methods if method.name != SOURCE])
    publish_report(metrics, out, folder / layout.PAGE)
    return {**metrics["methods"][METHOD], "bench": metrics["bench"]}


def conditions(settings: Settings) -> dict[str, Any]:
    """Return how the results were painted: evaluations that differ in it are not comparable."""
    options = settings.evaluate
    return {
        "guidance_scale": options.guidance_scale,
        "max_magnification": options.max_magnification,
        "sampler": options.sampler,
        "num_steps": options.num_steps,
        "guidance_interval": options.guidance_interval,
        "precision": placement_of(options).precision,
        "seed": settings.seed,
    }


def scored_methods(
    settings: Settings, folder: Path, bench: Bench, baselines: Sequence[str], device: "torch.device"
) -> "list[Method]":
    """Return what is scored, the painter first: painted results, and baselines that are computed while scoring."""
    from pbe.evaluation.baselines import BASELINES
    from pbe.evaluation.baselines.computed import baseline_methods
    from pbe.evaluation.encoders.local import open_identity_encoder
    from pbe.evaluation.scorers.diversity import DiversityScorer
    from pbe.evaluation.scoring.case_scores import painted_method

    sweep, out, seed = guidance_sweep(settings.evaluate), folder / layout.EVALUATION, settings.seed
    names = [name for name in dict.fromkeys((SOURCE, *baselines)) if name in BASELINES]
    own, *others = [*sweep.jobs(bench, out), *baseline_jobs(baselines, sweep.scale, bench, out)]
    seeds = diversity(settings.evaluate).jobs(sweep.scale, bench, out)
    drawn, painted = (
        [painted_method(job.folder.name, job.folder, bench, job.num_cases) for job in jobs] for jobs in (seeds, others)
    )
    encoder = open_identity_encoder(settings.evaluate.identity, device) if drawn else None
    scorers = [DiversityScorer(drawn, bench, encoder)] if drawn else []
    return [painted_method(METHOD, own.folder, bench, scorers=scorers), *baseline_methods(names, seed), *painted]


def protocols(
    settings: Settings, folder: Path, bench: Bench, device: "torch.device", progress: Progress
) -> "list[MeasuredProtocol]":
    """Return the protocols of `evaluate.protocol`, with the statistics of the real images as each one encodes them."""
    from pbe.evaluation.scoring.opened_protocols import open_measured_protocols

    options = settings.evaluate
    return open_measured_protocols(
        options.protocol,
        folder / options.encoder,
        folder / options.real,
        folder / layout.RAW,
        bench,
        limit=options.max_real_images,
        seed=settings.seed,
        cache=folder / layout.STATE,
        device=device,
        progress=progress,
    )


def case_scorers(options: Evaluate, folder: Path, bench: Bench, device: "torch.device") -> "list[CaseScorer]":
    """Return the scorers of single cases: pixels, identity, and the attributes of the demo world."""
    from pbe.evaluation.scorers.opening import open_scorers

    scorers = open_scorers(
        bench,
        identity=options.identity,
        lpips=None if options.lpips is None else folder / options.lpips,
        foreground=None if options.foreground is None else folder / options.foreground,
        batch_size=options.batch_size,
        device=device,
    )
    return [*scorers, *attribute_scorers(folder, bench, device)]


def attribute_scorers(folder: Path, bench: Bench, device: "torch.device") -> "list[CaseScorer]":
    """Return the scorer of the demo world's attributes, for a bench that has their true values."""
    if not bench.exemplar_truth:
        return []
    from pbe.demo.attribute_classifier import FOLDER, AttributeClassifier
    from pbe.evaluation.scorers.attributes import AttributeScorer

    weights = folder / layout.TINY / FOLDER
    return [AttributeScorer(AttributeClassifier.from_pretrained(weights).to(device), digest_folder(weights))]


evaluate_flow = stage_flow("evaluate", evaluate)

if __name__ == "__main__":
    main(evaluate_flow)
