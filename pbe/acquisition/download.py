"""Acquisition: annotation files and images from any source into one folder, resumable, checked and counted.

Whatever the source, `{out}/annotations/*.csv` are the box annotations and class descriptions, `{out}/images/*.tar` the
wanted images (`pbe.dataset.image_shards`), and `{out}/manifest.parquet` says of each what came of it and where it lies. The
folder depends on the settings and the source alone: images of an earlier selection are removed, and nothing of how it
was reached is recorded.
"""

import errno
import fcntl
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pbe.acquisition.importers.fiftyone_dataset import Database
from pbe.acquisition.shard_packing import RESULTS, Packer, Result
from pbe.acquisition.shard_plan import Folders, Plan, images_per_shard, take_tasks
from pbe.acquisition.sources import BUCKET_SOURCES, Source, open_source
from pbe.acquisition.stores import LostError, hash_file
from pbe.acquisition.worker_processes import LOCK, CrewJob, pack_in_processes
from pbe.dataset import openimages
from pbe.dataset.openimages import SPLITS, AnnotationFile
from pbe.errors import UserError
from pbe.settings import Acquire

Progress = Callable[[int, int], None]

MANIFEST_SCHEMA = {**RESULTS, **dict.fromkeys(openimages.CREDITS, pl.String)}

_SHARDS_AT_ONCE = 200  # of the manifest

_log = logging.getLogger(__name__)


@dataclass
class AcquireReport:
    """What came of each wanted image; `num_fetched` and `num_present` tell of this run alone, not of the folder."""

    outcomes: dict[str, dict[str, int]] = field(default_factory=lambda: {split: {} for split in SPLITS})
    skipped: dict[str, int] = field(default_factory=dict)  # of own data: what was left out, by reason
    num_bytes: int = 0
    num_fetched: int = 0
    num_present: int = 0

    def as_dict(self) -> dict[str, object]:
        """What a rerun would report again, fit for a tracked file."""
        outcomes = {split: dict(sorted(counts.items())) for split, counts in self.outcomes.items()}
        skipped = {"skipped": self.skipped} if self.skipped else {}
        return {"outcomes": outcomes, **skipped, "num_bytes": self.num_bytes}

    def count(self, result: Result) -> None:
        """Take one image's result in."""
        of_split = self.outcomes[result.split]
        of_split[result.outcome] = of_split.get(result.outcome, 0) + 1
        if result.outcome == "ok":
            self.num_bytes += result.num_bytes or 0
            self.num_present += result.is_kept
            self.num_fetched += not result.is_kept


def acquire(
    settings: Acquire,
    seed: int,
    out: Path,
    endpoint_url: str | None = None,
    progress: Progress | None = None,
    database: Database | None = None,
) -> AcquireReport:
    """Bring `out` to hold what `settings` ask for; files there that are whole are not fetched again.

    `endpoint_url` is the S3 endpoint of the demo world (`serve_bucket`), or takes the place of the settings' own;
    `seed` draws which images a limit keeps; `progress` is told (images done, images wanted); `database` is where
    FiftyOne's datasets are, for a source of that kind.
    Raises UserError for a mistake in the settings or in an annotation file, RuntimeError when another run works on
    `out` or when more than `max_lost_frac` of the images are lost, OSError naming `out` when the disk is full.
    """
    with _lock(out), _full_disk_told(out), _part_folder(out) as parts:
        source = open_source(settings, seed, parts / "described", endpoint_url, database)
        (out / "manifest.parquet").unlink(missing_ok=True)
        annotations = out / "annotations"
        _fetch_annotations(source, annotations, parts)
        folders = Folders.within(out, parts)
        plan = Plan(_select(settings, seed, annotations), images_per_shard(settings), folders)
        num_processes = min(settings.processes, len(plan.shards)) if settings.source in BUCKET_SOURCES else 1
        if num_processes > 1:
            images = pack_in_processes(CrewJob(settings, endpoint_url, out, parts), num_processes, plan.release)
        else:
            images = Packer(source.images, settings, folders).pack(take_tasks(folders), plan.release)
        report = AcquireReport(skipped=dict(source.skipped))
        with closing(images) as results:
            _take_in(results, report, plan.num_images, settings.max_lost_frac, progress)
        _write_manifest([folders.results / f"{name}.parquet" for name in plan.shards], annotations, out, parts)
    _log.info("acquired %s; %d fetched, %d were there", report.outcomes, report.num_fetched, report.num_present)
    return report


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Hold the lock beside `out` (in it, it would be part of the output), which the system frees when we die."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f".{out.name}.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RuntimeError(f"{out}: another acquire (process {file.read().strip()}) is at work there") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextmanager
def _full_disk_told(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        message = "no room left on its disk; make some and run acquire again: it goes on from there"
        raise OSError(error.errno, message, str(out)) from error


@contextmanager
def _part_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` for files in the making, gone at the end; what a killed run left of shards is in it."""
    parts = out.parent / f".{out.name}.parts"
    parts.mkdir(parents=True, exist_ok=True)
    with (parts / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the last process of a run that was killed just now is gone
    _clear(parts)
    with ExitStack() as unless_done:
        unless_done.callback(_clear, parts)
        yield parts
        unless_done.pop_all()
    shutil.rmtree(parts)


def _clear(parts: Path) -> None:
    """Leave nothing but images that the next run can use."""
    for path in parts.iterdir():
        if path.name not in ("new", "old"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _fetch_annotations(source: Source, folder: Path, parts: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    needed = [*openimages.BOX_FILES.values(), openimages.CLASSES_FILE]
    for file in needed:
        _fetch_annotation(source, file, folder / file.name, parts)
    extras = [(openimages.HIERARCHY_FILE, True), *((file, True) for file in openimages.IMAGE_FILES.values())]
    if not source.public_names:
        extras += [(file, True) for file in openimages.MASK_FILES.values()]
    if source.has_world is not False:
        extras.append((openimages.WORLD_ATTRIBUTES_FILE, source.has_world is None))
    for extra, optional in extras:
        _fetch_annotation(source, extra, folder / extra.name, parts, optional)
        needed.append(extra)
    for image_list in openimages.IMAGE_FILES.values():
        openimages.scan_credits(folder / image_list.name)  # a mistake there should not wait for the images
    for path in folder.iterdir():
        if path.name not in {file.name for file in needed}:
            path.unlink()


def _fetch_annotation(source: Source, file: AnnotationFile, target: Path, parts: Path, optional: bool = False) -> None:
    """Fetch a file under the first of its names that is there; S3 may say "denied" of one that is not."""
    known = hash_file(target)[1] if target.exists() else None
    part = parts / file.name
    denied: LostError | None = None
    for key in source.annotation_keys(file):
        try:
            if not source.annotations.fetch(key, part, known).unchanged:
                part.rename(target)
            return
        except LostError as lost:
            if lost.outcome not in ("missing", "denied"):
                raise RuntimeError(f"annotation file not to be had: {lost}") from None
            denied = lost if lost.outcome == "denied" else denied
    target.unlink(missing_ok=True)
    if denied and optional:
        _log.warning("done without it: %s", denied)
    elif denied:
        raise UserError(f"annotation file not to be had: {denied}")
    elif not optional:
        tried = " or ".join(source.annotations.locate(key) for key in source.annotation_keys(file))
        raise UserError(f"{tried}: no such file; the source has no {file.name}")


def _select(settings: Acquire, seed: int, annotations: Path) -> dict[str, pl.Series]:
    """The wanted images' ids by split; raises UserError when a split has none."""
    classes = openimages.read_classes(annotations / openimages.CLASSES_FILE.name)
    hierarchy = openimages.read_hierarchy(annotations / openimages.HIERARCHY_FILE.name)
    labels = openimages.find_labels(classes, settings.classes, "acquire.classes", hierarchy)
    limits = {"train": settings.train_images, "validation": settings.validation_images}
    wanted = {}
    for split in SPLITS:
        path = annotations / openimages.BOX_FILES[split].name
        wanted[split] = ids = openimages.select_images(path, labels, limits[split], seed)
        if ids.is_empty():
            sought = f"a box of {', '.join(settings.classes)}" if settings.classes else "a box"
            raise UserError(f"{path}: no image has {sought}")
        wrong = ids.filter(ids.str.contains("/", literal=True) | ids.str.starts_with("."))
        if not wrong.is_empty():
            raise UserError(f"{path}: ImageID {wrong[0]!r} is no file name")
    return wanted


def _take_in(
    results: Iterator[Result], report: AcquireReport, total: int, max_lost_frac: float, progress: Progress | None
) -> None:
    """Count what comes of the images in `report`; stops with RuntimeError as soon as too many are lost."""
    allowed = int(max_lost_frac * total)
    lost: Counter[str] = Counter()
    for done, result in enumerate(results, start=1):
        report.count(result)
        if result.outcome != "ok":
            lost[result.outcome] += 1
            _log.warning("%s: %s", result.outcome, result.detail)
        if lost.total() > allowed:
            counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(lost.items()))
            raise RuntimeError(
                f"acquire: more than {allowed} of {total} images lost ({counts}), "
                f"which acquire.max_lost_frac allows; the last: {result.detail}"
            )
        if progress is not None:
            progress(done, total)


def _write_manifest(results: list[Path], annotations: Path, out: Path, parts: Path) -> None:
    """Join the shards' results, in order, with whom their images are by; a part of them is in memory at any time."""
    part = parts / "manifest.parquet"
    with pq.ParquetWriter(part, pl.DataFrame(schema=MANIFEST_SCHEMA).to_arrow().schema, compression="zstd") as writer:
        for start in range(0, len(results), _SHARDS_AT_ONCE):
            images = pl.read_parquet(results[start : start + _SHARDS_AT_ONCE])
            for (split,), of_split in images.group_by("split", maintain_order=True):
                listed = annotations / openimages.IMAGE_FILES[str(split)].name
                credits = openimages.read_credits(listed, of_split.select("image_id"))
                table = of_split.join(credits, on="image_id", how="left", maintain_order="left")
                writer.write_table(table.select(*MANIFEST_SCHEMA).to_arrow())
                pa.default_memory_pool().release_unused()  # else it holds more with each part
    part.rename(out / "manifest.parquet")
