"""Curation: which images are fit to learn from, which repeat one another, and which would leak into the evaluation.

Every image is decoded once (`examination`). The verdicts are files; FiftyOne's dataset shows them to a person.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe.curation import neighbours
from pbe.curation.contact_sheet import write_contact_sheet
from pbe.curation.duplicates import Item, Pair, Thumbnails, Verdict, judge
from pbe.curation.examination import (
    SIZE_MISMATCH,
    UNDECODABLE,
    Embed,
    Examination,
    Locate,
    Look,
    Progress,
    examine,
)
from pbe.curation.fiftyone_catalogue import BOX_COLUMNS, REASONS, Catalogue, Mark, Record
from pbe.curation.quality import MEASURES
from pbe.curation.thumbnails import thumbnail_path
from pbe.curation.verdicts import BY_PERSON, KEEP, REJECT
from pbe.dataset.image_shards import LOCATION, ImageShards
from pbe.errors import UserError
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.files import atomic_file
from pbe.settings import Curate

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Bars = Callable[[str], Progress]  # what is counted -> where to say how far it is
Said = Mapping[tuple[str, str, str], str]

PHASES = ("images examined", "near duplicates", "into FiftyOne")
_RECORDS_AT_ONCE = 2000


@dataclass(frozen=True)
class CurationReport:
    """`images` is split -> "keep" or a reason -> how many images; `boxes` is split -> boxes on kept images."""

    images: dict[str, dict[str, int]]
    boxes: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        return {"images": self.images, "boxes": self.boxes}


class _Likeness(NamedTuple):
    """`pairs` are rows that repeat each other; `uniqueness` and `typicality` are per row, NaN where it has a fault."""

    pairs: list[Pair]
    uniqueness: Floats
    typicality: Floats


def curate(
    raw: Path,
    boxes: Path,
    out: Path,
    settings: Curate,
    embed: Embed,
    *,
    database_uri: str,
    home: Path,
    dataset: str,
    verdicts: Said | None = None,
    embed_px: int = 64,
    num_workers: int = 1,
    bars: Bars = lambda what: lambda done, total: None,
) -> CurationReport:
    """Judge every image that `raw`/manifest.parquet calls ok; write `out`/boxes.parquet, images.parquet, report.html.

    `boxes` is the boxes.parquet of the filter stage; `embed` takes (B, embed_px, embed_px, 3) uint8 and returns
    (B, D) float32; `dataset` names the FiftyOne dataset that is replaced in the MongoDB at `database_uri`; `home` is
    FiftyOne's folder, which gets thumbnails. `verdicts` are people's (`verdicts.py`) and outrank every rule, but
    an image which cannot be decoded cannot be kept. Images are decoded in `num_workers` threads; `bars` gives, for each
    of three phases, where to say (images done, images in all).
    Raises UserError naming the file when an input is missing or the two disagree.
    """
    people = verdicts or {}
    images = _read_manifest(raw / "manifest.parquet")
    box_table = _read_boxes(boxes, images)

    locate = partial(thumbnail_path, home)
    look = Look(ImageShards(raw / "images"), locate, settings, embed_px)
    seen = examine(images, box_table, look, embed, scratch=home, num_workers=num_workers, progress=bars(PHASES[0]))
    alike = _compare(seen, settings, bars(PHASES[1]))
    final = [_overrule(row, v, people) for row, v in zip(_names(seen), _judge(seen, alike.pairs), strict=True)]
    table = _images_table(seen.table, final)
    rejected_boxes = {(split, key) for (kind, split, key), v in people.items() if (kind, v) == ("box", REJECT)}
    with connected_fiftyone(database_uri, home) as fo:
        catalogue = Catalogue(fo, dataset)
        added = bars(PHASES[2])
        for records in _records(seen, alike, list(_marks(seen.table, final)), box_table, locate):
            catalogue.add(records, rejected_boxes)
            added(catalogue.num_records, len(table))
        catalogue.finish(seen.good.tolist(), seen.embeddings)
    kept = _kept_boxes(box_table, table, rejected_boxes)
    out.mkdir(parents=True, exist_ok=True)
    _write(table, out / "images.parquet")
    _write(kept, out / "boxes.parquet")
    report = _report(table, kept)
    write_contact_sheet(out / "report.html", table, report.images, locate)
    return report


def _read_manifest(path: Path) -> pl.DataFrame:
    columns = ["image_id", "split", "outcome", *LOCATION]
    table = _read_table(path, columns, "acquire").filter(outcome="ok").select("image_id", "split", *LOCATION)
    if table.is_empty():
        raise UserError(f"{path}: no image with outcome ok; run acquire again")
    return table.sort("split", "image_id")


def _read_boxes(path: Path, images: pl.DataFrame) -> pl.DataFrame:
    table = _read_table(path, ["box_id", "image_id", "split", *BOX_COLUMNS], "filter")
    strangers = table.join(images, on=["split", "image_id"], how="anti")
    if not strangers.is_empty():
        image_id, split = strangers.row(0, named=True)["image_id"], strangers.row(0, named=True)["split"]
        raise UserError(f"{path}: image {image_id} ({split}) is not ok in the manifest; run filter again")
    return table


def _read_table(path: Path, columns: Sequence[str], stage: str) -> pl.DataFrame:
    if not path.is_file():
        raise UserError(f"{path}: no such file; run {stage} first")
    try:
        table = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: not a parquet file: {str(error).splitlines()[0]}") from None
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(f"{path}: no column {missing[0]}; run {stage} again")
    return table


def _compare(seen: Examination, settings: Curate, progress: Progress) -> _Likeness:
    """Compare every good image with every other: by embedding, and what is close there by its thumbnail."""
    thumbnails = Thumbnails(seen.thumbnails)
    num_images = len(seen.table)
    pairs: list[Pair] = []
    nearest, unusual, typical = np.zeros(len(seen.good), np.float32), *np.full((2, num_images), np.nan, np.float32)
    if len(seen.good) > 1:
        neighbours.centre(seen.embeddings)
    for block in neighbours.search(seen.embeddings, settings.near_duplicate_distance):
        nearest[block.rows] = block.nearest
        pairs += thumbnails.confirm(seen.good[block.pairs], settings.near_duplicate_pixels)
        progress(block.rows.stop, len(seen.good))
    if len(seen.good) > 1:
        unusual[seen.good] = neighbours.uniqueness(nearest)
        typical[seen.good] = neighbours.typicality(seen.embeddings)
    return _Likeness(pairs, unusual, typical)


def _judge(seen: Examination, pairs: Sequence[Pair]) -> list[Verdict]:
    columns = seen.table.select("image_id", pl.col("split") == "train", "fault", "pixels_sha256")
    return judge([Item(*row) for row in columns.iter_rows()], pairs)


def _names(seen: Examination) -> Iterator[tuple[str, str]]:
    return seen.table.select("split", "image_id").iter_rows()


def _overrule(name: tuple[str, str], verdict: Verdict, people: Said) -> Verdict:
    """What a person said of the image, else what the rules did."""
    said = people.get(("image", *name))
    if said == REJECT:
        return Verdict(BY_PERSON, None)
    if said == KEEP and verdict.reason in (UNDECODABLE, SIZE_MISMATCH):
        log.warning("%s image %s: %s, so that a person's verdict cannot keep it", *name, verdict.reason)
        return verdict
    return Verdict("", None) if said == KEEP else verdict


def _marks(table: pl.DataFrame, verdicts: Sequence[Verdict]) -> Iterator[Mark]:
    """Each image's verdict, and on both sides of a repeat the id of the image that was there first."""
    ids = table["image_id"]
    leaked = {v.duplicate_of for v in verdicts if v.reason == "leak"}
    repeated = {v.duplicate_of for v in verdicts if v.duplicate_of is not None and v.reason != "leak"}
    for row, verdict in enumerate(verdicts):
        of = None if verdict.duplicate_of is None else ids[verdict.duplicate_of]
        leak = of if verdict.reason == "leak" else ids[row] if row in leaked else None
        repeats = of if of and verdict.reason != "leak" else ids[row] if row in repeated else None
        yield Mark(verdict.reason, of, repeats, leak)


def _records(
    seen: Examination, alike: _Likeness, marks: Sequence[Mark], boxes: pl.DataFrame, locate: Locate
) -> Iterator[list[Record]]:
    """The images with their boxes, some thousands at a time: only those are objects in memory."""
    table = seen.table.with_columns(uniqueness=alike.uniqueness, typicality=alike.typicality).fill_nan(None)
    places = table.select("split", "image_id").with_row_index("row")
    boxes = boxes.join(places, on=["split", "image_id"]).sort("row", maintain_order=True)
    starts = np.searchsorted(boxes["row"].to_numpy(), np.arange(len(table) + 1))
    for start in range(0, len(table), _RECORDS_AT_ONCE):
        rows = table.slice(start, _RECORDS_AT_ONCE)
        first, *ends = starts[start : start + len(rows) + 1].tolist()
        drawn = boxes.slice(first, ends[-1] - first).to_dicts()
        records: list[Record] = []
        for image, mark, end in zip(rows.iter_rows(named=True), marks[start:], ends, strict=False):
            records.append(
                Record(
                    locate(image["split"], image["image_id"]),
                    image["image_id"],
                    image["split"],
                    image["width"],
                    image["height"],
                    [image[name] for name in MEASURES],
                    drawn[starts[start + len(records)] - first : end - first],
                    mark,
                    (image["uniqueness"], image["typicality"]),
                )
            )
        yield records


def _images_table(table: pl.DataFrame, verdicts: Sequence[Verdict]) -> pl.DataFrame:
    reasons = pl.Series([v.reason for v in verdicts], dtype=pl.String)
    originals = pl.Series([v.duplicate_of for v in verdicts], dtype=pl.UInt32)
    return table.select(
        "image_id",
        "split",
        pl.when(reasons == "").then(pl.lit(KEEP)).otherwise(pl.lit(REJECT)).alias("verdict"),
        reasons.alias("reason"),
        *(pl.col(name).round(6) for name in MEASURES),
        table["image_id"].gather(originals).alias("duplicate_of"),
        *LOCATION,
    )


def _kept_boxes(boxes: pl.DataFrame, images: pl.DataFrame, rejected: set[tuple[str, str]]) -> pl.DataFrame:
    kept = boxes.join(images.filter(verdict=KEEP), on=["split", "image_id"], how="semi").sort("box_id")
    unwanted = pl.DataFrame(sorted(rejected), schema={"split": pl.String, "box_id": pl.String}, orient="row")
    return kept.join(unwanted, on=["split", "box_id"], how="anti", maintain_order="left")


def _report(table: pl.DataFrame, kept_boxes: pl.DataFrame) -> CurationReport:
    splits = sorted(table["split"].unique())
    images = {split: dict.fromkeys((KEEP, *REASONS), 0) for split in splits}
    for split, reason, count in table.group_by("split", "reason").len().iter_rows():
        images[split][reason or KEEP] = count
    return CurationReport(images, {split: kept_boxes.filter(split=split).height for split in splits})


def _write(table: pl.DataFrame, path: Path) -> None:
    with atomic_file(path) as part:
        table.write_parquet(part, compression="zstd", statistics=False)
