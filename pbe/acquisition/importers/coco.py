"""COCO's instance files: images, annotations and categories in *.json; where any is called instances*, those alone.

An annotation's segmentation, polygons or run lengths, becomes its object's mask.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pbe.acquisition.importers.annotations import ImportedImage, folder_of, numbers
from pbe.acquisition.importers.image_names import ImageFinder, walk_files
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
from pbe.acquisition.importers.segmentations import segmentation_outline
from pbe.acquisition.importers.split_names import TEST, SplitFolders, SplitLists, split_in_file_name
from pbe.acquisition.importers.text_files import read_json
from pbe.errors import UserError
from pbe.settings import Acquire

_KEYS = ("images", "annotations", "categories")
_DEPTH = 3  # folders between the root and a file, with the file

Row = Mapping[str, Any]


def read_coco(settings: Acquire, counts: ImportCounts) -> Iterator[ImportedImage]:
    """Yield the images of COCO's instance files; iscrowd becomes IsGroupOf.

    Raises UserError naming the file and the row that is missing or wrong, or two images with one id.
    """
    root = folder_of(settings)
    folders, lists = SplitFolders(root), SplitLists(root)
    finder = ImageFinder(root, folders.of)
    units = UnitCheck()
    for file, content in _coco_files(root, counts):
        split = split_in_file_name(file.stem) or folders.of(file.parent)
        images, of_image = _group(file, content, split, counts)
        for key, image in images.items():
            name = str(image["file_name"])
            if not of_image[key]:
                yield ImportedImage(Path(name), split, ())
                continue
            found = finder.find(name, (file.parent,), split, f"{file}: image {key!r}")
            where = f"{file}: image {key!r}"
            frame = frame_of(found.path, str(found.path), stated_sides(image.get("width"), image.get("height")), where)
            boxes = []
            for where, label, annotation in of_image[key]:
                boxes.append(_box(annotation, label, where, frame.sides, counts))
                units.add(boxes[-1].xyxy, where)
            of_path = split or lists.of(found.path) or folders.of(found.path.parent)
            placed = place_boxes(boxes, frame, counts)
            yield ImportedImage(found.path, of_path, placed, found_by=found.found_by, name=name)
    units.finish()


def _coco_files(root: Path, counts: ImportCounts) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the files called instances*, or else all that have COCO's keys; counts the other JSON files."""
    files = [path for path, _ in walk_files(root) if path.suffix.casefold() == ".json"]
    files = sorted(path for path in files if len(path.relative_to(root).parts) <= _DEPTH)
    if not files:
        raise UserError(f"{root}: the folder has no COCO file (*.json)")
    files = [path for path in files if path.name.startswith("instances")] or files
    num_coco = 0
    for file in files:
        content = read_json(file)
        if isinstance(content, dict) and any(key in content for key in _KEYS[:2]):
            num_coco += 1
            yield file, content
        elif len(files) == 1:
            raise UserError(f"{file}: not a COCO file, which is an object with {', '.join(_KEYS)}")
        else:
            counts.skipped["json_file_not_coco"] += 1
    if not num_coco:
        raise UserError(f"{files[0]}: not a COCO file, which is an object with {', '.join(_KEYS)}")


def _group(
    file: Path, content: Row, split: str | None, counts: ImportCounts
) -> tuple[dict[Any, Row], Mapping[Any, list[tuple[str, str, Row]]]]:
    """Return a file's images by id, and each one's annotations with where they are and their class."""
    is_test = split == TEST  # whose annotations are often not published
    rows = _rows(content, "categories", ("id", "name"), file, optional=is_test)
    categories = _by_id(rows, "categories", "name", file)
    images = _by_id(_rows(content, "images", ("id", "file_name"), file), "images", "file_name", file)
    counts.skipped["image_listed_twice"] += len(content["images"]) - len(images)
    names = {key: clean_label(row["name"], f"{file}: category {key!r}") for key, row in categories.items()}
    of_image: dict[Any, list[tuple[str, str, Row]]] = defaultdict(list)
    rows = _rows(content, "annotations", ("image_id", "category_id", "bbox"), file, optional=is_test)
    for n, row in enumerate(rows):
        where = f"{file}: annotations[{n}]"
        for key, known in (("image_id", images), ("category_id", names)):
            if not isinstance(row[key], int | float | str) or row[key] not in known:
                kind = "images" if key == "image_id" else "categories"
                raise UserError(f"{where}: {key} {row[key]!r} is not among the {kind}")
        of_image[row["image_id"]].append((where, names[row["category_id"]], row))
    return images, of_image


def _by_id(rows: Sequence[Row], key: str, name: str, file: Path) -> dict[Any, Row]:
    found: dict[Any, Row] = {}
    for n, row in enumerate(rows):
        if not isinstance(row["id"], int | float | str):
            raise UserError(f"{file}: {key}[{n}]: id {row['id']!r:.60} is neither a number nor a text")
        if not isinstance(row[name], str) or not row[name].strip():
            raise UserError(f"{file}: {key}[{n}]: {name} {row[name]!r:.60} is not a name")
        known = found.setdefault(row["id"], row)
        if known is not row and known[name] != row[name]:
            raise UserError(
                f"{file}: {key}[{n}]: id {row['id']!r} is that of {known[name]!r} and of {row[name]!r}; "
                "give each its own id"
            )
    return found


def _box(row: Row, label: str, where: str, sides: Sides | None, counts: ImportCounts) -> PixelBox:
    x, y, width, height = numbers(row["bbox"], 4, f"{where}: bbox")
    outline = segmentation_outline(row.get("segmentation"), sides, f"{where}: segmentation")
    flags = frozenset(("is_group_of",)) if row.get("iscrowd") else frozenset[str]()
    return PixelBox(label, (x, y, x + width, y + height), flags, outline)


def _rows(content: Row, key: str, needed: Sequence[str], file: Path, optional: bool = False) -> list[Row]:
    rows = content.get(key, [] if optional else None)
    if not isinstance(rows, list):
        raise UserError(f"{file}: it has no list {key!r}; a COCO file has {', '.join(_KEYS)}")
    for n, row in enumerate(rows):
        missing = [name for name in needed if not isinstance(row, dict) or name not in row]
        if missing:
            raise UserError(f"{file}: {key}[{n}] has no {missing[0]!r}")
    return rows
