"""The photographs of the recipe, in one file: FOD-A's frames (MIT) and Caltech 101's pictures (CC BY 4.0).

FOD-A's frames of a clip are nearly alike: of its training clips every second frame is packed, of those held back every
fifth. No picture under CC BY-SA is packed, because the weights are published under another licence.
"""

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image as PillowImage

from pbe.errors import UserError
from pbe.runtime.files import atomic_file
from pbe.types import Box, Image

INDEX = "index.jsonl"
TRAIN_EVERY, HELD_BACK_EVERY = 2, 5


@dataclass(frozen=True)
class Photo:
    """A photograph with one box. `clip` names the clip of FOD-A, or the picture itself."""

    file: str
    split: str  # train | val
    label: str
    clip: str
    box: Box


class PhotoSet:
    """The photographs of a packed file, decoded when they are asked for."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"{path}: no packed photographs; make them with --fod-a DIR --photos DIR")
        self._archive = zipfile.ZipFile(path)
        rows = self._archive.read(INDEX).decode().splitlines()
        self.photos = [Photo(**(row | {"box": tuple(row["box"])})) for row in map(json.loads, rows)]
        self.read = lru_cache(maxsize=2048)(self._read)

    def of(self, split: str) -> list[Photo]:
        return [photo for photo in self.photos if photo.split == split]

    def _read(self, file: str) -> Image:
        return np.asarray(PillowImage.open(io.BytesIO(self._archive.read(file))).convert("RGB"))


def pack(fod_a: Path, photos: Path, out: Path) -> dict[str, int]:
    """Write the photographs of both folders to the zip file `out` and return the number of boxes of each split.

    Raises UserError when a folder is not what it should be.
    """
    _check_file(fod_a / "scenes.csv", "--fod-a names FOD-A as Pascal VOC, with the clip of each frame")
    for split in ("train", "val"):
        _check_file(photos / "annotations" / f"instances_{split}.json", "--photos names a folder in COCO's layout")
    rows = [*_fod_a(fod_a), *_caltech(photos)]
    with atomic_file(out) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for photo, path in rows:
            if photo.file not in archive.NameToInfo:
                archive.writestr(zipfile.ZipInfo(photo.file), path.read_bytes())
        index = "".join(json.dumps(asdict(photo)) + "\n" for photo, _ in rows)
        archive.writestr(zipfile.ZipInfo(INDEX), index)
    return {split: sum(photo.split == split for photo, _ in rows) for split in ("train", "val")}


def _check_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such file; {expected}")


def _fod_a(folder: Path) -> Iterator[tuple[Photo, Path]]:
    with (folder / "scenes.csv").open() as file:
        frames = list(csv.DictReader(file))
    seen: dict[str, int] = {}
    for frame in frames:
        clip = f"{frame['label']}/{frame['scene']}"
        position = seen[clip] = seen.get(clip, -1) + 1
        if position % (TRAIN_EVERY if frame["split"] == "train" else HELD_BACK_EVERY):
            continue
        tree = ElementTree.parse(folder / "Annotations" / f"{frame['image']}.xml")
        for node in tree.iterfind("object"):
            corners = [float(node.findtext(f"bndbox/{k}") or 0) for k in ("xmin", "ymin", "xmax", "ymax")]
            x0, y0, x1, y1 = (round(v) for v in corners)
            path = folder / "JPEGImages" / f"{frame['image']}.jpg"
            label = node.findtext("name") or ""
            yield (
                Photo(f"fod-a/{path.name}", frame["split"], label, clip, (max(0, x0 - 1), max(0, y0 - 1), x1, y1)),
                path,
            )


def _caltech(folder: Path) -> Iterator[tuple[Photo, Path]]:
    for split in ("train", "val"):
        table = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
        names = {row["id"]: row["name"] for row in table["categories"]}
        files = {row["id"]: row["file_name"] for row in table["images"]}
        for row in table["annotations"]:
            file = files[row["image_id"]]
            if file.startswith("images/caltech-101/"):
                x, y, width, height = row["bbox"]
                box = (round(x), round(y), round(x + width), round(y + height))
                name = file.removeprefix("images/")
                yield Photo(name, split, names[row["category_id"]], name, box), folder / file
