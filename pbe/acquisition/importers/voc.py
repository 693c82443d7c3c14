"""Pascal VOC: Annotations/*.xml, JPEGImages/, and ImageSets/Main/{train,val}.txt where there are any."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

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
from pbe.errors import UserError
from pbe.settings import Acquire


def read_voc(settings: Acquire, skipped: Counter[str]) -> Iterator[OwnImage]:
    """Images of Pascal VOC's XML files, pixels from 1 and inclusive; its flags truncated and occluded are kept."""
    root = folder_of(settings)
    folder = root / "Annotations"
    files = sorted((folder if folder.is_dir() else root).rglob("*.xml"))
    if not files:
        raise UserError(f"{folder}: no VOC file (*.xml) here")
    find = ImageFinder(root)
    listed = _voc_splits(root / "ImageSets" / "Main")
    for file in files:
        try:
            tree = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as error:
            raise UserError(f"{file}: not an XML file: {error}") from None
        split = listed.get(file.stem, split_in(file.relative_to(root)))
        name = tree.findtext("filename") or f"{file.stem}.jpg"
        path = find(name, file.parent, split, str(file))
        sides = sides_of(path)
        boxes = [_voc_box(o, sides, f"{file}: object {n}") for n, o in enumerate(tree.findall("object"), 1)]
        if boxes:
            yield OwnImage(path, split, boxes)


def _voc_box(found: ElementTree.Element, sides: tuple[float, float], where: str) -> OwnBox:
    label = found.findtext("name")
    if not label:
        raise UserError(f"{where} has no name")
    corners = []
    for key in ("xmin", "ymin", "xmax", "ymax"):
        text = found.findtext(f"bndbox/{key}")
        if text is None:
            raise UserError(f"{where}, {label}: no bndbox/{key}")
        corners.append(text)
    x0, y0, x1, y1 = numbers(corners, 4, f"{where}, {label}")
    flags = {flag: (found.findtext(flag) or "0").strip() == "1" for flag in ("occluded", "truncated")}
    box = shares((x0 - 1, y0 - 1, x1, y1), sides)
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
