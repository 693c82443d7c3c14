"""Pascal VOC: Annotations/*.xml, JPEGImages/, and optionally the lists of ImageSets/Main; at the root or below it."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from pbe.acquisition.importers.annotations import ImportedImage, folder_of, numbers
from pbe.acquisition.importers.image_names import Found, ImageFinder, image_stem, walk_files
from pbe.acquisition.importers.placement import (
    ImportCounts,
    PixelBox,
    UnitCheck,
    clean_label,
    frame_of,
    place_boxes,
    stated_sides,
)
from pbe.acquisition.importers.split_names import SplitFolders, SplitLists
from pbe.acquisition.importers.text_files import read_xml
from pbe.errors import UserError
from pbe.settings import Acquire

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(settings: Acquire, counts: ImportCounts) -> Iterator[ImportedImage]:
    """Yield the images of Pascal VOC's XML files; the flags truncated and occluded are kept.

    Pixels count from `acquire.voc_origin`: from 1, both sides inclusive, or from 0, the far side exclusive; auto takes
    0 when a box of the set begins before 1, or when one begins between pixels and none exactly at 1, where boxes are
    clipped that count from 1.
    """
    root = folder_of(settings)
    trees = list(_trees(root, counts))
    folders, lists_of = SplitFolders(root), cache(lambda folder: SplitLists(folder, root))
    finder, units = ImageFinder(root, folders.of), UnitCheck()
    objects = {path: list(_objects(path, tree)) for path, tree in trees}
    origin = _origin(settings, [box for boxes in objects.values() for box in boxes])
    claims = Counter((path.parent, _file_name(path, tree)) for path, tree in trees)
    for path, tree in trees:
        name = _file_name(path, tree)
        lists = lists_of(path.parent.parent if path.parent != root else root)
        split = lists.of(path.with_suffix("")) or folders.of(path.parent)
        if not objects[path]:
            yield ImportedImage(Path(name), split, ())
            continue
        found = _find(finder, path, name, split, claims[path.parent, name] > 1)
        stated = stated_sides(tree.findtext("size/width"), tree.findtext("size/height"))
        frame = frame_of(found.path, str(found.path), stated, str(path))
        for n, box in enumerate(objects[path], 1):
            units.add(box.xyxy, f"{path}: object {n}")
        boxes = [_from_origin(box, origin) for box in objects[path]]
        split = split or lists.of(found.path) or folders.of(found.path.parent)
        yield ImportedImage(found.path, split, place_boxes(boxes, frame, counts), found_by=found.found_by, name=name)
    units.finish()


def _trees(root: Path, counts: ImportCounts) -> Iterator[tuple[Path, ElementTree.Element]]:
    """Yield VOC's files, those in folders called Annotations where there are any; counts the other XML files."""
    files = [path for path, _ in walk_files(root) if path.suffix.casefold() == ".xml"]
    files = [path for path in files if "Annotations" in path.relative_to(root).parts] or files
    if not files:
        raise UserError(f"{root / 'Annotations'}: the folder has no VOC file (*.xml)")
    num_voc = 0
    for path in files:
        tree = read_xml(path)
        if tree.tag == "annotation":
            num_voc += 1
            yield path, tree
        else:
            counts.skipped["xml_file_not_voc"] += 1
    if not num_voc:
        raise UserError(f"{files[0]}: not a VOC file, whose root is <annotation>")


def _file_name(path: Path, tree: ElementTree.Element) -> str:
    return (tree.findtext("filename") or "").strip() or path.stem


def _find(finder: ImageFinder, path: Path, name: str, split: str | None, is_shared: bool) -> Found:
    """Find the picture by its file name, else by the name of the XML file, which also decides where files share one."""
    set_root = path.parent.parent
    places = (path.parent, set_root / "JPEGImages", set_root / "images", set_root)
    found = finder.find(name, places, split, str(path))
    if image_stem(name) == path.stem or (found.found_by != "missing" and not is_shared):
        return found
    by_stem = finder.find(path.stem, places, split, str(path))
    return by_stem if by_stem.found_by != "missing" else found


def _objects(path: Path, tree: ElementTree.Element) -> Iterator[PixelBox]:
    """Yield a file's boxes as it states them."""
    for n, found in enumerate(tree.findall("object"), 1):
        label = clean_label(found.findtext("name"), f"{path}: object {n}")
        corners = []
        for key in _CORNERS:
            text = found.findtext(f"bndbox/{key}")
            if text is None:
                raise UserError(f"{path}: object {n}, {label}: bndbox/{key} is missing")
            corners.append(text)
        x0, y0, x1, y1 = numbers(corners, 4, f"{path}: object {n}, {label}")
        flags = (flag for flag in ("occluded", "truncated") if (found.findtext(flag) or "").strip() == "1")
        yield PixelBox(label, (x0, y0, x1, y1), frozenset(f"is_{flag}" for flag in flags))


def _origin(settings: Acquire, boxes: list[PixelBox]) -> int:
    if settings.voc_origin != "auto":
        return int(settings.voc_origin)
    begins = {value for box in boxes for value in box.xyxy[:2]}
    if min(begins, default=1) < 1:
        return 0
    return 0 if 1 not in begins and any(value % 1 for value in begins) else 1


def _from_origin(box: PixelBox, origin: int) -> PixelBox:
    x0, y0, x1, y1 = box.xyxy
    return PixelBox(box.label, (x0 - origin, y0 - origin, x1, y1), box.flags)
