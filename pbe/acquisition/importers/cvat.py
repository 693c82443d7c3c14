"""CVAT's own format, "CVAT for images": an XML file of images with boxes, polygons and ellipses."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

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
from pbe.acquisition.importers.shapes import bounds_box, polygon_box, rotated_corners
from pbe.acquisition.importers.split_names import SplitFolders, SplitLists, split_word
from pbe.acquisition.importers.text_files import read_xml
from pbe.errors import UserError
from pbe.settings import Acquire

_OTHER_SHAPES = ("points", "polyline", "cuboid", "skeleton", "tag", "mask")  # counted


def read_cvat(settings: Acquire, counts: ImportCounts) -> Iterator[ImportedImage]:
    """Yield the images of CVAT's XML files; an image's subset says its split, `occluded` is kept.

    Shapes without an area, and masks, are counted. Raises UserError naming the file and the image that is wrong.
    """
    root = folder_of(settings)
    folders, lists = SplitFolders(root), SplitLists(root)
    finder = ImageFinder(root, folders.of)
    files = [path for path, _ in walk_files(root) if path.suffix.casefold() == ".xml"]
    if not files:
        raise UserError(f"{root}: the folder has no CVAT file (*.xml)")
    for file in files:
        tree = read_xml(file)
        if tree.tag != "annotations":
            raise UserError(f"{file}: not a CVAT file, whose root is <annotations>")
        if tree.find("track") is not None:
            raise UserError(f'{file}: it holds tracks of a video; export the job as "CVAT for images"')
        for image in tree.findall("image"):
            name = image.get("name") or ""
            where = f"{file}: image {name!r}"
            split = split_word(image.get("subset") or "")
            shapes = list(_boxes(image, where, counts))
            if not shapes:
                yield ImportedImage(Path(name), split, ())
                continue
            found = finder.find(name, (file.parent,), split, where)
            frame = frame_of(found.path, str(found.path), stated_sides(image.get("width"), image.get("height")), where)
            split = split or lists.of(found.path) or folders.of(found.path.parent)
            placed = place_boxes(shapes, frame, counts)
            yield ImportedImage(found.path, split, placed, found_by=found.found_by, name=name)


def _boxes(image: ElementTree.Element, where: str, counts: ImportCounts) -> Iterator[PixelBox]:
    for number, shape in enumerate(image, 1):
        if shape.tag in _OTHER_SHAPES:
            counts.skipped[f"shape_{shape.tag}"] += 1
            continue
        place = f"{where}: {shape.tag} {number}"
        label = clean_label(shape.get("label"), place)
        flags = frozenset(("is_occluded",)) if shape.get("occluded") == "1" else frozenset[str]()
        if shape.tag == "box":
            yield bounds_box(label, _corners(shape, place), place, flags)
        elif shape.tag == "polygon":
            points = (shape.get("points") or "").replace(";", ",").split(",")
            yield polygon_box(label, numbers(points, None, place), place, flags)
        elif shape.tag == "ellipse":
            cx, cy, rx, ry = _attributes(shape, ("cx", "cy", "rx", "ry"), place)
            yield bounds_box(label, (cx - rx, cy - ry, cx + rx, cy + ry), place, flags)
        else:
            counts.skipped[f"shape_{shape.tag}"] += 1


def _corners(shape: ElementTree.Element, where: str) -> list[float]:
    x0, y0, x1, y1 = _attributes(shape, ("xtl", "ytl", "xbr", "ybr"), where)
    (degrees,) = numbers([shape.get("rotation") or "0"], 1, where)
    return rotated_corners(x0, y0, x1 - x0, y1 - y0, degrees, ((x0 + x1) / 2, (y0 + y1) / 2))


def _attributes(shape: ElementTree.Element, names: tuple[str, ...], where: str) -> list[float]:
    missing = [name for name in names if shape.get(name) is None]
    if missing:
        raise UserError(f"{where}: no attribute {missing[0]!r}")
    return numbers([shape.get(name) for name in names], len(names), where)
