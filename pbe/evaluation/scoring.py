"""Scoring what was painted, beside the baselines, into metrics.json (section 4).

out/results/copy_paste/      results of that baseline; those of the other are the bench's sources
out/case_scores.csv          the painter's CLIP score and readings, case by case
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pbe.dataset.images import read_image
from pbe.evaluation import baselines
from pbe.evaluation.attributes import AttributeClassifier, AttributeValues
from pbe.evaluation.bench import Bench, Case, result_path, write_image
from pbe.evaluation.case_scores import ResultOf, Scores, score_methods, write_case_scores
from pbe.evaluation.encoders.encode import encode_images
from pbe.evaluation.encoders.protocol import FeatureEncoder
from pbe.evaluation.metric_rows import classifier_row, method_row, sweep_rows
from pbe.evaluation.metrics.quality import fit_quality
from pbe.evaluation.paint_plan import COPY_PASTE, METHOD, SOURCE, UNGUIDED_SCALE, GuidanceSweep
from pbe.evaluation.painting import Sampling
from pbe.runtime.files import write_text
from pbe.types import Image, Progress, no_progress

Metrics = dict[str, Any]  # the content of metrics.json


def score_bench(
    bench: Bench,
    out: Path,
    sweep: GuidanceSweep,
    sampling: Sampling,
    reference_images: Iterable[Image],
    encoder: FeatureEncoder,
    classifier: AttributeClassifier | None,
    progress: Progress = no_progress,
) -> Metrics:
    """Score what `paint_bench` painted into `out` and return the content of metrics.json.

    FID and QS compare the results with `reference_images`. Accuracies of attributes are left out without a classifier,
    or when the exemplars' true attributes are unknown. Scoring uses the batch size and the seed of `sampling`.
    `progress` counts cases.
    """
    truth = bench.exemplar_truth
    if truth is None:
        classifier = None
    attributes = classifier.attributes if classifier else ()
    scores, exemplar_readings = _score(bench, out, sweep, encoder, classifier, sampling.batch_size, progress)
    reference_features = encode_images(encoder, reference_images, sampling.batch_size)
    quality = fit_quality(reference_features, sampling.seed)
    write_case_scores(out / "case_scores.csv", bench, scores[METHOD], classifier)
    unguided = sweep.method_name(UNGUIDED_SCALE)
    rows = {
        name: method_row(scores[name], reference_features, quality, attributes, truth)
        for name in dict.fromkeys((METHOD, COPY_PASTE, SOURCE, unguided))
    }
    by_scale = {f"{scale:g}": scores[sweep.method_name(scale)] for scale in sweep.shown}
    return {
        "methods": {name: rows[name] for name in (METHOD, COPY_PASTE, SOURCE)},
        "features": encoder.name,
        "num_cases": len(bench),
        "num_reused_boxes": bench.num_reused_boxes,
        "guidance_scale": sweep.scale,
        "num_steps": sampling.num_steps,
        "max_magnification": sampling.max_magnification,
        "unguided": rows[unguided],
        "guidance_sweep": sweep_rows(by_scale, attributes, truth, min(sweep.num_cases, len(bench))),
        "classifier_accuracy": classifier_row(bench, attributes, scores[SOURCE].readings, exemplar_readings),
        "num_real_images": len(reference_features),
        "qs_components": quality.num_components,
    }


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Write metrics.json atomically; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def _score(
    bench: Bench,
    out: Path,
    sweep: GuidanceSweep,
    encoder: FeatureEncoder,
    classifier: AttributeClassifier | None,
    batch_size: int,
    progress: Progress,
) -> tuple[dict[str, Scores], tuple[AttributeValues, ...] | None]:
    """Return the scores by method: of all cases where all are painted, otherwise of the first cases."""
    jobs = sweep.jobs(bench, out)
    complete = {job.folder.name: _painted(job.folder) for job in jobs if job.num_cases == len(bench)}
    complete |= {COPY_PASTE: _saved(baselines.copy_paste, out / "results" / COPY_PASTE), SOURCE: baselines.source}
    partial = {job.folder.name: _painted(job.folder) for job in jobs if job.folder.name not in complete}
    scores, readings = score_methods(bench, complete, encoder, classifier, batch_size, progress)
    if partial:
        scores |= score_methods(bench.head(sweep.num_cases), partial, encoder, classifier, batch_size)[0]
    return scores, readings


def _painted(folder: Path) -> ResultOf:
    return lambda case: read_image(result_path(folder, case.id))


def _saved(method: ResultOf, folder: Path) -> ResultOf:
    """Return a method that also saves its results in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)

    def result_of(case: Case) -> Image:
        result = method(case)
        write_image(result_path(folder, case.id), result)
        return result

    return result_of
