"""Curation: rejects faulty images, duplicates, and train images that leak the validation split.

Every image is decoded once (`examination`). The decisions are written to files, and to a FiftyOne dataset for review.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe.curation import neighbours
from pbe.curation.contact_sheet import write_contact_sheet
from pbe.curation.duplicates import Decision, Item, Pair, PixelCheck, Regions, decide
from pbe.curation.examination import (
    SIZE_MISMATCH,
    UNDECODABLE,
    Examination,
    ExamineBlocks,
    Examiner,
    examine,
)
from pbe.curation.fiftyone_export import BOX_COLUMNS, REASONS, DatasetWriter, DecisionFields, ImageRecord
from pbe.curation.neighbours import Search
from pbe.curation.quality import MEASURES, THUMBNAIL_SIDE_PX
from pbe.curation.thumbnails import Locate, thumbnail_path
from pbe.curation.verdicts import BY_REVIEWER, KEEP, REJECT, Verdicts, tag_verdicts, unsaved_verdicts
from pbe.dataset.image_shards import LOCATION, ImageShards
from pbe.dataset.table_files import read_parquet
from pbe.errors import UserError
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.files import atomic_file
from pbe.settings import Curate
from pbe.types import Progress, ProgressBars, no_progress_bars

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]

PHASES = ("images examined", "near duplicates", "into FiftyOne")
_BATCH_RECORDS = 2000


@dataclass(frozen=True)
class CurationReport:
    """`images` is split -> "keep" or a reason -> how many images; `boxes` is split -> boxes on kept images."""

    images: dict[str, dict[str, int]]
    boxes: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as they are tracked."""
        return {"images": self.images, "boxes": self.boxes}


class _Similarity(NamedTuple):
    """`pairs` of rows that are near duplicates; `uniqueness` and `typicality` of each row, NaN when it has a fault."""

    pairs: list[Pair]
    uniqueness: Floats
    typicality: Floats


def curate(
    raw: Path,
    boxes: Path,
    out: Path,
    settings: Curate,
    examine_blocks: ExamineBlocks,
    *,
    database_uri: str,
    home: Path,
    dataset: str,
    verdicts: Verdicts | None = None,
    decided: pl.DataFrame | None = None,
    embed_px: int = 64,
    search: Search = neighbours.search,
    bars: ProgressBars = no_progress_bars,
) -> CurationReport:
    """Decide on every image with outcome ok; write boxes.parquet, images.parquet and report.html to the folder `out`.

    `raw` is the output of acquire, and `boxes` the boxes.parquet of filter. `examine_blocks` decodes and embeds the
    images, which are resized to `embed_px` for it, and `search` compares the embeddings: in this process or on a
    cluster (`examination.in_threads`, `ray_examination.on_cluster`). The FiftyOne dataset named `dataset`, in the
    MongoDB at `database_uri`, is replaced; thumbnails are written below FiftyOne's folder `home`. `verdicts` of
    reviewers outrank every rule, but an image that cannot be decoded cannot be kept. `decided` is the images.parquet of
    an earlier curation, whose decisions then stand in place of the rules'. Verdicts that reviewers have tagged in a
    dataset that is replaced, and that `verdicts` does not have, are tagged in the new one again. Each of PHASES has a
    bar.
    Raises UserError naming the file when an input is missing or malformed, or when the inputs disagree.
    """
    verdicts = verdicts or {}
    manifest = _read_manifest(raw / "manifest.parquet")
    all_boxes = _read_boxes(boxes, manifest)

    locate = partial(thumbnail_path, home)
    examiner = Examiner(ImageShards(raw / "images"), locate, settings, embed_px)
    examined = examine(manifest, all_boxes, examiner, examine_blocks, scratch=home, progress=bars(PHASES[0]))
    regions = _regions(examined.images, all_boxes)
    similarity = _compare(examined, regions, settings, search, bars(PHASES[1]))
    decisions = _decide(examined, similarity.pairs, verdicts) if decided is None else _stored(examined.images, decided)
    images = _images_table(examined.images, decisions)
    rejected_boxes = {(split, key) for (kind, split, key), v in verdicts.items() if (kind, v) == ("box", REJECT)}
    with connected_fiftyone(database_uri, home) as fo:
        unsaved = unsaved_verdicts(fo, dataset, verdicts)
        writer = DatasetWriter(fo, dataset)
        progress = bars(PHASES[2])
        for records in _records(examined, similarity, decisions, all_boxes, locate):
            writer.add(records, rejected_boxes)
            progress(writer.num_records, len(images))
        writer.finish(examined.good.tolist(), examined.embeddings, decisions_digest(images))
        tag_verdicts(fo, dataset, unsaved)
    if unsaved:
        print(f"curate: {len(unsaved)} verdicts of the App are not applied yet; to apply them: pbe verdicts pull")
    kept = _kept_boxes(all_boxes, images, rejected_boxes)
    _write_parquet(images, out / "images.parquet")
    _write_parquet(kept, out / "boxes.parquet")
    report = _report(images, kept)
    write_contact_sheet(out / "report.html", images, report.images, locate)
    return report


def _read_manifest(path: Path) -> pl.DataFrame:
    manifest = read_parquet(path, ["image_id", "split", "outcome", "group", *LOCATION], "acquire")
    manifest = manifest.filter(outcome="ok").select("image_id", "split", "group", *LOCATION)
    if manifest.is_empty():
        raise UserError(f"{path}: no image with outcome ok; run the acquire stage again")
    return manifest.sort("split", "image_id")


def _read_boxes(path: Path, images: pl.DataFrame) -> pl.DataFrame:
    boxes = read_parquet(path, ["box_id", "image_id", "split", *BOX_COLUMNS], "filter")
    unknown = boxes.join(images, on=["split", "image_id"], how="anti")
    if not unknown.is_empty():
        image_id, split = unknown.select("image_id", "split").row(0)
        raise UserError(f"{path}: image {image_id} ({split}) is not ok in the manifest; run the filter stage again")
    return boxes


def _regions(images: pl.DataFrame, boxes: pl.DataFrame) -> Regions:
    """Return where the images' boxes are in their thumbnails."""
    rows = images.select("split", "image_id").with_row_index("row")
    placed = boxes.join(rows, on=["split", "image_id"]).sort("row")
    corners = (pl.col(name) / pl.col("width" if name[0] == "x" else "height") for name in ("x0", "y0", "x1", "y1"))
    fracs = placed.select(corners).to_numpy()
    return Regions(placed["row"].to_numpy(), fracs, len(images), THUMBNAIL_SIDE_PX)


def _compare(
    examined: Examination, regions: Regions, settings: Curate, search: Search, progress: Progress
) -> _Similarity:
    """Compare every two good images by embedding, and those of a group that are close by thumbnail.

    Without `curate.group_by`, all images are one group; with it, so are those without a group.
    """
    check = PixelCheck(examined.thumbnails, regions)
    good = examined.good
    pairs: list[Pair] = []
    nearest = np.zeros(len(good), np.float32)
    unusual, typical = np.full((2, len(examined.images)), np.nan, np.float32)
    if len(good) > 1:
        neighbours.centre(examined.embeddings)
    groups = None
    if settings.group_by:
        groups = np.unique(examined.images["group"].fill_null("").to_numpy(), return_inverse=True)[1][good]
    for block in search(examined.embeddings, settings.near_duplicate_distance, groups):
        nearest[block.rows] = block.nearest
        pairs += check.confirm(good[block.pairs], settings.near_duplicate_pixels)
        progress(block.rows.stop, len(good))
    if len(good) > 1:
        unusual[good] = neighbours.uniqueness(nearest)
        typical[good] = neighbours.typicality(examined.embeddings)
    return _Similarity(pairs, unusual, typical)


def _decide(examined: Examination, pairs: Sequence[Pair], verdicts: Verdicts) -> list[Decision]:
    """Decide on every image by the rules, then by the reviewers' verdicts."""
    columns = examined.images.select("image_id", pl.col("split") == "train", "fault", "pixels_sha256")
    by_rules = decide([Item(*row) for row in columns.iter_rows()], pairs)
    names = examined.images.select("split", "image_id").iter_rows()
    return [_overrule(name, decision, verdicts) for name, decision in zip(names, by_rules, strict=True)]


def _stored(images: pl.DataFrame, decided: pl.DataFrame) -> list[Decision]:
    """Return the decisions of an earlier curation on these images."""
    names = ["split", "image_id"]
    rows = images.select(names).with_row_index("original")
    found = (
        images.select(names)
        .join(decided.select(*names, "reason", "duplicate_of"), on=names, how="left", maintain_order="left")
        .join(rows, left_on=["duplicate_of"], right_on=["image_id"], how="left", maintain_order="left")
        .unique(names, keep="first", maintain_order=True)
    )
    if found["reason"].null_count() or len(decided) != len(images):
        raise UserError("data/curated is of other images than data/raw; run: dvc checkout data/raw data/curated")
    return [Decision(reason, original) for reason, original in found.select("reason", "original").iter_rows()]


def decisions_digest(images: pl.DataFrame) -> str:
    """Return a digest, 32 hex digits, of the decisions in images.parquet."""
    lines = images.select("split", "image_id", "reason", "duplicate_of").write_csv()
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def _overrule(name: tuple[Any, ...], decision: Decision, verdicts: Verdicts) -> Decision:
    """Return the reviewer's decision on the image (split, image_id) if there is one, else that of the rules."""
    split, image_id = name
    verdict = verdicts.get(("image", split, image_id))
    if verdict == REJECT:
        return Decision(BY_REVIEWER, None)
    if verdict == KEEP and decision.reason in (UNDECODABLE, SIZE_MISMATCH):
        logger.warning("%s image %s: %s, so the verdict keep has no effect", split, image_id, decision.reason)
        return decision
    return Decision("", None) if verdict == KEEP else decision


def _decision_fields(images: pl.DataFrame, decisions: Sequence[Decision]) -> Iterator[DecisionFields]:
    """Yield the fields of each image's decision; duplicates and their originals carry the id of the original."""
    ids = images["image_id"]
    leaked = {d.duplicate_of for d in decisions if d.reason == "leak"}
    repeated = {d.duplicate_of for d in decisions if d.duplicate_of is not None and d.reason != "leak"}
    for row, decision in enumerate(decisions):
        original = None if decision.duplicate_of is None else ids[decision.duplicate_of]
        is_leak = decision.reason == "leak"
        leak = original if is_leak else ids[row] if row in leaked else None
        repeats = original if original and not is_leak else ids[row] if row in repeated else None
        yield DecisionFields(decision.reason, original, repeats, leak)


def _records(
    examined: Examination,
    similarity: _Similarity,
    decisions: Sequence[Decision],
    boxes: pl.DataFrame,
    locate: Locate,
) -> Iterator[list[ImageRecord]]:
    """Yield the images with their boxes in batches: only the records of one batch are in memory."""
    columns = {"uniqueness": similarity.uniqueness, "typicality": similarity.typicality}
    images = examined.images.with_columns(**columns).fill_nan(None)
    rows = images.select("split", "image_id").with_row_index("row")
    boxes = boxes.join(rows, on=["split", "image_id"]).sort("row", maintain_order=True)
    starts = np.searchsorted(boxes["row"].to_numpy(), np.arange(len(images) + 1)).tolist()
    fields = _decision_fields(examined.images, decisions)
    for start in range(0, len(images), _BATCH_RECORDS):
        batch = images.slice(start, _BATCH_RECORDS)
        first, *ends = starts[start : start + len(batch) + 1]
        of_batch = boxes.slice(first, ends[-1] - first).to_dicts()
        bounds = pairwise([0, *(end - first for end in ends)])
        yield [
            _record(image, of_batch[begin:end], decision, locate)
            for image, (begin, end), decision in zip(batch.iter_rows(named=True), bounds, fields, strict=False)
        ]


def _record(
    image: dict[str, Any], boxes: list[dict[str, Any]], decision: DecisionFields, locate: Locate
) -> ImageRecord:
    return ImageRecord(
        locate(image["split"], image["image_id"]),
        image["image_id"],
        image["split"],
        image["width"],
        image["height"],
        [image[name] for name in MEASURES],
        boxes,
        decision,
        (image["uniqueness"], image["typicality"]),
        image["group"],
    )


def _images_table(images: pl.DataFrame, decisions: Sequence[Decision]) -> pl.DataFrame:
    reasons = pl.Series([d.reason for d in decisions], dtype=pl.String)
    originals = pl.Series([d.duplicate_of for d in decisions], dtype=pl.UInt32)
    return images.select(
        "image_id",
        "split",
        pl.when(reasons == "").then(pl.lit(KEEP)).otherwise(pl.lit(REJECT)).alias("verdict"),
        reasons.alias("reason"),
        *(pl.col(name).round(6) for name in MEASURES),
        images["image_id"].gather(originals).alias("duplicate_of"),
        "group",
        *LOCATION,
    )


def _kept_boxes(boxes: pl.DataFrame, images: pl.DataFrame, rejected: set[tuple[str, str]]) -> pl.DataFrame:
    groups = images.filter(verdict=KEEP).select("split", "image_id", "group")
    kept = boxes.join(groups, on=["split", "image_id"], how="inner").sort("box_id")
    unwanted = pl.DataFrame(sorted(rejected), schema={"split": pl.String, "box_id": pl.String}, orient="row")
    return kept.join(unwanted, on=["split", "box_id"], how="anti", maintain_order="left")


def _report(images: pl.DataFrame, kept_boxes: pl.DataFrame) -> CurationReport:
    splits = sorted(images["split"].unique())
    counts = {split: dict.fromkeys((KEEP, *REASONS), 0) for split in splits}
    for split, reason, count in images.group_by("split", "reason").len().iter_rows():
        counts[split][reason or KEEP] = count
    return CurationReport(counts, {split: kept_boxes.filter(split=split).height for split in splits})


def _write_parquet(table: pl.DataFrame, path: Path) -> None:
    with atomic_file(path) as part:
        table.write_parquet(part, compression="zstd", statistics=False)
