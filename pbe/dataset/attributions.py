"""The authors of the images in use: OpenImages' licence, CC BY, requires their names wherever the images are used."""

from pathlib import Path

from pbe.dataset.openimages import CREDITS
from pbe.dataset.table_files import collect, scan_parquet
from pbe.errors import UserError
from pbe.runtime.files import atomic_file


def write_attributions(raw: Path, curated: Path, out: Path) -> tuple[int, int]:
    """Write one CSV row for each image with a curated box: split, image_id and CREDITS, sorted.

    Returns the number of images, and of those without a licence in the source. Raises UserError when `out` is not
    named .csv, or naming the file of a stage that is missing or malformed.
    """
    if out.suffix.lower() != ".csv":
        raise UserError(f"--out {out}: the file is CSV; give it a name that ends in .csv")
    manifest = raw / "manifest.parquet"
    used = scan_parquet(curated / "boxes.parquet", ["split", "image_id"], "curate").select("split", "image_id").unique()
    credits = scan_parquet(manifest, ["split", "image_id", *CREDITS], "acquire").select("split", "image_id", *CREDITS)
    joined = used.join(credits, on=["split", "image_id"], how="left").sort("split", "image_id")
    attributions = collect(joined, manifest, "parquet")
    with atomic_file(out) as part:
        attributions.write_csv(part)
    return attributions.height, attributions["license"].null_count()
