"""Curation: which images are fit to learn from, which repeat one another, and which would leak into the evaluation.

Every image is decoded once: its measures, its thumbnail and its embedding come from the same pixels. The verdicts
are files; the FiftyOne dataset shows them to a person.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe.data.catalogue import BOX_COLUMNS, REASONS, Catalogue, Mark, Record, connected_fiftyone
from pbe.data.contact_sheet import write_contact_sheet
from pbe.data.duplicates import Item, Verdict, confirm, judge, pairs_within
from pbe.data.images import read_image
from pbe.data.quality import Quality, fault, measure
from pbe.data.verdicts import BY_PERSON, KEEP, REJECT
from pbe.files import written_whole
from pbe.settings import Curate

log = logging.getLogger(__name__)

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Embed = Callable[[Image], Floats]
Progress = Callable[[int, int], None]

_BATCH = 64


@dataclass(frozen=True)
class CurationReport:
    """`images` is split -> "keep" or a reason -> how many images; `boxes` is split -> boxes on kept images."""

    images: dict[str, dict[str, int]]
    boxes: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        return {"images": self.images, "boxes": self.boxes}


@dataclass(frozen=True)
class _Examined:
    """One image after its only decoding; quality and size are None where it could not be decoded."""

    image_id: str
    split: str
    path: Path
    fault: str
    size: tuple[int, int] | None = None
    quality: Quality | None = None


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
    verdicts: Mapping[tuple[str, str, str], str] | None = None,
    embed_px: int = 64,
    progress: Progress | None = None,
) -> CurationReport:
    """Judge every image that `raw`/manifest.parquet calls ok; write `out`/boxes.parquet, images.parquet, report.html.

    `boxes` is the boxes.parquet of the filter stage; `embed` takes (B, embed_px, embed_px, 3) uint8 and returns
    (B, D) float32; `dataset` names the FiftyOne dataset that is replaced in the MongoDB at `database_uri`; `home` is
    FiftyOne's folder. `verdicts` are people's (`pbe.data.verdicts`) and outrank every rule, except that an image which
    cannot be decoded cannot be kept. `progress` is told (images decoded, images in all).
    Raises ValueError naming the file when an input is missing or the two disagree.
    """
    people = verdicts or {}
    images, box_table = _read_manifest(raw / "manifest.parquet"), _read_boxes(boxes)
    by_image = _boxes_by_image(box_table, images, boxes)
    examined, embeddings = _examine(raw, images, by_image, settings, embed, embed_px, progress)
    records = [_record(e, by_image.get((e.split, e.image_id), ())) for e in examined]
    with connected_fiftyone(database_uri, home) as fo:
        catalogue = Catalogue(fo, dataset, records)
        judged = _judge(examined, embeddings, catalogue, settings)
        final = [_overrule(e, v, people) for e, v in zip(examined, judged, strict=True)]
        rejected_boxes = {(split, key) for (kind, split, key), v in people.items() if (kind, v) == ("box", REJECT)}
        catalogue.mark(list(_marks(examined, final)), rejected_boxes)
    table = _images_table(examined, final)
    kept = box_table.join(table.filter(verdict=KEEP), on=["split", "image_id"], how="semi").sort("box_id")
    wanted = [(row["split"], row["box_id"]) not in rejected_boxes for row in kept.iter_rows(named=True)]
    kept = kept.filter(pl.Series(wanted, dtype=pl.Boolean))
    out.mkdir(parents=True, exist_ok=True)
    _write(table, out / "images.parquet")
    _write(kept, out / "boxes.parquet")
    report = _report(table, kept)
    paths = {(e.split, e.image_id): e.path for e in examined}
    write_contact_sheet(out / "report.html", table, report.images, paths)
    return report


def _read_manifest(path: Path) -> pl.DataFrame:
    columns = ["image_id", "split", "outcome"]
    table = _read_table(path, columns, "acquire").filter(outcome="ok").select("image_id", "split")
    if table.is_empty():
        raise ValueError(f"{path}: no image with outcome ok; run acquire again")
    return table.sort("split", "image_id")


def _read_boxes(path: Path) -> pl.DataFrame:
    return _read_table(path, ["box_id", "image_id", "split", *BOX_COLUMNS], "filter")


def _read_table(path: Path, columns: Sequence[str], stage: str) -> pl.DataFrame:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; run {stage} first")
    try:
        table = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path}: not a parquet file: {str(error).splitlines()[0]}") from None
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{path}: no column {missing[0]}; run {stage} again")
    return table


def _boxes_by_image(
    table: pl.DataFrame, images: pl.DataFrame, path: Path
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    strangers = table.join(images, on=["split", "image_id"], how="anti")
    if not strangers.is_empty():
        image_id, split = strangers.row(0, named=True)["image_id"], strangers.row(0, named=True)["split"]
        raise ValueError(f"{path}: image {image_id} ({split}) is not ok in the manifest; run filter again")
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in table.iter_rows(named=True):
        grouped.setdefault((row["split"], row["image_id"]), []).append(row)
    return grouped


def _examine(
    raw: Path,
    images: pl.DataFrame,
    boxes: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    settings: Curate,
    embed: Embed,
    embed_px: int,
    progress: Progress | None,
) -> tuple[list[_Examined], Floats]:
    """Decode, measure and embed; the rows of the embeddings are the images without a fault, in order."""
    examined: list[_Examined] = []
    waiting: list[Image] = []
    embeddings: list[Floats] = []
    for image_id, split in images.iter_rows():
        item, pixels = _examine_one(raw, image_id, split, boxes.get((split, image_id), ()), settings)
        examined.append(item)
        if not item.fault and pixels is not None:
            waiting.append(np.asarray(cv2.resize(pixels, (embed_px, embed_px), interpolation=cv2.INTER_AREA), np.uint8))
        if len(waiting) == _BATCH:
            embeddings.append(embed(np.stack(waiting)))
            waiting.clear()
        if progress is not None and len(examined) % _BATCH == 0:
            progress(len(examined), len(images))
    if waiting:
        embeddings.append(embed(np.stack(waiting)))
    if progress is not None:
        progress(len(images), len(images))
    return examined, np.concatenate(embeddings) if embeddings else np.zeros((0, 1), np.float32)


def _examine_one(
    raw: Path, image_id: str, split: str, boxes: Sequence[Mapping[str, Any]], settings: Curate
) -> tuple[_Examined, Image | None]:
    path = raw / "images" / split / f"{image_id}.jpg"
    if not path.is_file():
        raise ValueError(f"{path}: in the manifest but not on disk; run acquire again")
    item = _Examined(image_id, split, path, "undecodable")
    try:
        pixels = read_image(path)
    except ValueError:
        return item, None
    height, width = pixels.shape[:2]
    quality = measure(pixels)
    agrees = all((box["width"], box["height"]) == (width, height) for box in boxes)
    reason = fault(quality, settings) if agrees else "size_mismatch"
    return replace(item, fault=reason, size=(width, height), quality=quality), pixels


def _record(item: _Examined, boxes: Sequence[Mapping[str, Any]]) -> Record:
    width, height = item.size or (None, None)
    brightness, sharpness = (item.quality.brightness, item.quality.sharpness) if item.quality else (None, None)
    return Record(item.path, item.image_id, item.split, width, height, brightness, sharpness, boxes)


def _judge(examined: Sequence[_Examined], embeddings: Floats, catalogue: Catalogue, settings: Curate) -> list[Verdict]:
    good = [row for row, item in enumerate(examined) if not item.fault]
    candidates = pairs_within(catalogue.index(good, embeddings, settings.near_duplicate_distance))
    thumbnails = np.zeros((len(examined), *_first_thumbnail(examined).shape), np.uint8)
    for row, item in enumerate(examined):
        if item.quality is not None:
            thumbnails[row] = item.quality.thumbnail
    near = confirm(candidates, thumbnails, settings.near_duplicate_pixels)
    items = [Item(e.image_id, e.split == "train", e.fault, e.quality.pixels_md5 if e.quality else "") for e in examined]
    return judge(items, near)


def _overrule(item: _Examined, verdict: Verdict, people: Mapping[tuple[str, str, str], str]) -> Verdict:
    """What a person said of the image, else what the rules did."""
    said = people.get(("image", item.split, item.image_id))
    if said == REJECT:
        return Verdict(BY_PERSON, None)
    if said == KEEP and verdict.reason in ("undecodable", "size_mismatch"):
        log.warning("%s: %s, so that a person's verdict cannot keep it", item.path, verdict.reason)
        return verdict
    return Verdict("", None) if said == KEEP else verdict


def _first_thumbnail(examined: Sequence[_Examined]) -> Image:
    return next((item.quality.thumbnail for item in examined if item.quality), np.zeros((32, 32, 3), np.uint8))


def _marks(examined: Sequence[_Examined], verdicts: Sequence[Verdict]) -> Iterator[Mark]:
    origins = {v.duplicate_of for v in verdicts if v.duplicate_of is not None}
    for row, verdict in enumerate(verdicts):
        of = None if verdict.duplicate_of is None else examined[verdict.duplicate_of].image_id
        yield Mark(verdict.reason, of, of or (examined[row].image_id if row in origins else None))


def _images_table(examined: Sequence[_Examined], verdicts: Sequence[Verdict]) -> pl.DataFrame:
    rows = [
        {
            "image_id": e.image_id,
            "split": e.split,
            "verdict": "reject" if v.reason else KEEP,
            "reason": v.reason,
            "brightness": round(e.quality.brightness, 6) if e.quality else None,
            "sharpness": round(e.quality.sharpness, 6) if e.quality else None,
            "duplicate_of": None if v.duplicate_of is None else examined[v.duplicate_of].image_id,
        }
        for e, v in zip(examined, verdicts, strict=True)
    ]
    numbers = {"brightness": pl.Float32, "sharpness": pl.Float32}
    schema = {name: numbers.get(name, pl.String) for name in rows[0]}
    return pl.DataFrame(rows, schema=schema).sort("split", "image_id")


def _report(table: pl.DataFrame, kept_boxes: pl.DataFrame) -> CurationReport:
    splits = sorted(table["split"].unique())
    images = {split: dict.fromkeys((KEEP, *REASONS), 0) for split in splits}
    for split, reason, count in table.group_by("split", "reason").len().iter_rows():
        images[split][reason or KEEP] = count
    return CurationReport(images, {split: kept_boxes.filter(split=split).height for split in splits})


def _write(table: pl.DataFrame, path: Path) -> None:
    with written_whole(path) as part:
        table.write_parquet(part, compression="zstd", statistics=False)
