"""Whom the pictures are by: OpenImages' licence, CC BY, asks for the author's name wherever they are used."""

from pathlib import Path

import polars as pl

from pbe.dataset.openimages import CREDITS
from pbe.errors import UserError
from pbe.runtime.files import atomic_file


def write_attributions(raw: Path, curated: Path, out: Path) -> tuple[int, int]:
    """Write one CSV row for every image with a curated box: split, image_id and CREDITS, sorted.

    Returns the number of images, and of those whose licence the source does not tell. Raises UserError naming the
    file that is missing, or an `out` that is no CSV.
    """
    if out.suffix.lower() != ".csv":
        raise UserError(f"--out {out}: name it .csv; it is a table")
    manifest, boxes = raw / "manifest.parquet", curated / "boxes.parquet"
    for path, stage in ((manifest, "acquire"), (boxes, "curate")):
        if not path.is_file():
            raise UserError(f"{path}: no such file; run the {stage} stage first")
    if not set(CREDITS) <= set(pl.read_parquet_schema(manifest)):
        raise UserError(f"{manifest}: made before licences were recorded; run the acquire stage again")
    used = pl.scan_parquet(boxes).select("split", "image_id").unique()
    credits = pl.scan_parquet(manifest).select("split", "image_id", *CREDITS)
    table = used.join(credits, on=["split", "image_id"], how="left").sort("split", "image_id").collect()
    with atomic_file(out) as part:
        table.write_csv(part)
    return table.height, table["license"].null_count()
