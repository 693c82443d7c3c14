"""boxes.csv: image, label, x0, y0, x1, y1 in pixels, and split where there is one."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from pbe.acquisition.importers.annotations import ImageFinder, OwnBox, OwnImage, folder_of, numbers, shares, sides_of
from pbe.errors import UserError
from pbe.settings import Acquire

COLUMNS = ("image", "label", "x0", "y0", "x1", "y1")


def read_csv(settings: Acquire, skipped: Counter[str]) -> Iterator[OwnImage]:
    """Images of boxes.csv, a row a box, in pixels, the far side exclusive."""
    root = folder_of(settings)
    path = root / "boxes.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such file; its columns are {', '.join(COLUMNS)}, and split if you have one")
    find = ImageFinder(root)
    boxes: dict[tuple[Path, str | None], list[OwnBox]] = defaultdict(list)
    sides: dict[Path, tuple[float, float]] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            found = ", ".join(reader.fieldnames or ()) or "none"
            raise UserError(f"{path}: column {', '.join(missing)} is missing; columns found: {found}")
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            split = _csv_split(row.get("split"), where)
            image = find(row["image"], root, split, where)
            sides.setdefault(image, sides_of(image))
            x0, y0, x1, y1 = numbers([row[c] for c in COLUMNS[2:]], 4, where)
            boxes[image, split].append(OwnBox(row["label"], shares((x0, y0, x1, y1), sides[image])))
    yield from (OwnImage(image, split, found) for (image, split), found in boxes.items())


def _csv_split(value: str | None, where: str) -> str | None:
    if not value:
        return None
    if value not in ("train", "val", "valid", "validation"):
        raise UserError(f"{where}: split {value!r} is neither train nor validation")
    return "train" if value == "train" else "validation"
