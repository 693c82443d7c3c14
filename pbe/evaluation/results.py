"""What is painted in an evaluation, and where: the results of an interrupted run are gone on with if they still hold.

This module and `painting` load no model's code, so that the painting processes start before the scoring's does.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pbe.evaluation.bench import Bench, exemplar_path, mask_path, source_path
from pbe.evaluation.painting import Paint, PaintJob
from pbe.runtime.files import atomic_file
from pbe.settings import Evaluate

Progress = Callable[[int, int], None]
Metrics = dict[str, Any]  # the content of metrics.json

METHOD = "paint_by_example"


def paint_bench(
    bench: Bench,
    settings: Evaluate,
    paint: Paint,
    out: Path,
    *,
    model_key: str,
    seed: int,
    progress: Progress | None = None,
) -> list[PaintJob]:
    """Paint what `evaluate` scores: at `guidance_scale` and at 1 all cases, at the rest of `sweep` `sweep_cases`.

    Results that an interrupted run left are used when they belong to the same `model_key` (any string that changes
    with the weights), bench, seed and sampling settings, and removed otherwise. `progress` counts cases painted, of
    those painted and scored together.
    """
    jobs = paint_jobs(bench, settings, out)
    origin = {"model": model_key, "bench": bench_digest(bench), "seed": seed}
    _keep_results_of(out / "results", [job.folder.name for job in jobs], origin, settings)
    paint(bench, jobs, progress=part_of(progress, 0, sum(job.num_cases for job in jobs) + len(bench)))
    return jobs


def paint_jobs(bench: Bench, settings: Evaluate, out: Path) -> list[PaintJob]:
    """What there is to paint: whole rows of the table first, then the rest of the sweep."""
    full = dict.fromkeys((settings.guidance_scale, 1.0), len(bench))
    cases = full | {s: min(settings.sweep_cases, len(bench)) for s in shown_scales(settings) if s not in full}
    return [PaintJob(scale, number, results_folder(out, scale, settings)) for scale, number in cases.items()]


def shown_scales(settings: Evaluate) -> list[float]:
    """The guidance scales of the sweep and of the gallery: the table's own is always among them."""
    return sorted({*settings.sweep, settings.guidance_scale})


def results_folder(out: Path, guidance_scale: float, settings: Evaluate) -> Path:
    """Where `evaluate` writes what was painted at a guidance scale."""
    return out / "results" / results_name(guidance_scale, settings)


def results_name(guidance_scale: float, settings: Evaluate) -> str:
    """The folder, below `results`, of what is painted at a guidance scale."""
    return METHOD if guidance_scale == settings.guidance_scale else f"{METHOD}_guidance_{guidance_scale:g}"


def bench_digest(bench: Bench) -> str:
    """A hash over the bytes of every case's files."""
    digest = hashlib.sha256()
    for case_id in bench.ids:
        for path_of in (source_path, mask_path, exemplar_path):
            digest.update(path_of(bench.folder, case_id).read_bytes())
    return digest.hexdigest()


def part_of(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of a part that follows `before` others, as progress of the whole."""
    return None if progress is None else lambda done, _: progress(before + done, total)


def _keep_results_of(results: Path, names: Iterable[str], origin: Mapping[str, object], settings: Evaluate) -> None:
    """Keep the results of an interrupted run of this very evaluation; remove those of any other."""
    keys = {"guidance_scale", "num_steps", "max_magnification", "batch_size", "sweep_cases"}
    sampling = settings.model_dump(include=keys)
    key = json.dumps({**origin, **sampling}, indent=2) + "\n"
    path = results / "key.json"
    if not (path.is_file() and path.read_text() == key):
        shutil.rmtree(results, ignore_errors=True)
        with atomic_file(path) as part:
            part.write_text(key)
    for folder in results.iterdir():
        if folder.is_dir() and folder.name not in {*names, "copy_paste"}:
            shutil.rmtree(folder)
