"""People's own boxes, in the four formats they come in, told in OpenImages' columns.

coco    *.json with images, annotations and categories; of a folder of many, those called instances*
yolo    data.yaml (path, train, val, names), labels/ beside images/; polygons count as the box around them
voc     Annotations/*.xml, JPEGImages/, and ImageSets/Main/{train,val}.txt where there are any
csv     boxes.csv: image, label, x0, y0, x1, y1 in pixels, and split where there is one

A file or row that says train or val(id) is taken at its word; where nothing says so, a share of the images drawn by the
seed is for validation. Everything is read from `root`, and nothing is written there.
"""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from pbe.data import openimages
from pbe.data.images import image_size
from pbe.data.openimages import SPLITS, draw_ranks, image_key
from pbe.settings import Acquire

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"))


@dataclass(frozen=True)
class OwnBox:
    """One box: sides as shares of the image's, 0..1, before any check of their sense."""

    label: str
    xyxy: tuple[float, float, float, float]
    is_occluded: bool = False
    is_truncated: bool = False
    is_group_of: bool = False


@dataclass(frozen=True)
class OwnImage:
    """One annotated image; `split` is None where nothing says which."""

    path: Path
    split: str | None
    boxes: Sequence[OwnBox]


def describe(settings: Acquire, root: Path, seed: int, out: Path) -> dict[str, Path]:
    """Write `{out}/annotations/*.csv` in OpenImages' columns; returns the file of each image by its key.

    Raises ValueError naming the file and the row or key that is missing or makes no sense.
    """
    images = list(READERS[settings.source](root))
    if not any(image.boxes for image in images):
        raise ValueError(f"{root}: no boxes found in the {settings.source} layout; see pbe/data/own.py's head")
    ids = _image_ids(root, [image.path for image in images])
    splits = [image.split or _draw_split(ids[image.path], settings.validation_frac, seed) for image in images]
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        rows = ((ids[i.path], box) for i, s in zip(images, splits, strict=True) if s == split for box in i.boxes)
        _write_boxes(out / "annotations" / openimages.BOX_FILES[split].name, settings.source, rows)
    labels = sorted({box.label for image in images for box in image.boxes})
    with (out / "annotations" / openimages.CLASSES_FILE.name).open("w", newline="") as file:
        csv.writer(file).writerows([openimages.CLASS_COLUMNS, *((label, label) for label in labels)])
    return {image_key(s, ids[i.path]): i.path for i, s in zip(images, splits, strict=True)}


def _write_boxes(path: Path, source: str, rows: Iterable[tuple[str, OwnBox]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(openimages.BOX_COLUMNS)
        for image_id, box in rows:
            x0, y0, x1, y1 = (f"{share:.9f}" for share in box.xyxy)
            flags = (box.is_occluded, box.is_truncated, box.is_group_of, False)
            writer.writerow([image_id, source, box.label, 1, x0, x1, y0, y1, *(int(flag) for flag in flags), 0])


def _image_ids(root: Path, paths: Sequence[Path]) -> dict[Path, str]:
    """File names without suffix, or paths with __ for / where two images share a name."""
    by_stem: dict[str, set[Path]] = defaultdict(set)
    for path in paths:
        by_stem[path.stem].add(path)
    if all(len(found) == 1 for found in by_stem.values()):
        return {path: path.stem for path in paths}
    return {path: "__".join(path.relative_to(root).with_suffix("").parts) for path in paths}


def _draw_split(image_id: str, validation_frac: float, seed: int) -> str:
    return "validation" if int(draw_ranks([f"split:{image_id}"], seed)[0]) < validation_frac * 2**64 else "train"


def _split_in(path: Path) -> str | None:
    """The split that a file's or a folder's name gives, if any; the nearest name decides."""
    for part in reversed(path.parts):
        name = part.casefold()
        if "train" in name and "val" not in name:
            return "train"
        if "val" in name and "train" not in name:
            return "validation"
    return None


def _sides(path: Path) -> tuple[float, float]:
    """Width and height of an image that the annotations give in pixels; 1 x 1 for one that acquire will report lost."""
    try:
        return image_size(path)
    except ValueError:
        return 1, 1


class _ImageFinder:
    """Finds the file that an annotation means: by its path from one of the likely folders, else by its name alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                self._by_name[path.name].append(path)

    def __call__(self, name: str, beside: Path, split: str | None, said_in: str) -> Path:
        """Raises ValueError when several files could be meant; a file that is nowhere is left for acquire to report."""
        likely = [folder / name for folder in (beside, self.root, self.root / "images", self.root / "JPEGImages")]
        for path in likely:
            if path.is_file():
                return path
        found = self._by_name[Path(name).name]
        of_split = [path for path in found if split and _split_in(path.relative_to(self.root).parent) == split]
        found = of_split or found
        if len(found) > 1:
            shown = ", ".join(str(path.relative_to(self.root)) for path in found[:3])
            raise ValueError(f"{said_in}: {name!r} may be {shown}; give its path from {self.root}")
        return found[0] if found else likely[1]


# --- COCO -----------------------------------------------------------------------------------------------------------


def read_coco(root: Path) -> Iterator[OwnImage]:
    """Images of COCO's instance files; iscrowd becomes IsGroupOf."""
    files = sorted(p for p in root.rglob("*.json") if len(p.relative_to(root).parts) <= 3)
    files = [p for p in files if p.name.startswith("instances")] or files
    if not files:
        raise ValueError(f"{root}: no COCO file (*.json) here")
    find = _ImageFinder(root)
    for file in files:
        split = _split_in(file.relative_to(root))
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
                raise ValueError(f"{where}: image_id {key!r} is not among the images")
            if a["category_id"] not in names:
                raise ValueError(f"{where}: category_id {a['category_id']!r} is not among the categories")
            if key not in sides:
                sides[key] = _coco_sides(images[key], paths[key], where)
            x, y, w, h = _numbers(a["bbox"], 4, f"{where}: bbox")
            box = _shares((x, y, x + w, y + h), sides[key])
            boxes[key].append(OwnBox(names[a["category_id"]], box, is_group_of=bool(a.get("iscrowd", 0))))
        yield from (OwnImage(paths[key], split, boxes[key]) for key in images if boxes[key])


def _coco_sides(image: Mapping[str, Any], path: Path, where: str) -> tuple[float, float]:
    """The sides that the boxes are measured in; raises ValueError where the file's are in another proportion."""
    real = _sides(path)
    said = image.get("width"), image.get("height")
    if not all(isinstance(side, int | float) and side > 0 for side in said):
        return real
    width, height = float(said[0]), float(said[1])  # type: ignore[arg-type]
    if real != (1, 1) and abs(math.log(width / height * real[1] / real[0])) > 0.05:
        raise ValueError(
            f"{where}: annotated at {width:g} x {height:g} px, but {path} is upright {real[0]} x {real[1]} px"
        )
    return width, height


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a COCO file: an object with images, annotations and categories is expected")
    return content


def _rows(coco: Mapping[str, Any], key: str, needed: Sequence[str], file: Path) -> list[dict[str, Any]]:
    rows = coco.get(key)
    if not isinstance(rows, list):
        raise ValueError(f"{file}: no list {key!r}; a COCO file has images, annotations and categories")
    for n, row in enumerate(rows):
        missing = [name for name in needed if not isinstance(row, dict) or name not in row]
        if missing:
            raise ValueError(f"{file}: {key}[{n}] has no {missing[0]!r}")
    return rows


# --- YOLO -----------------------------------------------------------------------------------------------------------


def read_yolo(root: Path) -> Iterator[OwnImage]:
    """Images of a data.yaml as Ultralytics reads it."""
    config = next((p for p in (root / "data.yaml", *sorted(root.glob("*.yaml"))) if p.is_file()), None)
    if config is None:
        raise ValueError(f"{root}: no data.yaml here; it names the folders of images and the classes")
    try:
        described = yaml.safe_load(config.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{config}: not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(described, dict) or "names" not in described or "train" not in described:
        raise ValueError(f"{config}: it must name train (a folder of images) and names (the classes)")
    names = described["names"]
    names = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    base = root / str(described.get("path") or ".")
    base = base if base.is_dir() else root
    has_val = bool(described.get("val")) and described.get("val") != described["train"]
    for key, split in (("train", "train" if has_val else None), ("val", "validation")):
        if key == "val" and not has_val:
            continue
        for path in _yolo_images(described[key], base, config):
            boxes = list(_yolo_boxes(_label_file(path), names))
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
            raise ValueError(f"{config}: {place} is neither a folder of images nor a list of them")


def _label_file(image: Path) -> Path:
    """labels/ in place of the last images/ of the path."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _yolo_boxes(path: Path, names: Mapping[Any, Any]) -> Iterator[OwnBox]:
    if not path.is_file():  # an image without objects
        return
    for n, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f"{path}: line {n}"
        if not words[0].isdigit() or int(words[0]) not in names:
            raise ValueError(f"{where}: class {words[0]!r} is not among the names of data.yaml")
        numbers = _numbers(words[1:], None, where)
        if len(numbers) in (4, 5):  # the fifth is a confidence
            x, y, w, h = numbers[:4]
            box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        elif len(numbers) >= 6 and len(numbers) % 2 == 0:
            box = (min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2]))
        else:
            raise ValueError(f"{where}: {len(numbers)} numbers are neither a box (x y w h) nor a polygon")
        yield OwnBox(str(names[int(words[0])]), box)


# --- Pascal VOC -----------------------------------------------------------------------------------------------------


def read_voc(root: Path) -> Iterator[OwnImage]:
    """Images of Pascal VOC's XML files, pixels from 1 and inclusive; its flags truncated and occluded are kept."""
    folder = root / "Annotations"
    files = sorted((folder if folder.is_dir() else root).rglob("*.xml"))
    if not files:
        raise ValueError(f"{folder}: no VOC file (*.xml) here")
    find = _ImageFinder(root)
    listed = _voc_splits(root / "ImageSets" / "Main")
    for file in files:
        try:
            tree = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as error:
            raise ValueError(f"{file}: not an XML file: {error}") from None
        split = listed.get(file.stem, _split_in(file.relative_to(root)))
        name = tree.findtext("filename") or f"{file.stem}.jpg"
        path = find(name, file.parent, split, str(file))
        sides = _sides(path)
        boxes = [_voc_box(o, sides, f"{file}: object {n}") for n, o in enumerate(tree.findall("object"), 1)]
        if boxes:
            yield OwnImage(path, split, boxes)


def _voc_box(found: ElementTree.Element, sides: tuple[float, float], where: str) -> OwnBox:
    label = found.findtext("name")
    if not label:
        raise ValueError(f"{where} has no name")
    corners = []
    for key in ("xmin", "ymin", "xmax", "ymax"):
        text = found.findtext(f"bndbox/{key}")
        if text is None:
            raise ValueError(f"{where}, {label}: no bndbox/{key}")
        corners.append(text)
    x0, y0, x1, y1 = _numbers(corners, 4, f"{where}, {label}")
    flags = {flag: (found.findtext(flag) or "0").strip() == "1" for flag in ("occluded", "truncated")}
    box = _shares((x0 - 1, y0 - 1, x1, y1), sides)
    return OwnBox(label, box, is_occluded=flags["occluded"], is_truncated=flags["truncated"])


def _voc_splits(folder: Path) -> dict[str, str]:
    names = {"train": "train", "val": "validation"}
    lists = {split: folder / f"{name}.txt" for name, split in names.items()}
    return {
        line.split()[0]: split
        for split, path in lists.items()
        if path.is_file()
        for line in path.read_text().splitlines()
        if line.strip()
    }


# --- CSV ------------------------------------------------------------------------------------------------------------

_CSV_COLUMNS = ("image", "label", "x0", "y0", "x1", "y1")


def read_csv(root: Path) -> Iterator[OwnImage]:
    """Images of boxes.csv, a row a box, in pixels, the far side exclusive."""
    path = root / "boxes.csv"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; its columns are {', '.join(_CSV_COLUMNS)}, and split if you have one")
    find = _ImageFinder(root)
    boxes: dict[tuple[Path, str | None], list[OwnBox]] = defaultdict(list)
    sides: dict[Path, tuple[float, float]] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [column for column in _CSV_COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            found = ", ".join(reader.fieldnames or ()) or "none"
            raise ValueError(f"{path}: column {', '.join(missing)} is missing; columns found: {found}")
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            split = _csv_split(row.get("split"), where)
            image = find(row["image"], root, split, where)
            sides.setdefault(image, _sides(image))
            x0, y0, x1, y1 = _numbers([row[c] for c in _CSV_COLUMNS[2:]], 4, where)
            boxes[image, split].append(OwnBox(row["label"], _shares((x0, y0, x1, y1), sides[image])))
    yield from (OwnImage(image, split, found) for (image, split), found in boxes.items())


def _csv_split(value: str | None, where: str) -> str | None:
    if not value:
        return None
    if value not in ("train", "val", "valid", "validation"):
        raise ValueError(f"{where}: split {value!r} is neither train nor validation")
    return "train" if value == "train" else "validation"


# --- all ------------------------------------------------------------------------------------------------------------


def _shares(xyxy: tuple[float, float, float, float], sides: tuple[float, float]) -> tuple[float, float, float, float]:
    width, height = sides
    return xyxy[0] / width, xyxy[1] / height, xyxy[2] / width, xyxy[3] / height


def _numbers(values: Any, count: int | None, where: str) -> list[float]:
    if not isinstance(values, list) or (count is not None and len(values) != count):
        raise ValueError(f"{where}: {values!r} are not {count} numbers")
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {values!r} are not all numbers") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{where}: {values!r} are not all finite")
    return numbers


READERS: dict[str, Callable[[Path], Iterator[OwnImage]]] = {
    "coco": read_coco,
    "yolo": read_yolo,
    "voc": read_voc,
    "csv": read_csv,
}
