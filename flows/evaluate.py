"""Stage evaluate: the bench painted and scored beside the baselines, into reports/."""

from functools import partial
from pathlib import Path

from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.evaluation import painting
from pbe.evaluation.bench import Bench, read_bench
from pbe.evaluation.case_selection import make_bench
from pbe.evaluation.painting import Paint
from pbe.evaluation.reference_images import real_images
from pbe.evaluation.results import Metrics, Progress, paint_bench
from pbe.runtime.code_digest import digest_code
from pbe.runtime.files import digest_folder
from pbe.settings import Settings
from pbe.types import ProgressBars, no_progress_bars


def evaluate(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Paint and score the bench of `evaluate`, then write metrics.json, index.html and gallery.png."""
    painting.prepare()
    options, out, model = settings.evaluate, folder / layout.EVALUATION, folder / layout.MODEL
    bench = open_bench(settings, folder)
    bar = bars("cases painted and scored")
    paint = partial(
        painting.paint_cases,
        model,
        sampling=painting.Sampling(options.num_steps, options.max_magnification, settings.seed),
        batch_size=options.batch_size,
        num_workers=options.num_workers,
    )
    key = f"{digest_folder(model)} {digest_code('pbe.evaluation.painting')}"
    paint_bench(bench, options, paint, out, model_key=key, seed=settings.seed, progress=bar)
    metrics = score(settings, folder, bench, paint, key, bar)
    return {name: metrics["methods"][name] for name in metrics["methods"]}


def score(settings: Settings, folder: Path, bench: Bench, paint: Paint, model_key: str, bar: Progress) -> Metrics:
    """Score what is painted and write it all down; what this takes to import, painting did not have to wait for."""
    from pbe.demo.attribute_classifier import Judge
    from pbe.evaluation import evaluate as evaluation
    from pbe.evaluation.encoders import open_encoder
    from pbe.evaluation.report import write_gallery, write_report
    from pbe.method.conditioner import Conditioner

    options, out, model = settings.evaluate, folder / layout.EVALUATION, folder / layout.MODEL
    raw, curated = folder / layout.RAW, folder / layout.CURATED
    metrics = evaluation.evaluate(
        bench,
        real_images(raw, curated, options.real, settings.method.image_px, options.max_real_images),
        open_encoder(options.encoder, Conditioner.from_pretrained(model / "image_encoder")),
        Judge.from_pretrained(folder / layout.TINY / "judge") if bench.exemplar_truth else None,
        options,
        paint,
        out,
        model_key=model_key,
        seed=settings.seed,
        progress=bar,
    )
    evaluation.write_metrics(folder / layout.METRICS, metrics)
    counts = [folder / layout.counts(stage) for stage in ("acquire", "filter", "curate")]
    write_report(folder / layout.PAGE, bench, out, metrics, options, losses=folder / layout.LOSSES, counts=counts)
    write_gallery(folder / layout.GALLERY, bench, out, options)
    return metrics


def open_bench(settings: Settings, folder: Path) -> Bench:
    """The COCOEE folder that `evaluate.bench` names, else a bench of our own curated validation images."""
    if settings.evaluate.bench not in ("demo", "boxes"):
        return read_bench(folder / settings.evaluate.bench)
    return make_bench(
        folder / layout.RAW,
        folder / layout.CURATED,
        folder / layout.BENCH,
        settings.evaluate,
        image_px=settings.method.image_px,
        pad_frac=settings.method.exemplar.pad_frac,
        seed=settings.seed,
    )


evaluate_flow = stage_flow("evaluate", evaluate)

if __name__ == "__main__":
    main(evaluate_flow)
