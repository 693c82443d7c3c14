"""Acquisition: annotation files and images from any source into one folder; resumable, checked and counted.

Whatever the source, `{out}/annotations/*.csv` are the box annotations and class descriptions, `{out}/images/*.tar` the
selected images (`pbe.dataset.image_shards`), and `{out}/manifest.parquet` gives each image's outcome and location. The
folder depends on the settings and the source alone: images of an earlier selection are removed, and interruptions leave
no trace.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pbe.acquisition.importers.fiftyone_dataset import Database
from pbe.acquisition.shard_packing import RESULTS, Packer, Result
from pbe.acquisition.shard_plan import Folders, Plan, images_per_shard, read_tasks
from pbe.acquisition.sources import Source, open_source
from pbe.acquisition.stores import LostError, hash_file
from pbe.dataset import openimages
from pbe.dataset.image_groups import GROUP_FILES, check_groups, read_groups
from pbe.dataset.openimages import SPLITS, AnnotationFile
from pbe.errors import UnavailableError, UserError, disk_errors_reported
from pbe.runtime.locks import hold_lock
from pbe.settings import Acquire
from pbe.types import Progress, no_progress

MANIFEST_SCHEMA = {**RESULTS, **dict.fromkeys((*openimages.CREDITS, "group"), pl.String)}

_MANIFEST_SHARDS = 200  # whose results are in memory at the same time

_log = logging.getLogger(__name__)


@dataclass
class AcquireReport:
    """The outcome of each selected image; `num_fetched` and `num_present` count this run, not the folder."""

    outcomes: dict[str, dict[str, int]] = field(default_factory=lambda: {split: {} for split in SPLITS})
    skipped: dict[str, int] = field(default_factory=dict)  # what an importer left out, by reason
    adjusted: dict[str, int] = field(default_factory=dict)  # own data: what was found or corrected, by kind
    num_bytes: int = 0
    num_fetched: int = 0
    num_present: int = 0

    def as_dict(self) -> dict[str, object]:
        """Return what another run would report again, for a file under version control."""
        outcomes = {split: dict(sorted(counts.items())) for split, counts in self.outcomes.items()}
        counts = {"skipped": self.skipped, "adjusted": self.adjusted}
        return {"outcomes": outcomes, **{k: v for k, v in counts.items() if v}, "num_bytes": self.num_bytes}

    def count(self, result: Result) -> None:
        """Add one image's result."""
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
    *,
    endpoint_url: str | None = None,
    required_files: Sequence[AnnotationFile] = (),
    optional_files: Sequence[AnnotationFile] = (),
    progress: Progress = no_progress,
    database: Database | None = None,
) -> AcquireReport:
    """Make the folder `out` hold what `settings` select; complete files in it are not fetched again.

    `endpoint_url` is the S3 endpoint of a demo world, or replaces the settings' own. `required_files` and
    `optional_files` are annotation files to fetch beside OpenImages' own. `database` is FiftyOne's, for a source of
    that kind. `seed` draws which images a limit keeps.
    Raises UserError for an error in the settings or in an annotation file, when another run uses `out`, when the disk
    is full and when more than `max_lost_frac` of the images are lost; UnavailableError when a server or the network is
    the cause.
    """
    with (
        hold_lock(out.parent / f".{out.name}.lock", timeout_s=0),
        disk_errors_reported(out),
        _part_folder(out) as parts,
    ):
        source = open_source(settings, seed, parts / "imported", endpoint_url, database)
        (out / "manifest.parquet").unlink(missing_ok=True)
        annotations = out / "annotations"
        _fetch_annotations(source, annotations, parts, required_files, optional_files)
        folders = Folders.within(out, parts)
        plan = Plan(_select(settings, seed, annotations), images_per_shard(settings), folders)
        images = Packer(source.images, settings, folders, plan.num_images).pack(read_tasks(folders), plan.release)
        report = AcquireReport(skipped=dict(source.skipped), adjusted=dict(source.adjusted))
        with closing(images) as results:
            _count(results, report, plan.num_images, settings.max_lost_frac, progress)
        plan.discard_unwanted()
        _write_manifest([folders.results / f"{name}.parquet" for name in plan.shards], annotations, out, parts)
    _log.info("acquired %s; %d fetched, %d present before", report.outcomes, report.num_fetched, report.num_present)
    return report


@contextmanager
def _part_folder(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out` for incomplete files; it is removed at the end.

    When the block raises, images in shards stay for the next run.
    """
    parts = out.parent / f".{out.name}.parts"
    parts.mkdir(parents=True, exist_ok=True)
    _clear(parts)
    with ExitStack() as on_error:
        on_error.callback(_clear, parts)
        yield parts
        on_error.pop_all()
    shutil.rmtree(parts)


def _clear(parts: Path) -> None:
    """Remove everything but the images that the next run can use."""
    for path in parts.iterdir():
        if path.name not in ("new", "old"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _fetch_annotations(
    source: Source,
    folder: Path,
    parts: Path,
    required_files: Sequence[AnnotationFile],
    optional_files: Sequence[AnnotationFile],
) -> None:
    """Fetch the annotation files and remove all others from `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    required = [*openimages.BOX_FILES.values(), openimages.CLASSES_FILE, *required_files]
    optional = [openimages.HIERARCHY_FILE, *openimages.IMAGE_FILES.values(), *optional_files]
    if not source.public_names:
        optional += [*openimages.MASK_FILES.values(), *GROUP_FILES.values()]
    for file in (*required, *optional):
        _fetch_annotation(source, file, folder / file.name, parts, is_optional=file in optional)
    for image_list in openimages.IMAGE_FILES.values():
        openimages.scan_credits(folder / image_list.name)  # reports an error in it before the images are fetched
    for path in folder.iterdir():
        if path.name not in {file.name for file in (*required, *optional)}:
            path.unlink()
    check_groups(folder)


def _fetch_annotation(source: Source, file: AnnotationFile, target: Path, parts: Path, is_optional: bool) -> None:
    """Fetch a file under the first of its names that exists; S3 may answer "denied" for a name that does not."""
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
                raise UnavailableError(f"cannot fetch an annotation file: {lost}") from None
            denied = lost if lost.outcome == "denied" else denied
    target.unlink(missing_ok=True)
    if denied and is_optional:
        _log.warning("continuing without an optional file: %s", denied)
    elif denied:
        raise UserError(f"cannot fetch an annotation file: {denied}")
    elif not is_optional:
        tried = " or ".join(source.annotations.locate(key) for key in source.annotation_keys(file))
        raise UserError(f"{tried}: no such file; the source needs a {file.name}")


def _select(settings: Acquire, seed: int, annotations: Path) -> dict[str, pl.Series]:
    """Return the selected images' ids by split; raises UserError when a split has none."""
    classes = openimages.read_classes(annotations / openimages.CLASSES_FILE.name)
    hierarchy = openimages.read_hierarchy(annotations / openimages.HIERARCHY_FILE.name)
    labels = openimages.find_labels(classes, settings.classes, "acquire.classes", hierarchy)
    limits = {"train": settings.train_images, "validation": settings.validation_images}
    selected = {}
    for split in SPLITS:
        path = annotations / openimages.BOX_FILES[split].name
        selected[split] = ids = openimages.select_images(path, labels, limits[split], seed)
        if ids.is_empty():
            sought = f"a box of {', '.join(settings.classes)}" if settings.classes else "a box"
            raise UserError(f"{path}: no image has {sought}")
        wrong = ids.filter(ids.str.contains("/", literal=True) | ids.str.starts_with("."))
        if not wrong.is_empty():
            raise UserError(f"{path}: ImageID {wrong[0]!r} cannot be a file name")
    return selected


def _count(
    results: Iterator[Result], report: AcquireReport, total: int, max_lost_frac: float, progress: Progress
) -> None:
    """Count the images' outcomes in `report`; raises UserError as soon as too many images are lost."""
    allowed = int(max_lost_frac * total)
    lost: Counter[str] = Counter()
    for done, result in enumerate(results, start=1):
        report.count(result)
        if result.outcome != "ok":
            lost[result.outcome] += 1
            _log.warning("%s: %s", result.outcome, result.detail)
        if lost.total() > allowed:
            counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(lost.items()))
            kind = UnavailableError if 2 * lost["failed"] > lost.total() else UserError
            raise kind(
                f"acquire: lost {lost.total()} of {total} images ({counts}), but acquire.max_lost_frac allows "
                f"{allowed}; the last one: {result.detail}"
            )
        progress(done, total)


def _write_manifest(results: list[Path], annotations: Path, out: Path, parts: Path) -> None:
    """Join the shards' results, in order, with the images' authors, licences and groups, a few shards at a time."""
    part = parts / "manifest.parquet"
    groups = {split: read_groups(annotations, split) for split in SPLITS}
    with pq.ParquetWriter(part, pl.DataFrame(schema=MANIFEST_SCHEMA).to_arrow().schema, compression="zstd") as writer:
        for start in range(0, len(results), _MANIFEST_SHARDS):
            images = pl.read_parquet(results[start : start + _MANIFEST_SHARDS])
            for (split,), of_split in images.group_by("split", maintain_order=True):
                image_list = annotations / openimages.IMAGE_FILES[str(split)].name
                credits = openimages.read_credits(image_list, of_split.select("image_id"))
                rows = of_split.join(credits, on="image_id", how="left", maintain_order="left")
                rows = rows.join(groups[str(split)], on="image_id", how="left", maintain_order="left")
                writer.write_table(rows.select(*MANIFEST_SCHEMA).to_arrow())
                pa.default_memory_pool().release_unused()  # without it, each part adds to the process's memory
    part.rename(out / "manifest.parquet")
