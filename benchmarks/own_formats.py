"""Compare the curated boxes of the same photographs in OpenImages' layout, COCO, YOLO and Pascal VOC.

    .venv/bin/python benchmarks/own_formats.py --photos ../shared/photos

Writes the three formats into a temporary folder, runs acquire, filter and curate on each as the pipeline does (with the
project's params.yaml, but without dropping boxes for a flag that some formats do not have), and compares the curated
boxes with those of OpenImages' layout. Exits with 1 when any differ.
"""

import argparse
import csv
import json
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from flows import environment

environment.apply()

import polars as pl  # noqa: E402
import yaml  # noqa: E402

from flows.acquire import acquire  # noqa: E402
from flows.curate import curate  # noqa: E402
from flows.filter import filter_  # noqa: E402
from pbe import layout  # noqa: E402
from pbe.dataset import openimages  # noqa: E402
from pbe.dataset.images import image_size  # noqa: E402
from pbe.dataset.openimages import SPLITS  # noqa: E402
from pbe.settings import Settings, load_settings  # noqa: E402

ROOT = Path(__file__).parents[1]
SHORT = {"train": "train", "validation": "val"}
COMPARED = ("split", "image_id", "label", "x0", "y0", "x1", "y1", "width", "height")


class Photo(NamedTuple):
    """One photograph and its boxes: class and (x0, y0, x1, y1) in pixels, not rounded."""

    path: Path
    split: str
    size: tuple[int, int]
    boxes: list[tuple[str, tuple[float, float, float, float]]]


def read_photos(root: Path) -> list[Photo]:
    """The photographs of a folder in OpenImages' layout, by split and name."""
    names = _named_classes(root)
    photos = []
    for split in SPLITS:
        rows = defaultdict(list)
        with _annotation(root, openimages.BOX_FILES[split]).open() as file:
            for row in csv.DictReader(file):
                rows[row["ImageID"]].append(row)
        for image_id, found in sorted(rows.items()):
            path = root / split / f"{image_id}.jpg"
            width, height = image_size(path)
            boxes = []
            for row in found:
                x0, x1, y0, y1 = (float(row[name]) for name in openimages.COORDINATES)
                boxes.append((names[row["LabelName"]], (x0 * width, y0 * height, x1 * width, y1 * height)))
            photos.append(Photo(path, split, (width, height), boxes))
    return photos


def _annotation(root: Path, file: openimages.AnnotationFile) -> Path:
    return next(path for name in file.aliases if (path := root / "annotations" / name).is_file())


def _named_classes(root: Path) -> dict[str, str]:
    return dict(openimages.read_classes(_annotation(root, openimages.CLASSES_FILE)).iter_rows())


def write_coco(photos: Sequence[Photo], root: Path) -> None:
    classes = _classes(photos)
    for split, short in SHORT.items():
        images, annotations = [], []
        for number, photo in enumerate(photo for photo in photos if photo.split == split):
            _copy(photo, root / f"{short}2017")
            width, height = photo.size
            images.append({"id": number, "file_name": photo.path.name, "width": width, "height": height})
            for label, (x0, y0, x1, y1) in photo.boxes:
                box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "category_id": classes.index(label), "iscrowd": 0}
                annotations.append({"id": len(annotations), "image_id": number, **box})
        categories = [{"id": number, "name": name} for number, name in enumerate(classes)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{short}2017.json").write_text(json.dumps(content))


def write_yolo(photos: Sequence[Photo], root: Path) -> None:
    classes = _classes(photos)
    for photo in photos:
        _copy(photo, root / "images" / SHORT[photo.split])
        labels = root / "labels" / SHORT[photo.split] / f"{photo.path.stem}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for label, (x0, y0, x1, y1) in photo.boxes:
            width, height = photo.size
            numbers = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
            lines.append(f"{classes.index(label)} " + " ".join(f"{number:.9f}" for number in numbers))
        labels.write_text("\n".join(lines) + "\n")
    config = {"path": ".", "train": "images/train", "val": "images/val", "names": dict(enumerate(classes))}
    (root / "data.yaml").write_text(yaml.safe_dump(config))


def write_voc(photos: Sequence[Photo], root: Path) -> None:
    """VOC counts pixels from 1, both sides inclusive."""
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for photo in photos:
        _copy(photo, root / "JPEGImages")
        tree = ElementTree.Element("annotation")
        ElementTree.SubElement(tree, "filename").text = photo.path.name
        for label, (x0, y0, x1, y1) in photo.boxes:
            found = ElementTree.SubElement(tree, "object")
            ElementTree.SubElement(found, "name").text = label
            box = ElementTree.SubElement(found, "bndbox")
            for key, value in zip(("xmin", "ymin", "xmax", "ymax"), (x0 + 1, y0 + 1, x1, y1), strict=True):
                ElementTree.SubElement(box, key).text = f"{value:.6f}"
        ElementTree.ElementTree(tree).write(root / "Annotations" / f"{photo.path.stem}.xml")
    for split, short in SHORT.items():
        names = "".join(f"{photo.path.stem}\n" for photo in photos if photo.split == split)
        (root / "ImageSets" / "Main" / f"{short}.txt").write_text(names)


WRITERS = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}


def _classes(photos: Sequence[Photo]) -> list[str]:
    return sorted({label for photo in photos for label, _ in photo.boxes})


def _copy(photo: Photo, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(photo.path, folder / photo.path.name)


def curated_boxes(source: str, root: Path, backbone: Path, folder: Path) -> pl.DataFrame:
    """Acquire, filter and curate, as the pipeline's stages do, inside `folder`."""
    settings = _settings(source, root)
    (folder / layout.BACKBONE).parent.mkdir(parents=True)
    (folder / layout.BACKBONE).symlink_to(backbone.resolve())
    for stage in (acquire, filter_, curate):
        stage(settings, folder)
    return pl.read_parquet(folder / layout.CURATED / "boxes.parquet")


def _settings(source: str, root: Path) -> Settings:
    settings = load_settings(ROOT / "params.yaml")
    return settings.model_copy(
        update={
            "acquire": settings.acquire.model_copy(update={"source": source, "root": str(root)}),
            "filter": settings.filter.model_copy(
                update=dict.fromkeys(("drop_group_of", "drop_depiction", "drop_truncated"), False)
            ),
        }
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder in OpenImages' layout")
    parser.add_argument("--backbone", type=Path, default=ROOT / layout.TINY, help="its image tower embeds the images")
    options = parser.parse_args()
    photos = read_photos(options.photos)
    print(f"{len(photos)} photographs, {sum(len(photo.boxes) for photo in photos)} boxes")
    tables = {}
    with tempfile.TemporaryDirectory() as scratch:
        for source, root in {"folder": options.photos, **{name: Path(scratch) / name for name in WRITERS}}.items():
            if source in WRITERS:
                WRITERS[source](photos, root)
            start = time.perf_counter()
            table = curated_boxes(source, root, options.backbone, Path(scratch) / f"run-{source}")
            tables[source] = table.select(COMPARED).sort(COMPARED)
            same = tables[source].equals(tables["folder"])
            seconds = time.perf_counter() - start
            print(f"{source:6} {table.height} curated boxes in {seconds:.1f} s: {'the same' if same else 'DIFFERENT'}")
            if not same:
                print(tables[source].join(tables["folder"], on=COMPARED, how="anti"))
    return int(any(not table.equals(tables["folder"]) for table in tables.values()))


if __name__ == "__main__":
    sys.exit(main())
