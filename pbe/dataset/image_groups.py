"""Groups of images that belong together, such as the frames of a clip, which no two splits share.

`data/raw/annotations/{split}-image-groups.csv` has a row ImageID,Group for each image whose group is known; an image
without a row has none. Own data state groups in `acquire.group_file`; in OpenImages' layout, these files are optional.
"""

from pathlib import Path

import polars as pl

from pbe.dataset.openimages import SPLITS, AnnotationFile
from pbe.dataset.table_files import collect, file_errors, require_columns
from pbe.errors import UserError

GROUP_FILES = {split: AnnotationFile(name, name) for split in SPLITS if (name := f"{split}-image-groups.csv")}
GROUP_COLUMNS = ("ImageID", "Group")


def read_groups(annotations: Path, split: str) -> pl.DataFrame:
    """Return image_id and group of the images of a split whose group is known; no rows when there is no file.

    Raises UserError naming the file when it is malformed, and the image that it gives two groups.
    """
    path = annotations / GROUP_FILES[split].name
    if not path.is_file():
        return pl.DataFrame(schema={"image_id": pl.String, "group": pl.String})
    with file_errors(path):
        listed = pl.scan_csv(path, infer_schema=False)
        found = listed.collect_schema().names()
    require_columns(path, found, GROUP_COLUMNS)
    groups = collect(listed.select(image_id="ImageID", group="Group").drop_nulls().unique(), path).sort("image_id")
    repeated = groups.filter(pl.col("image_id").is_duplicated())
    if not repeated.is_empty():
        raise UserError(f"{path}: image {repeated['image_id'][0]} has two groups; give it one")
    return groups


def check_groups(annotations: Path) -> None:
    """Raise UserError naming the file, the group and an image of each split when a group is in both splits."""
    train, validation = (read_groups(annotations, split) for split in SPLITS)
    both = validation.join(train, on="group", suffix="_train").sort("group", "image_id", "image_id_train")
    if not both.is_empty():
        image_id, group, in_train = both.row(0)
        raise UserError(
            f"{annotations / GROUP_FILES['validation'].name}: group {group!r} is in both splits (train: image "
            f"{in_train}, validation: image {image_id}); give all images of a group the same split, or name no split"
        )
