"""The evaluation (section 4): paint the bench, score the painter beside the baselines, sum up.

out/results/paint_by_example/               at the guidance scale of the table
out/results/paint_by_example_guidance_1/    and so on for the sweep
out/results/copy_paste/                     the pasted baseline; the other baseline is the bench's GT_3500
out/results/key.json                        what these results belong to
out/case_scores.csv                         CLIP score and readings, case by case
"""

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pbe.data.images import read_image
from pbe.evaluation import baselines
from pbe.evaluation.attributes import WORDS, AttributeJudge, Readings
from pbe.evaluation.bench import (
    Bench,
    Case,
    Image,
    exemplar_path,
    mask_path,
    result_path,
    source_path,
    write_image,
)
from pbe.evaluation.encoders import FeatureEncoder, encode_images
from pbe.evaluation.metrics import fit_quality
from pbe.evaluation.painting import Paint, PaintJob
from pbe.evaluation.scores import ResultOf, Scores, score_methods
from pbe.evaluation.table import DIGITS, judge_row, sweep_rows, table_row
from pbe.files import written_whole
from pbe.settings import Evaluate

Progress = Callable[[int, int], None]
Metrics = dict[str, Any]

METHOD = "paint_by_example"


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

    Painted at `guidance_scale` and at 1: all cases; at the other scales of `sweep`: the first `sweep_cases`. Results
    that an interrupted run left are used when they belong to the same `model_key` (any string that changes with the
    weights), bench, seed and sampling settings, and removed otherwise. The accuracies are None without a judge, or
    where the truth is not known. `progress` counts cases painted and cases scored, together.
    """
    jobs = paint_jobs(bench, settings, out)
    num_painted = sum(job.num_cases for job in jobs)
    total = num_painted + len(bench)
    _keep_results_of(out / "results", {"model": model_key, "bench": bench_digest(bench), "seed": seed}, settings)
    paint(bench, jobs, progress=_part(progress, 0, total))
    truth = bench.exemplar_truth
    judge = judge if truth is not None else None
    scores, exemplar_readings = _score(bench, jobs, encoder, judge, settings, out, _part(progress, num_painted, total))
    real_features = encode_images(encoder, real_images, settings.batch_size)
    quality = fit_quality(real_features, seed)
    _write_case_scores(out / "case_scores.csv", bench, scores[METHOD])
    rows = {
        name: table_row(scores[name], real_features, quality, truth)
        for name in dict.fromkeys((METHOD, "copy_paste", "source", _name(1.0, settings)))
    }
    sweep = {f"{s:g}": scores[_name(s, settings)] for s in shown_scales(settings)}
    return {
        "methods": {name: rows[name] for name in (METHOD, "copy_paste", "source")},
        "features": encoder.name,
        "num_cases": len(bench),
        "num_reused_boxes": bench.num_reused_boxes,
        "guidance_scale": settings.guidance_scale,
        "num_steps": settings.num_steps,
        "unguided": rows[_name(1.0, settings)],
        "guidance_sweep": sweep_rows(sweep, truth, min(settings.sweep_cases, len(bench))),
        "judge": judge_row(bench, scores["source"].readings, exemplar_readings),
        "num_real_images": len(real_features),
        "qs_components": quality.num_components,
    }


def paint_jobs(bench: Bench, settings: Evaluate, out: Path) -> list[PaintJob]:
    """What there is to paint: whole rows of the table first, then the rest of the sweep."""
    full = dict.fromkeys((settings.guidance_scale, 1.0), len(bench))
    cases = full | {s: min(settings.sweep_cases, len(bench)) for s in shown_scales(settings) if s not in full}
    return [PaintJob(scale, number, out / "results" / _name(scale, settings)) for scale, number in cases.items()]


def shown_scales(settings: Evaluate) -> list[float]:
    """The guidance scales of the sweep and of the gallery: the table's own is always among them."""
    return sorted({*settings.sweep, settings.guidance_scale})


def results_folder(out: Path, guidance_scale: float, settings: Evaluate) -> Path:
    """Where `evaluate` writes what was painted at a guidance scale."""
    return out / "results" / _name(guidance_scale, settings)


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Write metrics.json, whole or not at all."""
    with written_whole(path) as part:
        part.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def bench_digest(bench: Bench) -> str:
    """A hash over the bytes of every case's files."""
    digest = hashlib.sha256()
    for case_id in bench.ids:
        for path_of in (source_path, mask_path, exemplar_path):
            digest.update(path_of(bench.folder, case_id).read_bytes())
    return digest.hexdigest()


def _part(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of a part that follows `before` others, as progress of the whole."""
    return None if progress is None else lambda done, _: progress(before + done, total)


def _name(guidance_scale: float, settings: Evaluate) -> str:
    return METHOD if guidance_scale == settings.guidance_scale else f"{METHOD}_guidance_{guidance_scale:g}"


def _keep_results_of(results: Path, origin: Mapping[str, object], settings: Evaluate) -> None:
    """Keep the results of an interrupted run of this very evaluation; remove those of any other."""
    sampling = settings.model_dump(include={"guidance_scale", "num_steps", "batch_size", "sweep_cases"})
    key = json.dumps({**origin, **sampling}, indent=2) + "\n"
    path = results / "key.json"
    if path.is_file() and path.read_text() == key:
        return
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    path.write_text(key)


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
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case_id", "clip_score", *words])
        for i, case_id in enumerate(bench.ids):
            read = [WORDS[name][indices[i]] for name, indices in words.items()]
            writer.writerow([case_id, f"{scores.clip_scores[i]:.{DIGITS}f}", *read])
