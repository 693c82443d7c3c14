"""Three small images with four boxes, written in every layout, and read again by acquire and filter."""

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import yaml

from pbe.acquisition.download import acquire
from pbe.dataset import openimages
from pbe.filtering.box_filter import filter_boxes
from tests.support import parameters

# image, its sides, its split, boxes in pixels
IMAGES = [
    ("a", (120, 90), "train", [("Cat", (10, 10, 60, 60)), ("Dog", (50, 20, 110, 80))]),
    ("b", (91, 133), "train", [("Dog", (7, 13, 71, 101))]),
    ("c", (100, 100), "validation", [("Cat", (0, 0, 50, 50))]),
]
SPLIT_FOLDERS = {"train": "train", "validation": "val"}


def write_images(root: Path, folder: str = "images") -> None:
    for name, (width, height), split, _ in IMAGES:
        path = root / folder.format(split=SPLIT_FOLDERS[split], openimages=split) / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(path), pixels)


def write_folder(root: Path) -> None:
    write_images(root, "images/{openimages}")
    (root / "annotations").mkdir()
    for split in ("train", "validation"):
        with (root / "annotations" / openimages.BOX_FILES[split].name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(openimages.BOX_COLUMNS)
            for name, (w, h), s, boxes in IMAGES:
                for label, (x0, y0, x1, y1) in boxes if s == split else []:
                    sides = [f"{v:.6f}" for v in (x0 / w, x1 / w, y0 / h, y1 / h)]
                    writer.writerow([name, "xclick", f"/m/{label}", 1, *sides, 0, 0, 0, 0, 0])
    rows = "LabelName,DisplayName\n/m/Cat,Cat\n/m/Dog,Dog\n"
    (root / "annotations" / openimages.CLASSES_FILE.name).write_text(rows)


def write_coco(root: Path) -> None:
    write_images(root, "{split}2017")
    (root / "annotations").mkdir()
    for split, folder in SPLIT_FOLDERS.items():
        images, annotations = [], []
        for number, (name, (w, h), s, boxes) in enumerate(IMAGES):
            if s != split:
                continue
            images.append({"id": number, "file_name": f"{name}.jpg", "width": w, "height": h})
            for label, (x0, y0, x1, y1) in boxes:
                box = [x0, y0, x1 - x0, y1 - y0]
                annotations.append({"image_id": number, "category_id": "CatDog".index(label), "bbox": box})
        categories = [{"id": 0, "name": "Cat"}, {"id": 3, "name": "Dog"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{folder}2017.json").write_text(json.dumps(content))
    (root / "annotations" / "captions_val2017.json").write_text('{"images": [], "annotations": []}')


def write_yolo(root: Path) -> None:
    write_images(root, "images/{split}")
    for name, (w, h), split, boxes in IMAGES:
        lines = []
        for label, (x0, y0, x1, y1) in boxes:
            numbers = ((x0 + x1) / 2 / w, (y0 + y1) / 2 / h, (x1 - x0) / w, (y1 - y0) / h)
            lines.append(f"{['Cat', 'Dog'].index(label)} " + " ".join(f"{n:.6f}" for n in numbers))
        path = root / "labels" / SPLIT_FOLDERS[split] / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    config = {"path": ".", "train": "images/train", "val": "images/val", "names": {0: "Cat", 1: "Dog"}}
    (root / "data.yaml").write_text(yaml.safe_dump(config))


def write_voc(root: Path) -> None:
    write_images(root, "JPEGImages")
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, short in SPLIT_FOLDERS.items():
        names = [name for name, _, s, _ in IMAGES if s == split]
        (root / "ImageSets" / "Main" / f"{short}.txt").write_text("\n".join(names) + "\n")
    for name, _, _, boxes in IMAGES:
        objects = "".join(
            f"<object><name>{label}</name><truncated>0</truncated><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for label, (x0, y0, x1, y1) in boxes
        )
        text = f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)


def write_csv(root: Path) -> None:
    write_images(root, "pictures")
    rows = ["image,label,x0,y0,x1,y1,split"]
    rows += [f"{n}.jpg,{label},{','.join(map(str, box))},{s}" for n, _, s, boxes in IMAGES for label, box in boxes]
    (root / "boxes.csv").write_text("\n".join(rows) + "\n")


WRITERS = {"folder": write_folder, "coco": write_coco, "yolo": write_yolo, "voc": write_voc, "csv": write_csv}


def boxes_of(source: str, root: Path, out: Path, **changes: Any) -> pl.DataFrame:
    """Return the result of acquire and filter, without a cap, for a data set."""
    acquire(parameters.acquire(source=source, root=str(root), workers=2, **changes), 0, out / "raw")
    filter_boxes(out / "raw", out / "boxes", parameters.filtering(max_boxes_per_image=None), 0)
    return pl.read_parquet(out / "boxes" / "boxes.parquet")
