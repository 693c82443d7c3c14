"""Label Studio's own exports, JSON and JSON-MIN: a list of tasks with rectangles, polygons and ellipses in per cent."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pbe.acquisition.importers.annotations import ImportedImage, folder_of, numbers
from pbe.acquisition.importers.image_names import Found, ImageFinder, walk_files
from pbe.acquisition.importers.placement import (
    ImportCounts,
    PixelBox,
    Sides,
    clean_label,
    frame_of,
    place_boxes,
    stated_sides,
)
from pbe.acquisition.importers.shapes import bounds_box, polygon_box, rotated_corners
from pbe.acquisition.importers.split_names import SplitFolders, SplitLists, split_in_file_name
from pbe.acquisition.importers.text_files import read_json
from pbe.errors import UserError
from pbe.settings import Acquire

_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # of uploaded files' names
_KINDS = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels")

Region = Mapping[str, Any]


def read_label_studio(settings: Acquire, counts: ImportCounts) -> Iterator[ImportedImage]:
    """Yield the images of Label Studio's JSON files; of a task's annotations the first that is not cancelled counts.

    Regions of other kinds, such as brushes and key points, are counted. Raises UserError naming the file and the task
    that is wrong.
    """
    root = folder_of(settings)
    folders, lists = SplitFolders(root), SplitLists(root)
    finder = ImageFinder(root, folders.of)
    num_files = 0
    for file in (path for path, _ in walk_files(root) if path.suffix.casefold() == ".json"):
        tasks = read_json(file)
        if not isinstance(tasks, list):
            counts.skipped["json_file_not_label_studio"] += 1
            continue
        num_files += 1
        split = split_in_file_name(file.stem) or folders.of(file.parent)
        for n, task in enumerate(tasks):
            where = f"{file}: task {n}"
            name = _image_name(task, where)
            regions = list(_regions(task, where, counts))
            if not regions:
                yield ImportedImage(Path(name), split, ())
                continue
            found = _find(finder, name, file, split, where)
            first = regions[0][1]
            stated = stated_sides(first.get("original_width"), first.get("original_height"))
            frame = frame_of(found.path, str(found.path), stated, where)
            boxes = [_box(label, region, frame.sides or (1.0, 1.0), place) for label, region, place in regions]
            of_path = split or lists.of(found.path) or folders.of(found.path.parent)
            placed = place_boxes(boxes, frame._replace(sides=frame.sides or (1.0, 1.0)), counts)
            yield ImportedImage(found.path, of_path, placed, found_by=found.found_by, name=name)
    if not num_files:
        raise UserError(f"{root}: the folder has no Label Studio file (*.json with a list of tasks)")


def _find(finder: ImageFinder, name: str, file: Path, split: str | None, where: str) -> Found:
    """Find a task's image, also under the name that it had before it was uploaded."""
    found = finder.find(name, (file.parent,), split, where)
    last = name.rsplit("/", 1)[-1]
    if found.found_by != "missing" or "/" not in name:
        return found
    for candidate in (last, _UPLOAD_PREFIX.sub("", last)):  # /data/upload/1/ is no folder of the user's
        found = finder.find(candidate, (file.parent,), split, where)
        if found.found_by != "missing":
            return found
    return found


def _image_name(task: Any, where: str) -> str:
    """Return the image that a task names: the only text of its data that has an image's key."""
    data = task.get("data", task) if isinstance(task, dict) else {}
    found = [data[key] for key in ("image", "img", "ocr", "picture") if isinstance(data, dict) and data.get(key)]
    if not found or not isinstance(found[0], str):
        raise UserError(f"{where}: no image in its data; the key is image")
    try:
        address = urlsplit(found[0])
    except ValueError:  # half of an IPv6 address
        raise UserError(f"{where}: {found[0]!r:.80} is not the address of an image") from None
    local = parse_qs(address.query).get("d")  # /data/local-files/?d=folder/0.jpg
    return local[0] if local else unquote(address.path if address.scheme else found[0])


def _regions(task: Any, where: str, counts: ImportCounts) -> Iterator[tuple[str, Region, str]]:
    """Yield each region's class, the region with its numbers, and where it is."""
    for n, result in enumerate(_results(task)):
        place = f"{where}: region {n}"
        if not isinstance(result, dict):
            raise UserError(f"{place} is not an object")
        value = result.get("value", result)
        kind = next((key for key in _KINDS if isinstance(value, dict) and isinstance(value.get(key), list)), None)
        if kind is None or not value[kind]:
            counts.skipped[f"region_{result.get('type', 'unknown')}"] += 1
            continue
        yield clean_label(value[kind][0], place), {**result, **value}, place


def _results(task: Any) -> list[Any]:
    annotations = task.get("annotations", task.get("completions"))
    if isinstance(annotations, list):
        kept = [each for each in annotations if isinstance(each, dict) and not each.get("was_cancelled")]
        found = kept[0].get("result") if kept else []
    else:
        found = task.get("label") or task.get("bbox")  # JSON-MIN
    return found if isinstance(found, list) else []


def _box(label: str, region: Region, sides: Sides, where: str) -> PixelBox:
    width, height = (side / 100 for side in sides)
    if isinstance(region.get("points"), list):
        points = [value for point in region["points"] for value in numbers(point, 2, f"{where}: points")]
        return polygon_box(label, [v * (height if n % 2 else width) for n, v in enumerate(points)], where)
    if region.get("radiusX") is not None:
        x, y, rx, ry = numbers([region.get(key) for key in ("x", "y", "radiusX", "radiusY")], 4, where)
        return bounds_box(label, ((x - rx) * width, (y - ry) * height, (x + rx) * width, (y + ry) * height), where)
    x, y, w, h = numbers([region.get(key) for key in ("x", "y", "width", "height")], 4, where)
    (degrees,) = numbers([region.get("rotation") or 0], 1, where)
    corner = x * width, y * height  # which Label Studio turns a rectangle about
    return bounds_box(label, rotated_corners(*corner, w * width, h * height, degrees, corner), where)
