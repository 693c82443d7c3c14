"""COCO's instance files: images, annotations and categories in *.json; of a folder of many, those called instances*.

An annotation's segmentation, polygons or run lengths, becomes its object's mask.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pbe.acquisition.importers.annotations import (
    ImageFinder,
    OwnBox,
    OwnImage,
    folder_of,
    numbers,
    shares,
    sides_of,
    split_in,
)
from pbe.acquisition.importers.segmentations import pack_polygons, pack_runs
from pbe.errors import UserError
from pbe.settings import Acquire


def read_coco(settings: Acquire, skipped: Counter[str]) -> Iterator[OwnImage]:
    """Images of COCO's instance files; iscrowd becomes IsGroupOf."""
    root = folder_of(settings)
    files = sorted(p for p in root.rglob("*.json") if len(p.relative_to(root).parts) <= 3)
    files = [p for p in files if p.name.startswith("instances")] or files
    if not files:
        raise UserError(f"{root}: no COCO file (*.json) here")
    find = ImageFinder(root)
    for file in files:
        split = split_in(file.relative_to(root))
        coco = _read_json(file)
        names = {c["id"]: str(c["name"]) for c in _rows(coco, "categories", ("id", "name"), file)}
        images = {i["id"]: i for i in _rows(coco, "images", ("id", "file_name"), file)}
        boxes: dict[Any, list[OwnBox]] = defaultdict(list)
        sides: dict[Any, tuple[float, float]] = {}
        paths = {k: find(str(i["file_name"]), file.parent, split, str(file)) for k, i in images.items()}
        for n, a in enumerate(_rows(coco, "annotations", ("image_id", "category_id", "bbox"), file)):
            where = f"{file}: annotations[{n}]"
            key = a["image_id"]
            if key not in images:
                raise UserError(f"{where}: image_id {key!r} is not among the images")
            if a["category_id"] not in names:
                raise UserError(f"{where}: category_id {a['category_id']!r} is not among the categories")
            if key not in sides:
                sides[key] = _coco_sides(images[key], paths[key], where)
            x, y, w, h = numbers(a["bbox"], 4, f"{where}: bbox")
            xyxy = x, y, x + w, y + h
            mask = _object_mask(a.get("segmentation"), xyxy, sides[key], f"{where}: segmentation", skipped)
            is_crowd = bool(a.get("iscrowd", 0))
            label = names[a["category_id"]]
            boxes[key].append(OwnBox(label, shares(xyxy, sides[key]), is_group_of=is_crowd, object_mask=mask))
        yield from (OwnImage(paths[key], split, boxes[key]) for key in images if boxes[key])


def _object_mask(
    segmentation: Any, xyxy: Sequence[float], sides: tuple[float, float], where: str, skipped: Counter[str]
) -> bytes | None:
    """The packed mask of an annotation; None, and counted, where its outline holds no pixel."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        mask = pack_runs(segmentation, xyxy, sides, where)
    elif isinstance(segmentation, list):
        mask = pack_polygons([numbers(polygon, None, where) for polygon in segmentation], xyxy, where)
    else:
        raise UserError(f"{where}: {segmentation!r} is neither a list of polygons nor run lengths")
    skipped["empty_mask"] += mask is None
    return mask


def _coco_sides(image: Mapping[str, Any], path: Path, where: str) -> tuple[float, float]:
    """The sides that the boxes are measured in; raises UserError where the file's are in another proportion."""
    real = sides_of(path)
    said = image.get("width"), image.get("height")
    if not all(isinstance(side, int | float) and side > 0 for side in said):
        return real
    width, height = float(said[0]), float(said[1])  # type: ignore[arg-type]
    if real != (1, 1) and abs(math.log(width / height * real[1] / real[0])) > 0.05:
        raise UserError(
            f"{where}: annotated at {width:g} x {height:g} px, but {path} is upright {real[0]} x {real[1]} px"
        )
    return width, height


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a JSON file: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a COCO file: an object with images, annotations and categories is expected")
    return content


def _rows(coco: Mapping[str, Any], key: str, needed: Sequence[str], file: Path) -> list[dict[str, Any]]:
    rows = coco.get(key)
    if not isinstance(rows, list):
        raise UserError(f"{file}: no list {key!r}; a COCO file has images, annotations and categories")
    for n, row in enumerate(rows):
        missing = [name for name in needed if not isinstance(row, dict) or name not in row]
        if missing:
            raise UserError(f"{file}: {key}[{n}] has no {missing[0]!r}")
    return rows
