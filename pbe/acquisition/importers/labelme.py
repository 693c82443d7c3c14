"""labelme: a JSON file for each image, with its shapes: polygons, rectangles and circles."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pbe.acquisition.importers.annotations import ImportedImage, folder_of, numbers
from pbe.acquisition.importers.image_names import ImageFinder, walk_files
from pbe.acquisition.importers.placement import (
    ImportCounts,
    PixelBox,
    clean_label,
    frame_of,
    place_boxes,
    stated_sides,
)
from pbe.acquisition.importers.shapes import bounds_box, polygon_box
from pbe.acquisition.importers.split_names import SplitFolders, SplitLists
from pbe.acquisition.importers.text_files import read_json
from pbe.errors import UserError
from pbe.settings import Acquire


def read_labelme(settings: Acquire, counts: ImportCounts) -> Iterator[ImportedImage]:
    """Yield the images of labelme's JSON files; lines and points, which have no area, are counted.

    Raises UserError naming the file and the shape that is wrong.
    """
    root = folder_of(settings)
    folders, lists = SplitFolders(root), SplitLists(root)
    finder = ImageFinder(root, folders.of)
    num_files = 0
    for file in (path for path, _ in walk_files(root) if path.suffix.casefold() == ".json"):
        content = read_json(file)
        if not isinstance(content, dict) or not {"shapes", "imagePath"} & content.keys():
            counts.skipped["json_file_not_labelme"] += 1
            continue
        if not isinstance(content.get("shapes"), list):
            raise UserError(f"{file}: it has no list of shapes")
        num_files += 1
        name = str(content.get("imagePath") or file.stem)
        split = folders.of(file.parent)
        boxes = list(_boxes(content["shapes"], file, counts))
        if not boxes:
            yield ImportedImage(Path(name), split, ())
            continue
        found = finder.find(name, (file.parent,), split, str(file))
        found = finder.find(file.stem, (file.parent,), split, str(file)) if found.found_by == "missing" else found
        stated = stated_sides(content.get("imageWidth"), content.get("imageHeight"))
        frame = frame_of(found.path, str(found.path), stated, str(file))
        split = split or lists.of(found.path) or folders.of(found.path.parent)
        placed = place_boxes(boxes, frame, counts)
        yield ImportedImage(found.path, split, placed, found_by=found.found_by, name=name)
    if not num_files:
        raise UserError(f"{root}: the folder has no labelme file (*.json with shapes)")


def _boxes(shapes: list[Any], file: Path, counts: ImportCounts) -> Iterator[PixelBox]:
    for n, shape in enumerate(shapes):
        where = f"{file}: shapes[{n}]"
        if not isinstance(shape, dict) or not isinstance(shape.get("points"), list):
            raise UserError(f"{where} has no points")
        kind = str(shape.get("shape_type") or "polygon")
        points = [value for point in shape["points"] for value in numbers(point, 2, f"{where}: points")]
        label = clean_label(shape.get("label"), where)
        if kind == "polygon":
            yield polygon_box(label, points, where)
        elif kind in ("rectangle", "mask"):
            yield bounds_box(label, points, where)
        elif kind == "circle" and len(points) == 4:
            (x, y), radius = points[:2], math.dist(points[:2], points[2:])
            yield bounds_box(label, (x - radius, y - radius, x + radius, y + radius), where)
        else:
            counts.skipped[f"shape_{kind}"] += 1
