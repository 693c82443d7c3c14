"""The choice of training boxes: the paper's area rule (section 4.1), OpenImages' flags, and caps per image and class.

Every row of the annotation files is kept, or rejected for the first rule of REASONS that it breaks: rules on the row
come first, then rules on the size of its image, then the caps. The files are streamed once.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from pbe.dataset import openimages
from pbe.dataset.image_shards import LOCATION
from pbe.dataset.openimages import SPLITS, UnsortedError
from pbe.dataset.png_text import PNG_SIGNATURE
from pbe.dataset.table_files import collect, file_errors, require_columns, scan_parquet
from pbe.errors import UserError
from pbe.filtering.box_rules import IMAGE_COLUMNS, REASONS, apply_row_rules, apply_size_rules, cap_boxes
from pbe.runtime.files import atomic_file
from pbe.settings import Filter

COLUMNS = {
    "box_id": pl.String,
    "image_id": pl.String,
    "split": pl.String,
    "label": pl.String,
    **dict.fromkeys(("x0", "y0", "x1", "y1", "width", "height"), pl.Int32),
    "area_frac": pl.Float32,
    **dict.fromkeys(("is_occluded", "is_truncated", "is_group_of", "is_depiction"), pl.Boolean),
    "object_mask": pl.Binary,
    **LOCATION,  # of the image
}


@dataclass(frozen=True)
class FilterReport:
    """`rows` of the annotation files; `kept` boxes and their `images` by split; `rejects` by each of REASONS."""

    rows: int
    kept: dict[str, int]
    images: dict[str, int]
    rejects: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        """Return the counts as they are tracked."""
        return {"rows": self.rows, "kept": self.kept, "images": self.images, "rejects": self.rejects}


def filter_boxes(raw: Path, out: Path, settings: Filter, seed: int) -> FilterReport:
    """Apply the rules to every box of `raw`, the output of acquire, and write those kept to `{out}/boxes.parquet`.

    The boxes of train come first, each split sorted by image and row; `seed` draws which boxes stay under the caps.
    Memory is bounded when the annotation files are sorted by image, as those of OpenImages are, and no class cap is
    set. Raises UserError naming the file that is missing or malformed, an unknown class, or a split without any box
    left.
    """
    inputs = _read_inputs(raw, settings, seed)
    unsorted: set[Path] = set()
    while True:
        try:
            return _write_kept(inputs, out / "boxes.parquet", unsorted)
        except UnsortedError as error:
            unsorted.add(error.path)


@dataclass(frozen=True)
class _Inputs:
    """All that is known before the first row is read."""

    raw: Path
    images: pl.LazyFrame  # acquired images of both splits
    classes: pl.DataFrame
    mask_files: Mapping[str, Path]  # by split, where own data have masks
    labels: Sequence[str]
    excluded: Sequence[str]
    settings: Filter
    seed: int


def _read_inputs(raw: Path, settings: Filter, seed: int) -> _Inputs:
    manifest = scan_parquet(raw / "manifest.parquet", ["image_id", "split", "outcome", *IMAGE_COLUMNS], "acquire")
    images = manifest.filter(outcome="ok").select("image_id", "split", *IMAGE_COLUMNS)
    annotations = raw / "annotations"
    classes = openimages.read_classes(annotations / openimages.CLASSES_FILE.name)
    hierarchy = openimages.read_hierarchy(annotations / openimages.HIERARCHY_FILE.name)
    labels = openimages.find_labels(classes, settings.classes, "filter.classes", hierarchy)
    excluded = openimages.find_labels(classes, settings.exclude_classes, "filter.exclude_classes", hierarchy)
    files = {split: annotations / file.name for split, file in openimages.MASK_FILES.items()}
    mask_files = {split: path for split, path in files.items() if path.is_file()}
    return _Inputs(raw, images, classes, mask_files, labels, excluded, settings, seed)


def scan_masks(path: Path) -> pl.LazyFrame:
    """Scan a file of object masks: MASK_COLUMNS; raises UserError naming the file when it is malformed."""
    with file_errors(path, "parquet"):
        masks = pl.scan_parquet(path)
        found = masks.collect_schema().names()
    require_columns(path, found, openimages.MASK_COLUMNS)
    return masks.select("ImageID", pl.col("number").cast(pl.Int64), pl.col("object_mask").cast(pl.Binary))


def _write_kept(inputs: _Inputs, target: Path, unsorted: AbstractSet[Path]) -> FilterReport:
    kept, images, rejects = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0), Counter[str]()
    with atomic_file(target) as part:
        with pq.ParquetWriter(part, pl.DataFrame(schema=COLUMNS).to_arrow().schema, compression="zstd") as writer:
            for split in SPLITS:
                for batch in _kept_boxes(inputs, split, unsorted, rejects):
                    masked = _add_masks(batch, inputs.mask_files.get(split))
                    named = _to_output_columns(masked, inputs.classes, split)
                    writer.write_table(named.to_arrow())
                    kept[split] += named.height
                    images[split] += named["image_id"].n_unique()
        by_reason = {reason: rejects[reason] for reason in REASONS}
        report = FilterReport(sum(kept.values()) + rejects.total(), kept, images, by_reason)
        _require_boxes(report, inputs.raw)
    return report


def _require_boxes(report: FilterReport, raw: Path) -> None:
    """Raise UserError with the reasons when a split has no box left."""
    empty = [split for split in SPLITS if not report.kept[split]]
    if empty:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.rejects.items() if count)
        raise UserError(
            f"{raw}: no {empty[0]} box passes the filter; rejected of {report.rows}: {reasons or 'none'}; "
            "change the parameters under filter"
        )


def _kept_boxes(
    inputs: _Inputs, split: str, unsorted: AbstractSet[Path], rejects: Counter[str]
) -> Iterator[pl.DataFrame]:
    """Yield the boxes of a split that pass all rules and caps, in order; count the others in `rejects`."""
    path = inputs.raw / "annotations" / openimages.BOX_FILES[split].name
    manifest = inputs.raw / "manifest.parquet"
    acquired = collect(inputs.images.filter(split=split), manifest, "parquet").sort("image_id")
    checked = apply_row_rules(openimages.scan_boxes(path), inputs.settings, inputs.labels, inputs.excluded)
    if path in unsorted:
        checked = checked.sort("ImageID", maintain_order=True)
    waiting = []  # for the class cap, which needs all boxes
    for batch in openimages.stream_images(checked, path):
        numbered = openimages.number_boxes(batch)
        passed = _drop_rejected(numbered, rejects)
        passed = _drop_rejected(apply_size_rules(passed, acquired, inputs.settings), rejects)
        capped = cap_boxes(passed, inputs.settings.max_boxes_per_image, inputs.seed)
        rejects["over_image_cap"] += passed.height - capped.height
        if inputs.settings.max_boxes_per_class is None:
            yield capped
        else:
            waiting.append(capped)
    if waiting:
        passed = pl.concat(waiting)
        capped = cap_boxes(passed, inputs.settings.max_boxes_per_class, inputs.seed, "LabelName")
        rejects["over_class_cap"] += passed.height - capped.height
        yield capped


def _drop_rejected(checked: pl.DataFrame, rejects: Counter[str]) -> pl.DataFrame:
    """Return the boxes without a `reason`; count the others in `rejects`."""
    for reason, count in checked["reason"].drop_nulls().value_counts().iter_rows():
        rejects[reason] += count
    return checked.filter(pl.col("reason").is_null())


def _add_masks(boxes: pl.DataFrame, path: Path | None) -> pl.DataFrame:
    """Add `object_mask` from the mask file `path`, null for a box without one; read only the masks of these images.

    Raises UserError naming the file and the image of a mask that is not a PNG.
    """
    if path is None or boxes.is_empty():
        return boxes.with_columns(object_mask=pl.lit(None, pl.Binary))
    first, last = (pl.lit(boxes["ImageID"][place]) for place in (0, -1))
    masks = collect(scan_masks(path).filter(pl.col("ImageID").is_between(first, last)), path, "parquet")
    damaged = masks.filter(~pl.col("object_mask").bin.starts_with(PNG_SIGNATURE))
    if damaged.height:
        raise UserError(f"{path}: an object mask of image {damaged['ImageID'][0]} is not a PNG")
    return boxes.join(masks, on=["ImageID", "number"], how="left", maintain_order="left")


def _to_output_columns(boxes: pl.DataFrame, classes: pl.DataFrame, split: str) -> pl.DataFrame:
    """Convert boxes to COLUMNS; a class without a description keeps its LabelName as label."""
    number = pl.col("number").cast(pl.String).str.zfill(3)
    named = boxes.join(classes, on="LabelName", how="left", maintain_order="left").with_columns(
        (pl.col("ImageID") + "_" + number).alias("box_id"),
        pl.col("ImageID").alias("image_id"),
        pl.lit(split).alias("split"),
        pl.coalesce("DisplayName", "LabelName").alias("label"),
        pl.col("IsOccluded").alias("is_occluded"),
        pl.col("IsTruncated").alias("is_truncated"),
        pl.col("IsGroupOf").alias("is_group_of"),
        pl.col("IsDepiction").alias("is_depiction"),
    )
    return named.select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())
