"""YOLO: data.yaml (path, train, val, names), labels/ beside images/; a polygon is its object's mask."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml

from pbe.acquisition.importers.annotations import IMAGE_SUFFIXES, OwnBox, OwnImage, folder_of, numbers, sides_of
from pbe.acquisition.importers.segmentations import pack_polygons
from pbe.errors import UserError
from pbe.settings import Acquire


def read_yolo(settings: Acquire, skipped: Counter[str]) -> Iterator[OwnImage]:
    """Images of a data.yaml as Ultralytics reads it."""
    root = folder_of(settings)
    config = next((p for p in (root / "data.yaml", *sorted(root.glob("*.yaml"))) if p.is_file()), None)
    if config is None:
        raise UserError(f"{root}: no data.yaml here; it names the folders of images and the classes")
    try:
        described = yaml.safe_load(config.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{config}: not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(described, dict) or "names" not in described or "train" not in described:
        raise UserError(f"{config}: it must name train (a folder of images) and names (the classes)")
    names = described["names"]
    names = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    base = root / str(described.get("path") or ".")
    base = base if base.is_dir() else root
    for key, split in (("train", "train"), ("val", "validation")):
        if key == "val" and described.get("val") in (None, "", described["train"]):
            continue
        for path in _yolo_images(described[key], base, config):
            boxes = list(_yolo_boxes(path, names, skipped))
            if boxes:
                yield OwnImage(path, split, boxes)


def _yolo_images(entry: object, base: Path, config: Path) -> Iterator[Path]:
    """The images of a folder, of a list in a text file, or of several of these."""
    for item in entry if isinstance(entry, list) else [entry]:
        place = base / str(item)
        place = place if place.exists() else base / str(item).removeprefix("../")  # Roboflow's are one too high
        if place.is_file():
            yield from (base / line.strip() for line in place.read_text().splitlines() if line.strip())
        elif place.is_dir():
            yield from sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        else:
            raise UserError(f"{config}: {place} is neither a folder of images nor a list of them")


def _label_file(image: Path) -> Path:
    """labels/ in place of the last images/ of the path."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _yolo_boxes(image: Path, names: Mapping[Any, Any], skipped: Counter[str]) -> Iterator[OwnBox]:
    path, sides = _label_file(image), None
    if not path.is_file():  # an image without objects
        return
    for n, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f"{path}: line {n}"
        if not words[0].isdigit() or int(words[0]) not in names:
            raise UserError(f"{where}: class {words[0]!r} is not among the names of data.yaml")
        found = numbers(words[1:], None, where)
        mask = None
        if len(found) in (4, 5):  # the fifth is a confidence
            x, y, w, h = found[:4]
            box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        elif len(found) >= 6 and len(found) % 2 == 0:
            box = (min(found[::2]), min(found[1::2]), max(found[::2]), max(found[1::2]))
            sides = sides or sides_of(image)
            mask = pack_polygons([_in_pixels(found, sides)], _in_pixels(box, sides), where)
            skipped["empty_mask"] += mask is None
        else:
            raise UserError(f"{where}: {len(found)} numbers are neither a box (x y w h) nor a polygon")
        yield OwnBox(str(names[int(words[0])]), box, object_mask=mask)


def _in_pixels(points: Sequence[float], sides: tuple[float, float]) -> list[float]:
    return [share * side for share, side in zip(points, cycle(sides))]
