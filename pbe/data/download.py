"""Acquisition: annotation files and images from any source into one folder, resumable, checked and counted.

Whatever the source, `{out}/annotations/*.csv` are the box annotations and class descriptions, `{out}/images/{split}/`
the wanted images, and `{out}/manifest.parquet` says of each what came of it. The folder depends on the settings and the
source alone: files of an earlier selection are removed, and nothing of how it was reached is recorded.
"""

import fcntl
import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl

from pbe.data import openimages
from pbe.data.images import RefusedImageError, image_size
from pbe.data.openimages import SPLITS, AnnotationFile, image_key
from pbe.data.own.fiftyone import Database
from pbe.data.shrink import shrink, source_md5
from pbe.data.sources import Source, open_source
from pbe.data.stores import LostError, hash_file
from pbe.settings import Acquire

Progress = Callable[[int, int], None]

MANIFEST_SCHEMA = {
    "image_id": pl.String,
    "split": pl.String,
    "outcome": pl.String,
    "num_bytes": pl.Int64,
    "md5": pl.String,
    "width": pl.Int32,
    "height": pl.Int32,
    **dict.fromkeys(openimages.CREDITS, pl.String),
}

_log = logging.getLogger(__name__)


@dataclass
class AcquireReport:
    """What came of each wanted image; `num_fetched` and `num_present` tell of this run alone, not of the folder."""

    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)  # split -> outcome -> images
    skipped: dict[str, int] = field(default_factory=dict)  # of own data: what was left out, by reason
    num_bytes: int = 0
    num_fetched: int = 0
    num_present: int = 0

    def as_dict(self) -> dict[str, object]:
        """What a rerun would report again, fit for a tracked file."""
        skipped = {"skipped": self.skipped} if self.skipped else {}
        return {"outcomes": self.outcomes, **skipped, "num_bytes": self.num_bytes}


class _Result(NamedTuple):
    split: str
    image_id: str
    outcome: str
    num_bytes: int | None = None
    md5: str | None = None
    width: int | None = None
    height: int | None = None
    unchanged: bool = False
    detail: str = ""


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
    Raises ValueError for a mistake in the settings or in an annotation file, RuntimeError when another run works on
    `out` or when more than `max_lost_frac` of the images are lost.
    """
    with _lock(out), _part_folder(out) as parts:
        source = open_source(settings, seed, parts / "described", endpoint_url, database)
        (out / "manifest.parquet").unlink(missing_ok=True)
        annotations = out / "annotations"
        _fetch_annotations(source, annotations, parts)
        wanted = _select(settings, seed, annotations)
        _prune(out, wanted)
        results = _fetch_images(settings, source, out, parts, wanted, progress)
        _write_manifest(results, annotations, out / "manifest.parquet", parts)
    report = _summarise(results, source.skipped)
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
def _part_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` for files in the making, empty at the start and gone at the end."""
    parts = out.parent / f".{out.name}.parts"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    try:
        yield parts
    finally:
        shutil.rmtree(parts)


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
        raise ValueError(f"annotation file not to be had: {denied}")
    elif not optional:
        tried = " or ".join(source.annotations.locate(key) for key in source.annotation_keys(file))
        raise ValueError(f"{tried}: no such file; the source has no {file.name}")


def _select(settings: Acquire, seed: int, annotations: Path) -> dict[str, list[str]]:
    """The wanted images' ids by split; raises ValueError when a split has none."""
    classes = openimages.read_classes(annotations / openimages.CLASSES_FILE.name)
    hierarchy = openimages.read_hierarchy(annotations / openimages.HIERARCHY_FILE.name)
    labels = openimages.find_labels(classes, settings.classes, "acquire.classes", hierarchy)
    limits = {"train": settings.train_images, "validation": settings.validation_images}
    wanted = {}
    for split in SPLITS:
        path = annotations / openimages.BOX_FILES[split].name
        wanted[split] = openimages.select_images(path, labels, limits[split], seed)
        if not wanted[split]:
            sought = f"a box of {', '.join(settings.classes)}" if settings.classes else "a box"
            raise ValueError(f"{path}: no image has {sought}")
        for image_id in wanted[split]:
            if "/" in image_id or image_id.startswith("."):
                raise ValueError(f"{path}: ImageID {image_id!r} is no file name")
    return wanted


def _prune(out: Path, wanted: dict[str, list[str]]) -> None:
    """Remove images that are not wanted, such as those of another source or of a larger limit."""
    for split in SPLITS:
        folder = out / "images" / split
        folder.mkdir(parents=True, exist_ok=True)
        names = {f"{image_id}.jpg" for image_id in wanted[split]}
        for entry in os.scandir(folder):
            if entry.name not in names:
                os.unlink(entry.path)


def _fetch_images(
    settings: Acquire, source: Source, out: Path, parts: Path, wanted: dict[str, list[str]], progress: Progress | None
) -> list[_Result]:
    """Fetch all wanted images; stops with RuntimeError as soon as too many are lost."""
    total = sum(len(ids) for ids in wanted.values())
    allowed = int(settings.max_lost_frac * total)
    keys = ((split, image_id) for split in SPLITS for image_id in wanted[split])
    results: list[_Result] = []
    lost: Counter[str] = Counter()
    for result in _in_threads(settings.workers, keys, lambda s, i: _fetch_image(settings, source, out, parts, s, i)):
        results.append(result)
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
            progress(len(results), total)
    return results


def _in_threads(
    workers: int, keys: Iterable[tuple[str, str]], work: Callable[[str, str], _Result]
) -> Iterator[_Result]:
    """Yield `work(*key)` of every key as it is done; only a few keys per thread are under way at any time."""
    executor = ThreadPoolExecutor(workers, thread_name_prefix="acquire")
    pending: set[Future[_Result]] = set()
    try:
        for key in keys:
            pending.add(executor.submit(work, *key))
            if len(pending) >= 4 * workers:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        executor.shutdown(cancel_futures=True)


def _fetch_image(settings: Acquire, source: Source, out: Path, parts: Path, split: str, image_id: str) -> _Result:
    """Fetch one image, unless what its whole copy became is here; an image that is lost leaves no file."""
    target = out / "images" / image_key(split, image_id)
    part = parts / str(threading.get_ident())
    short_side_px, quality = settings.short_side_px, settings.jpeg_quality
    known = source_md5(target, short_side_px, quality) if target.exists() else None
    try:
        fetched = source.images.fetch(image_key(split, image_id), part, known)
        file = target if fetched.unchanged else part
        width, height = _read_size(file, source.images.locate(image_key(split, image_id)))
    except LostError as lost:
        target.unlink(missing_ok=True)
        return _Result(split, image_id, lost.outcome, detail=str(lost))
    shrunk = short_side_px is not None and shrink(file, part, short_side_px, quality, fetched.md5)
    if shrunk or not fetched.unchanged:
        part.rename(target)
    if short_side_px is None and not fetched.unchanged:
        num_bytes, md5 = fetched.num_bytes, fetched.md5
    else:
        num_bytes, md5 = hash_file(target)
        width, height = image_size(target)
    return _Result(split, image_id, "ok", num_bytes, md5, width, height, fetched.unchanged and not shrunk)


def _read_size(path: Path, address: str) -> tuple[int, int]:
    """Width and height as the header and EXIF say, without decoding; raises LostError where they do not."""
    try:
        with path.open("rb") as file:
            return image_size(file, address)
    except RefusedImageError as refused:
        raise LostError("refused", str(refused)) from None
    except ValueError as error:
        raise LostError("corrupt", str(error)) from None


def _write_manifest(results: list[_Result], annotations: Path, target: Path, parts: Path) -> None:
    kinds = {name: kind for name, kind in MANIFEST_SCHEMA.items() if name not in openimages.CREDITS}
    rows = [[getattr(result, column) for column in kinds] for result in results]
    table = pl.DataFrame(rows, schema=kinds, orient="row").sort("split", "image_id")
    tables = []
    for split in SPLITS:
        images = table.filter(split=split)
        credits = openimages.read_credits(annotations / openimages.IMAGE_FILES[split].name, images.select("image_id"))
        tables.append(images.join(credits, on="image_id", how="left", maintain_order="left"))
    pl.concat(tables).select(*MANIFEST_SCHEMA).write_parquet(parts / "manifest.parquet")
    (parts / "manifest.parquet").rename(target)


def _summarise(results: list[_Result], skipped: Mapping[str, int]) -> AcquireReport:
    outcomes = {}
    for split in SPLITS:
        counts = Counter(result.outcome for result in results if result.split == split)
        outcomes[split] = dict(sorted(counts.items()))
    whole = [result for result in results if result.outcome == "ok"]
    present = sum(result.unchanged for result in whole)
    num_bytes = sum(result.num_bytes or 0 for result in whole)
    return AcquireReport(outcomes, dict(skipped), num_bytes, len(whole) - present, present)
