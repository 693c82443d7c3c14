"""YOLO: data.yaml (path, train, val, names), and labels/ beside images/; a polygon is its object's mask."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from pbe.acquisition.importers.annotations import ImportedImage, folder_of
from pbe.acquisition.importers.image_names import (
    Found,
    ImageFinder,
    NameIndex,
    image_stem,
    is_absolute,
    is_image_name,
    name_parts,
    walk_files,
)
from pbe.acquisition.importers.placement import (
    Frame,
    ImportCounts,
    PixelBox,
    Sides,
    clean_label,
    frame_of,
    place_boxes,
)
from pbe.acquisition.importers.segmentations import polygon_outline
from pbe.acquisition.importers.split_names import TEST, SplitFolders
from pbe.acquisition.importers.text_files import read_lines, read_yaml
from pbe.acquisition.importers.yolo_rows import Layout, YoloRow, read_rows
from pbe.errors import UserError
from pbe.settings import Acquire

_SPLITS = (("train", "train"), ("val", "validation"), ("valid", "validation"), ("test", TEST))
_MAX_DIGITS = 9
_UNKNOWN = Frame((1.0, 1.0))  # of a picture that acquire will report as lost
_NO_LABELS = frozenset(("classes", "train", "val", "valid", "test"))
_NOTHING: tuple[Any, ...] = (None, "", "null", "~", [])


class _Config(NamedTuple):
    """What data.yaml says: the entries of each split, the classes, and the numbers of a pose."""

    path: Path
    base: Path
    entries: Mapping[str, list[str]]
    names: Mapping[int, str]
    num_keypoint_numbers: int


def read_yolo(settings: Acquire, counts: ImportCounts) -> Iterator[ImportedImage]:
    """Yield the images of a data.yaml as Ultralytics reads it; a picture listed twice in one split counts once.

    Counts images without a label file and label files without an image. Raises UserError naming the file and the line
    that is wrong.
    """
    root = folder_of(settings)
    config = _read_config(root)
    finder = ImageFinder(root, SplitFolders(root).of)
    labels = _LabelFiles(finder)
    images = [
        (found, name, split)
        for split, entries in config.entries.items()
        for found, name in _images(entries, split, config, finder, counts)
    ]
    label_files = {found.path: labels.of(found.path) for found, _, _ in images}
    _refuse_shared_labels(label_files)
    rows = {path: list(read_rows(file, config.names)) if file else [] for path, file in label_files.items()}
    counts.skipped["label_file_without_image"] += labels.num_unused()
    counts.adjusted.update(labels.found_by)
    layout = Layout.of((row for of_image in rows.values() for row in of_image), config.num_keypoint_numbers)
    for found, name, split in images:
        if label_files[found.path] is None and split != TEST:
            counts.skipped["image_without_label_file"] += 1
            continue
        frame = frame_of(found.path, str(found.path), None, str(config.path)) if rows[found.path] else _UNKNOWN
        frame = frame if frame.sides else _UNKNOWN
        boxes = [_box(row, layout, config.names, frame.sides or (1.0, 1.0)) for row in rows[found.path]]
        yield ImportedImage(found.path, split, place_boxes(boxes, frame, counts), found_by=found.found_by, name=name)


def _refuse_shared_labels(label_files: Mapping[Path, Path | None]) -> None:
    """Raise UserError naming two pictures that have one label file, such as 0.jpg and 0.png."""
    owners: dict[str, Path] = {}
    for image, labels in label_files.items():
        if labels is None or not image.is_file():
            continue
        owner = owners.setdefault(os.path.realpath(labels), image)
        if os.path.realpath(owner) != os.path.realpath(image):
            raise UserError(f"{labels}: it is the label file of {owner} and of {image}; rename one of them")


def _read_config(root: Path) -> _Config:
    files = [root / "data.yaml", *sorted((*root.glob("*.yaml"), *root.glob("*.yml")))]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        return _config_without_yaml(root)
    content = read_yaml(path)
    if not isinstance(content, dict) or "names" not in content or content.get("train") in _NOTHING:
        raise UserError(f"{path}: it needs the keys train (a folder of images) and names (the classes)")
    entries: dict[str, list[str]] = {}
    for key, split in _SPLITS:
        entry = content.get(key)
        if entry in _NOTHING or (key != "train" and entry == content["train"]):
            continue
        items = entry if isinstance(entry, list) else [entry]
        if not all(isinstance(item, str) for item in items):
            raise UserError(f"{path}: {key}: it must be a folder of images, a list of them, or several of these")
        entries[split] = [*entries.get(split, []), *items]
    base = content.get("path") or "."
    if not isinstance(base, str):
        raise UserError(f"{path}: path: it must be a folder")
    folder = root / base if os.path.isdir(root / base) else root
    return _Config(path, folder, entries, _names(content["names"], path), _keypoints(content.get("kpt_shape"), path))


def _config_without_yaml(root: Path) -> _Config:
    """Read the layout that Label Studio exports: images/, labels/ and classes.txt."""
    path = root / "classes.txt"
    if not path.is_file():
        raise UserError(f"{root}: the folder has no data.yaml, which names the folders of images and the classes")
    names = [clean_label(line, f"{path}: line {number}") for number, line in read_lines(path)]
    return _Config(path, root, {"train": ["images"]}, dict(enumerate(names)), 0)


def _names(names: Any, path: Path) -> dict[int, str]:
    if not isinstance(names, list | dict):
        raise UserError(f"{path}: names is neither a list nor a mapping of classes")
    found: dict[int, str] = {}
    for key, name in names.items() if isinstance(names, dict) else enumerate(names):
        if not str(key).strip().isdecimal() or len(str(key)) > _MAX_DIGITS:
            raise UserError(f"{path}: names: {key!r:.60} is not a class number")
        if not isinstance(name, str):
            raise UserError(f"{path}: names: {key}: the class is not a name")
        found[int(key)] = clean_label(name, f"{path}: names: {key}")
    return found


def _keypoints(shape: Any, path: Path) -> int:
    """Return how many numbers of a row are keypoints, by kpt_shape: [points, 2 or 3]."""
    if shape in _NOTHING:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(_is_count(value) for value in shape):
        raise UserError(f"{path}: kpt_shape: it must be [number of points, 2 or 3]")
    return int(shape[0]) * int(shape[1])


def _is_count(value: Any) -> bool:
    return isinstance(value, str) and value.isdecimal() and len(value) <= _MAX_DIGITS


def _images(
    entries: list[str], split: str, config: _Config, finder: ImageFinder, counts: ImportCounts
) -> Iterator[tuple[Found, str]]:
    """Yield each image once of folders and of lists in text files."""
    seen: set[str] = set()
    for entry in (entry for entry in entries if _is_needed(entry, split, config)):
        for found, name in _entry_images(entry, config, finder):
            key = os.path.realpath(found.path)
            if key in seen:
                counts.skipped["image_listed_twice"] += 1
            else:
                yield found, name
            seen.add(key)


def _entry_images(entry: str, config: _Config, finder: ImageFinder) -> Iterator[tuple[Found, str]]:
    place = _place(entry, config)
    if place is None:
        raise UserError(f"{config.path}: {config.base / entry} is neither a folder of images nor a list of them")
    if place.is_dir():
        for path, _ in walk_files(place):
            if is_image_name(path.name):
                yield Found(path), path.name
        return
    for number, line in read_lines(place):
        yield finder.find(line, (config.base, place.parent), None, f"{place}: line {number}"), line


def _is_needed(entry: str, split: str, config: _Config) -> bool:
    """Return whether an entry must exist; Roboflow names a test folder that it does not export."""
    return split != TEST or _place(entry, config) is not None


def _place(entry: str, config: _Config) -> Path | None:
    """Return the folder or the list that an entry names; below the root, where it was written below another one."""
    parts = name_parts(entry)
    places = [config.base / entry, config.path.parent / entry, config.base.joinpath(*parts)]
    places += [config.base.joinpath(*parts[start:]) for start in range(len(parts)) if is_absolute(entry)]
    return next((place for place in places if os.path.exists(place)), None)


class _LabelFiles:
    """Finds the label file of an image: labels/ in place of the last images/ of its path, else beside it."""

    def __init__(self, finder: ImageFinder) -> None:
        files = [path for path, _ in walk_files(finder.root) if path.suffix.casefold() == ".txt"]
        self._root, self._finder = finder.root, finder
        self._files = {path.absolute().with_name(f"{path.stem}.jpg"): path for path in files}
        self._names = NameIndex(Path("/"), list(self._files))
        self._folders: set[str] = set()
        self._used: set[str] = set()
        self.found_by = Counter[str]()

    def of(self, image: Path) -> Path | None:
        """Return the label file of an image, in whatever form its name was written, or None."""
        folder = _label_folder(image.parent)
        for place in dict.fromkeys((folder, image.parent)):
            exact = place / f"{image_stem(image.name)}.txt"
            found = exact if os.path.isfile(exact) else self._similar(place, image)
            if found is not None:
                self._used.add(os.path.realpath(found))
                self._folders.add(os.path.realpath(found.parent))
                return found
        return None

    def num_unused(self) -> int:
        """Return how many label files have no image, in the folders called labels and those of other label files."""
        return sum(self._is_unused(path) for path in self._files.values())

    def _is_unused(self, path: Path) -> bool:
        if path.stem.casefold() in _NO_LABELS or os.path.realpath(path) in self._used:
            return False
        folders = path.relative_to(self._root).parts[:-1]
        if "labels" not in map(str.casefold, folders) and os.path.realpath(path.parent) not in self._folders:
            return False
        images = (_swap_last(folders, "labels", "images"), folders)
        return not any(self._finder.fits((*place, f"{path.stem}.jpg")) for place in images)

    def _similar(self, place: Path, image: Path) -> Path | None:
        wanted = place.absolute() / f"{image_stem(image.name)}.jpg"
        fitting, form = self._names.find(wanted.parts[1:])
        if len(fitting) != 1:
            return None
        self.found_by[f"label_files_found_by_{form}"] += 1
        return self._files[fitting[0]]


def _label_folder(folder: Path) -> Path:
    return Path(*_swap_last(folder.parts, "images", "labels"))


def _swap_last(parts: tuple[str, ...], old: str, new: str) -> tuple[str, ...]:
    """Replace the last folder called `old`, in whatever case."""
    names = [part.casefold() for part in parts]
    if old not in names:
        return parts
    place = len(parts) - 1 - names[::-1].index(old)
    return (*parts[:place], new, *parts[place + 1 :])


def _box(row: YoloRow, layout: Layout, names: Mapping[int, str], sides: Sides) -> PixelBox:
    label = names[row.label]
    shape = layout.shape_of(row)
    width, height = sides
    if not shape.is_polygon:
        x, y, w, h = shape.numbers
        return PixelBox(label, ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height))
    points = [value * side for value, side in zip(shape.numbers, cycle(sides))]
    xyxy = min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])
    return PixelBox(label, xyxy, outline=polygon_outline([points], row.where) if shape.has_outline else None)
