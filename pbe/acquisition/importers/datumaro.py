"""Datumaro's own format: annotations/{subset}.json with boxes, polygons and masks, and images/."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pbe.acquisition.importers.annotations import ImportedImage, folder_of, numbers
from pbe.acquisition.importers.image_names import ImageFinder, walk_files
from pbe.acquisition.importers.placement import (
    ImportCounts,
    PixelBox,
    Sides,
    clean_label,
    frame_of,
    place_boxes,
    stated_sides,
)
from pbe.acquisition.importers.segmentations import runs_bounds, segmentation_outline
from pbe.acquisition.importers.shapes import polygon_box
from pbe.acquisition.importers.split_names import SplitFolders, split_in_file_name
from pbe.acquisition.importers.text_files import read_json
from pbe.errors import UserError
from pbe.settings import Acquire

Item = Mapping[str, Any]


def read_datumaro(settings: Acquire, counts: ImportCounts) -> Iterator[ImportedImage]:
    """Yield the images of Datumaro's JSON files, whose names are their splits; other annotations are counted.

    Raises UserError naming the file and the item that is wrong.
    """
    root = folder_of(settings)
    folders = SplitFolders(root)
    finder = ImageFinder(root, folders.of)
    num_files = 0
    for file in (path for path, _ in walk_files(root) if path.suffix.casefold() == ".json"):
        content = read_json(file)
        if not isinstance(content, dict) or not isinstance(content.get("items"), list):
            counts.skipped["json_file_not_datumaro"] += 1
            continue
        num_files += 1
        split, names = split_in_file_name(file.stem), _names(content, file)
        places = (root / "images" / file.stem, root / "images", file.parent.parent / "images")
        for n, item in enumerate(content["items"]):
            where = f"{file}: items[{n}]"
            name, sides = _image(item, where)
            if not item.get("annotations"):
                yield ImportedImage(Path(name), split, ())
                continue
            found = finder.find(name, places, split, where)
            frame = frame_of(found.path, str(found.path), sides, where)
            boxes = list(_boxes(item["annotations"], names, frame.sides, where, counts))
            of_path = split or folders.of(found.path.parent)
            placed = place_boxes(boxes, frame, counts)
            yield ImportedImage(found.path, of_path, placed, found_by=found.found_by, name=name)
    if not num_files:
        raise UserError(f"{root}: the folder has no Datumaro file (*.json with items)")


def _names(content: Item, file: Path) -> list[str]:
    categories = content.get("categories")
    label = categories.get("label") if isinstance(categories, dict) else None
    labels = label.get("labels") if isinstance(label, dict) else None
    if not isinstance(labels, list) or not all(isinstance(each, dict) for each in labels):
        raise UserError(f"{file}: it has no categories.label.labels")
    return [clean_label(each.get("name"), f"{file}: label {n}") for n, each in enumerate(labels)]


def _image(item: Any, where: str) -> tuple[str, Sides | None]:
    image = item.get("image") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(item.get("annotations", []), list) or "id" not in item:
        raise UserError(f"{where}: an item has an id and a list of annotations")
    if not isinstance(image, dict):
        return str(item["id"]), None
    size = image.get("size")
    sides = stated_sides(size[1], size[0]) if isinstance(size, list) and len(size) == 2 else None
    return str(image.get("path") or item["id"]), sides


def _boxes(
    annotations: list[Any], names: list[str], sides: Sides | None, where: str, counts: ImportCounts
) -> Iterator[PixelBox]:
    for n, annotation in enumerate(annotations):
        place = f"{where}: annotations[{n}]"
        kind = annotation.get("type") if isinstance(annotation, dict) else None
        if kind not in ("bbox", "polygon", "mask"):
            counts.skipped[f"annotation_{kind}"] += 1
            continue
        number = annotation.get("label_id")
        if not isinstance(number, int) or not 0 <= number < len(names):
            raise UserError(f"{place}: label_id {number!r} is not among the labels")
        attributes = annotation.get("attributes")
        is_occluded = isinstance(attributes, dict) and attributes.get("occluded") is True
        flags = frozenset(("is_occluded",)) if is_occluded else frozenset[str]()
        if kind == "bbox":
            x, y, width, height = numbers(annotation.get("bbox"), 4, f"{place}: bbox")
            yield PixelBox(names[number], (x, y, x + width, y + height), flags)
        elif kind == "polygon":
            yield polygon_box(names[number], numbers(annotation.get("points"), None, f"{place}: points"), place, flags)
        else:
            runs = annotation.get("rle")
            outline = segmentation_outline(runs, sides, f"{place}: rle")
            bounds = runs_bounds(runs, sides, f"{place}: rle") if outline else (0.0, 0.0, 0.0, 0.0)
            yield PixelBox(names[number], bounds, flags, outline)
