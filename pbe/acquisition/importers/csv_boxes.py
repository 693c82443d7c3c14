"""boxes.csv: image, label, x0, y0, x1, y1 in pixels, and optionally split."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pbe.acquisition.importers.annotations import ImportedImage, folder_of, numbers
from pbe.acquisition.importers.image_names import Found, ImageFinder
from pbe.acquisition.importers.placement import (
    ImportCounts,
    PixelBox,
    Sides,
    UnitCheck,
    clean_label,
    frame_of,
    place_boxes,
    stated_sides,
)
from pbe.acquisition.importers.split_names import SplitFolders, SplitLists, split_word
from pbe.acquisition.importers.text_files import Row, read_rows
from pbe.errors import UserError
from pbe.settings import Acquire

COLUMNS = ("image", "label", "x0", "y0", "x1", "y1")


def read_csv(settings: Acquire, counts: ImportCounts) -> Iterator[ImportedImage]:
    """Yield the images of boxes.csv: a row is a box, in pixels, the far side exclusive.

    A row with an image alone is an image without boxes; optional columns width and height are checked against it.
    Fields are separated by commas, semicolons or tabs. Raises UserError naming the line that is wrong.
    """
    root = folder_of(settings)
    path = root / "boxes.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such file; it needs the columns {', '.join(COLUMNS)}, and may have split")
    folders, lists = SplitFolders(root), SplitLists(root)
    finder = ImageFinder(root, folders.of)
    boxes: dict[tuple[str, str | None], list[PixelBox]] = defaultdict(list)
    found: dict[tuple[str, str | None], Found] = {}
    stated: dict[tuple[str, str | None], Sides | None] = {}
    for number, row in read_rows(path, COLUMNS):
        where = f"{path}: line {number}"
        key = _image_name(row, where), _split(row.get("split"), where)
        of_image = boxes[key]
        if any(row[column] for column in COLUMNS[1:]):
            of_image.append(_box(row, where))
            stated.setdefault(key, stated_sides(row.get("width"), row.get("height")))
            found.setdefault(key, finder.find(key[0], (root,), key[1], where))
    for (name, said), of_image in boxes.items():
        if not of_image:
            if not any(other == name for other, _ in found):
                yield ImportedImage(Path(name), said, ())
            continue
        image = found[name, said]
        frame = frame_of(image.path, str(image.path), stated[name, said], str(path))
        split = said or lists.of(image.path) or folders.of(image.path.parent)
        yield ImportedImage(image.path, split, place_boxes(of_image, frame, counts), found_by=image.found_by, name=name)


def _image_name(row: Row, where: str) -> str:
    if not row["image"]:
        raise UserError(f"{where}: the image is empty; name its file, or remove the row")
    return row["image"]


def _box(row: Row, where: str) -> PixelBox:
    label = clean_label(row["label"], where)
    x0, y0, x1, y1 = numbers([row[column].replace(",", ".") for column in COLUMNS[2:]], 4, where)  # 12,5 beside ;
    units = UnitCheck()
    units.add((x0, y0, x1, y1), where)
    units.finish()
    return PixelBox(label, (x0, y0, x1, y1))


def _split(value: str | None, where: str) -> str | None:
    if not value:
        return None
    split = split_word(value)
    if split is None:
        raise UserError(f"{where}: split {value!r} is none of train, validation and test")
    return split
