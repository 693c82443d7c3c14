"""Which cases an evaluation paints at which guidance scales, and when the results of an interrupted run are reused.

    out/results/paint_by_example/               all cases at the evaluated guidance scale
    out/results/paint_by_example_guidance_1/    all cases without guidance; the same for each other scale, fewer cases
    out/results/key.json                        what the results depend on

Neither this module nor `painting` imports the model's code, so that painting starts before the code that scores loads.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pbe.evaluation.bench import Bench, exemplar_path, mask_path, source_path
from pbe.evaluation.painting import Paint, PaintJob, Sampling
from pbe.runtime.files import write_text
from pbe.types import Progress, no_progress

METHOD, COPY_PASTE, SOURCE = "paint_by_example", "copy_paste", "source"  # the names of methods in scores and folders
UNGUIDED_SCALE = 1.0


@dataclass(frozen=True)
class GuidanceSweep:
    """The guidance scales that an evaluation paints at.

    All cases are painted at `scale` and at 1, and the first `num_cases` at the scales in `compared`.
    """

    scale: float
    compared: tuple[float, ...]
    num_cases: int

    @property
    def shown(self) -> list[float]:
        """The scales that the report compares, in ascending order; `scale` is always one of them."""
        return sorted({*self.compared, self.scale})

    def method_name(self, scale: float) -> str:
        """Return the name that a guidance scale has in folders and scores."""
        return METHOD if scale == self.scale else f"{METHOD}_guidance_{scale:g}"

    def jobs(self, bench: Bench, out: Path) -> list[PaintJob]:
        """Return the work that is left for `out`: first the scales at which all cases are painted."""
        num_cases = dict.fromkeys((self.scale, UNGUIDED_SCALE), len(bench))
        for scale in self.shown:
            num_cases.setdefault(scale, min(self.num_cases, len(bench)))
        return [PaintJob(scale, number, results_folder(out, self, scale)) for scale, number in num_cases.items()]


def results_folder(out: Path, sweep: GuidanceSweep, scale: float) -> Path:
    """Return the folder of the results at a guidance scale."""
    return out / "results" / sweep.method_name(scale)


def paint_bench(
    bench: Bench,
    sweep: GuidanceSweep,
    sampling: Sampling,
    paint: Paint,
    out: Path,
    *,
    model_key: str,
    progress: Progress = no_progress,
) -> None:
    """Paint the cases of `sweep` into `out`.

    Results that an interrupted run left are reused if they belong to the same `model_key` (any string that changes with
    the weights, the code, the kind of device and the precision), bench, sampling and sweep; all others are removed.
    `progress` counts painted cases.
    """
    jobs = sweep.jobs(bench, out)
    settings = {"guidance_scale": sweep.scale, "sweep_cases": sweep.num_cases, **asdict(sampling)}
    key = {"model": model_key, "bench": bench_digest(bench), **settings}
    _remove_stale_results(out / "results", {job.folder.name for job in jobs}, key)
    paint(bench, jobs, progress=progress)


def bench_digest(bench: Bench) -> str:
    """Return a digest, 64 hex digits, of the bytes of every case's files."""
    digest = hashlib.sha256()
    for case_id in bench.ids:
        for path_of in (source_path, mask_path, exemplar_path):
            digest.update(path_of(bench.folder, case_id).read_bytes())
    return digest.hexdigest()


def _remove_stale_results(results: Path, names: set[str], key: Mapping[str, object]) -> None:
    """Remove the results of an evaluation with another key, and the folders of scales that are not painted."""
    text = json.dumps(key, indent=2) + "\n"
    path = results / "key.json"
    if not (path.is_file() and path.read_text() == text):
        shutil.rmtree(results, ignore_errors=True)
        write_text(path, text)
    for folder in results.iterdir():
        if folder.is_dir() and folder.name not in names | {COPY_PASTE}:
            shutil.rmtree(folder)
