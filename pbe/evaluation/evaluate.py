"""The evaluation (section 4): paint the bench, score the painter beside the baselines, sum up.

out/results/paint_by_example/               at the guidance scale of the table
out/results/paint_by_example_guidance_1/    and so on for the sweep
out/results/copy_paste/                     the pasted baseline; the other baseline is the bench's GT_3500
out/results/key.json                        what these results belong to
out/case_scores.csv                         CLIP score and readings, case by case
"""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pbe.dataset.images import read_image
from pbe.evaluation import baselines
from pbe.evaluation.attributes import WORDS, AttributeJudge, Readings
from pbe.evaluation.bench import Bench, Case, Image, result_path, write_image
from pbe.evaluation.encoders import FeatureEncoder, encode_images
from pbe.evaluation.metric_rows import DIGITS, judge_row, sweep_rows, table_row
from pbe.evaluation.metrics import fit_quality
from pbe.evaluation.painting import Paint, PaintJob
from pbe.evaluation.results import METHOD, Metrics, Progress, paint_bench, part_of, results_name, shown_scales
from pbe.evaluation.scores import ResultOf, Scores, score_methods
from pbe.runtime.files import atomic_file
from pbe.settings import Evaluate


def evaluate(
    bench: Bench,
    real_images: Iterable[Image],
    encoder: FeatureEncoder,
    judge: AttributeJudge | None,
    settings: Evaluate,
    paint: Paint,
    out: Path,
    *,
    model_key: str,
    seed: int,
    progress: Progress | None = None,
) -> Metrics:
    """Paint and score a bench; returns what goes into metrics.json.

    What is painted and which results are used again: see `paint_bench`. The accuracies are None without a judge, or
    where the truth is not known. `progress` counts cases painted and cases scored, together.
    """
    jobs = paint_bench(bench, settings, paint, out, model_key=model_key, seed=seed, progress=progress)
    num_painted = sum(job.num_cases for job in jobs)
    total = num_painted + len(bench)
    truth = bench.exemplar_truth
    judge = judge if truth is not None else None
    scored = part_of(progress, num_painted, total)
    scores, exemplar_readings = _score(bench, jobs, encoder, judge, settings, out, scored)
    real_features = encode_images(encoder, real_images, settings.batch_size)
    quality = fit_quality(real_features, seed)
    _write_case_scores(out / "case_scores.csv", bench, scores[METHOD])
    rows = {
        name: table_row(scores[name], real_features, quality, truth)
        for name in dict.fromkeys((METHOD, "copy_paste", "source", results_name(1.0, settings)))
    }
    sweep = {f"{s:g}": scores[results_name(s, settings)] for s in shown_scales(settings)}
    return {
        "methods": {name: rows[name] for name in (METHOD, "copy_paste", "source")},
        "features": encoder.name,
        "num_cases": len(bench),
        "num_reused_boxes": bench.num_reused_boxes,
        "guidance_scale": settings.guidance_scale,
        "num_steps": settings.num_steps,
        "max_magnification": settings.max_magnification,
        "unguided": rows[results_name(1.0, settings)],
        "guidance_sweep": sweep_rows(sweep, truth, min(settings.sweep_cases, len(bench))),
        "judge": judge_row(bench, scores["source"].readings, exemplar_readings),
        "num_real_images": len(real_features),
        "qs_components": quality.num_components,
    }


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Write metrics.json, whole or not at all."""
    with atomic_file(path) as part:
        part.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def _score(
    bench: Bench,
    jobs: Sequence[PaintJob],
    encoder: FeatureEncoder,
    judge: AttributeJudge | None,
    settings: Evaluate,
    out: Path,
    progress: Progress | None,
) -> tuple[dict[str, Scores], Readings | None]:
    """Scores by method: the full rows over the whole bench, the others over its first cases."""
    full: dict[str, ResultOf] = {job.folder.name: _painted(job.folder) for job in jobs if job.num_cases == len(bench)}
    full |= {"copy_paste": _kept(baselines.copy_paste, out / "results" / "copy_paste"), "source": baselines.source}
    scores, readings = score_methods(bench, full, encoder, judge, settings.batch_size, progress)
    rest: dict[str, ResultOf] = {j.folder.name: _painted(j.folder) for j in jobs if j.folder.name not in full}
    if rest:
        head = bench.head(settings.sweep_cases)
        scores |= score_methods(head, rest, encoder, judge, settings.batch_size)[0]
    return scores, readings


def _painted(folder: Path) -> ResultOf:
    return lambda case: read_image(result_path(folder, case.id))


def _kept(method: ResultOf, folder: Path) -> ResultOf:
    """The method, its results also left as files."""
    folder.mkdir(parents=True, exist_ok=True)

    def result_of(case: Case) -> Image:
        result = method(case)
        write_image(result_path(folder, case.id), result)
        return result

    return result_of


def _write_case_scores(path: Path, bench: Bench, scores: Scores) -> None:
    """One line a case for the painter's results: what the report picks its worst cases by."""
    words = {} if scores.readings is None else scores.readings
    with atomic_file(path) as part, part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case_id", "clip_score", *words])
        for i, case_id in enumerate(bench.ids):
            read = [WORDS[name][indices[i]] for name, indices in words.items()]
            writer.writerow([case_id, f"{scores.clip_scores[i]:.{DIGITS}f}", *read])
