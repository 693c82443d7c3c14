"""Stage evaluate: paint the bench, score it beside the baselines, and write the report, into reports/."""

from functools import partial
from pathlib import Path

from flows.inputs import require
from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.dataset.images import read_image
from pbe.demo.accuracy import read_truth
from pbe.evaluation import painting
from pbe.evaluation.bench import Bench, Case, read_bench, result_path, write_reference
from pbe.evaluation.case_selection import CaseRules, make_bench
from pbe.evaluation.paint_plan import GuidanceSweep, bench_digest, paint_bench
from pbe.evaluation.painting import Placement, Sampling
from pbe.evaluation.reference_images import reference_images
from pbe.runtime.code_digest import digest_code
from pbe.runtime.files import digest_folder
from pbe.settings import Evaluate, Settings
from pbe.types import Image, ProgressBars, no_progress_bars

OWN_BENCHES = ("demo", "boxes")  # values of `evaluate.bench` that are not folders


def evaluate(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Paint and score the bench of `evaluate`, then write metrics.json, index.html and gallery.png."""
    require(folder, *([layout.CURATED / "boxes.parquet"] if settings.evaluate.bench in OWN_BENCHES else []))
    require(folder, layout.MODEL)
    painting.prepare()
    placement = placement_of(settings.evaluate)
    bench = open_bench(settings, folder)
    sweep, sampling = guidance_sweep(settings.evaluate), sampling_of(settings)
    paint_all(folder, bench, sweep, sampling, placement, bars)
    return score_all(settings, folder, bench, sweep, sampling, bars)


def open_bench(settings: Settings, folder: Path) -> Bench:
    """Read the COCOEE folder that `evaluate.bench` names, or make a bench of curated validation images."""
    options = settings.evaluate
    if options.bench not in OWN_BENCHES:
        bench = read_bench(folder / options.bench)
        write_reference(folder / layout.BENCH, bench, bench_digest(bench))  # DVC expects the output
        return bench
    rules = CaseRules(
        options.num_cases,
        options.min_area_frac,
        options.max_area_frac,
        settings.method.image_px,
        settings.method.exemplar.pad_frac,
    )
    raw, curated, out = folder / layout.RAW, folder / layout.CURATED, folder / layout.BENCH
    return make_bench(raw, curated, out, rules, seed=settings.seed, truth=read_truth(raw))


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
    folder: Path, bench: Bench, sweep: GuidanceSweep, sampling: Sampling, placement: Placement, bars: ProgressBars
) -> None:
    """Paint the bench with the trained model, unless an interrupted run did with the same model and code."""
    model = folder / layout.MODEL
    paint = partial(painting.paint_cases, model, sampling=sampling, placement=placement)
    kind = placement.devices[0].partition(":")[0]
    model_key = f"{digest_folder(model)} {digest_code('pbe.evaluation.painting')} {kind} {placement.precision}"
    progress = bars("cases painted")
    paint_bench(bench, sweep, sampling, paint, folder / layout.EVALUATION, model_key=model_key, progress=progress)


def score_all(
    settings: Settings, folder: Path, bench: Bench, sweep: GuidanceSweep, sampling: Sampling, bars: ProgressBars
) -> Counts:
    """Score what was painted, write metrics and report, and return each method's metrics.

    The encoders run in fp32 on the first device that paints. The libraries that scoring needs are imported here, so
    that painting does not wait for them.
    """
    from pbe.demo.attribute_classifier import FOLDER, AttributeClassifier
    from pbe.evaluation.case_scores import Method
    from pbe.evaluation.encoders.loading import open_encoder
    from pbe.evaluation.report.page import write_gallery, write_report
    from pbe.evaluation.scoring import score_bench, write_metrics
    from pbe.runtime.devices import choose_device

    options, out = settings.evaluate, folder / layout.EVALUATION
    raw, curated = folder / layout.RAW, folder / layout.CURATED
    references = reference_images(raw, curated, options.real, settings.method.image_px, options.max_real_images)
    device = choose_device(options.device, "evaluate.device")
    tower = layout.MODEL / "image_encoder"
    encoder = open_encoder(folder / (tower if options.encoder == "tower" else options.encoder), device)
    classifier = None
    if bench.exemplar_truth:
        classifier = AttributeClassifier.from_pretrained(folder / layout.TINY / FOLDER).to(device)
    progress = bars("cases scored")
    metrics = score_bench(bench, out, sweep, sampling, references, encoder, classifier, progress)
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
