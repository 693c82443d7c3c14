"""Stage evaluate: paint the bench, score it beside the baselines, and write the report, into reports/."""

from functools import partial
from pathlib import Path

from flows.inputs import require
from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.dataset.images import image_size, read_image
from pbe.evaluation import painting
from pbe.evaluation.bench import Bench, Case, result_path
from pbe.evaluation.bench_checks import CheckedBench, open_bench
from pbe.evaluation.case_checks import Policy
from pbe.evaluation.paint_plan import Diversity, GuidanceSweep, evaluation_jobs
from pbe.evaluation.painted_methods import Models
from pbe.evaluation.painting import Placement, Sampling
from pbe.settings import Evaluate, Settings
from pbe.types import Image, ProgressBars, no_progress_bars

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
    sweep, sampling = guidance_sweep(options), sampling_of(settings)
    paint_all(settings, folder, checked.bench, sweep, sampling, bars)
    return score_all(settings, folder, checked, sweep, sampling, bars)


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


def sampling_of(settings: Settings) -> Sampling:
    """Return how every case is painted."""
    options = settings.evaluate
    return Sampling(options.num_steps, options.max_magnification, options.batch_size, settings.seed)


def placement_of(options: Evaluate) -> Placement:
    """Return where and in which precision to paint: one process on each GPU, or `num_workers` on the CPU.

    Raises UserError for a device that does not exist and for fp16 on a CPU.
    """
    from pbe.runtime.devices import choose_devices, choose_precision, precision_name

    devices = choose_devices(options.device, "evaluate.device")
    dtype = choose_precision(options.precision, devices[0], "evaluate.precision")
    num_workers = options.num_workers if devices[0].type == "cpu" else 1
    return Placement(tuple(map(str, devices)), num_workers, precision_name(dtype))


def paint_all(
    settings: Settings, folder: Path, bench: Bench, sweep: GuidanceSweep, sampling: Sampling, bars: ProgressBars
) -> None:
    """Paint the bench with the trained model and the baselines' models; pictures that exist are kept."""
    options = settings.evaluate
    models = Models(folder / layout.MODEL, folder / layout.BACKBONE)
    diversity = Diversity(options.diversity_cases, options.diversity_seeds)
    jobs = evaluation_jobs(bench, folder / layout.EVALUATION, sweep, diversity, options.baselines)
    placement, progress = placement_of(options), bars("cases painted")
    painting.paint_cases(models, bench, jobs, sampling=sampling, placement=placement, progress=progress)


def score_all(
    settings: Settings,
    folder: Path,
    checked: CheckedBench,
    sweep: GuidanceSweep,
    sampling: Sampling,
    bars: ProgressBars,
) -> Counts:
    """Score what was painted, write metrics and report, and return each method's metrics.

    The encoders run in fp32 on the first device that paints. The libraries that scoring needs are imported here, so
    that painting does not wait for them.
    """
    from pbe.demo.attribute_classifier import FOLDER, AttributeClassifier
    from pbe.evaluation.case_scores import Method
    from pbe.evaluation.encoders.loading import open_encoder
    from pbe.evaluation.reference_images import reference_images
    from pbe.evaluation.report.page import write_gallery, write_report
    from pbe.evaluation.scoring import score_bench, write_metrics
    from pbe.runtime.devices import choose_device

    options, bench, out = settings.evaluate, checked.bench, folder / layout.EVALUATION
    image_px = min(image_size(bench.files(bench.ids[0]).source))
    references = reference_images(folder / options.real, folder / layout.RAW, image_px, options.max_real_images)
    device = choose_device(options.device, "evaluate.device")
    encoder = open_encoder(folder / options.encoder, device)
    classifier = None
    if bench.exemplar_truth:
        classifier = AttributeClassifier.from_pretrained(folder / layout.TINY / FOLDER).to(device)
    progress = bars("cases scored")
    metrics = score_bench(bench, out, sweep, sampling, references, encoder, classifier, progress)
    metrics["bench"] = checked.report.counts()
    write_metrics(folder / layout.METRICS, metrics)
    counts = [folder / layout.counts(stage) for stage in ("acquire", "filter", "curate")]
    shown = [
        Method(job.folder.name, partial(read_result, job.folder), num_cases=job.num_cases)
        for job in sweep.jobs(bench, out)
    ]
    write_report(folder / layout.PAGE, bench, shown, out, metrics, losses=folder / layout.LOSSES, counts=counts)
    write_gallery(folder / layout.GALLERY, bench, shown)
    methods: Counts = metrics["methods"]
    return methods


def read_result(folder: Path, case: Case) -> Image:
    """Return a painted case."""
    return read_image(result_path(folder, case.id))


evaluate_flow = stage_flow("evaluate", evaluate)

if __name__ == "__main__":
    main(evaluate_flow)
