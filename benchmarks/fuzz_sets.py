"""Valid sets of own data in every format, small enough to damage by the thousand, and how many images each names."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from pbe.acquisition.importers.image_names import is_image_name, walk_files
from pbe.acquisition.importers.text_files import read_json, read_text, read_xml
from pbe.demo.tiny_sets import coco, picture, voc, write, yolo

NUM_IMAGES = 4
NAMES = ("0.jpg", "Café_1.jpg", "sub/2.png", "3.JPG")


def _pictures(root: Path) -> None:
    for name in NAMES:
        picture(root / "images" / name, (64, 48), format="PNG" if name.endswith("png") else "JPEG")


def build_coco(root: Path) -> None:
    _pictures(root)
    for n, name in enumerate(NAMES):
        Image.new("RGB", (320, 240)).save(root / "images" / name, format="JPEG")
        shape: Any = [[20, 60, 140, 60, 140, 160]] if n % 2 else {"size": [240, 320], "counts": [76800 - 100, 100]}
        coco(root / ("instances_val.json" if n == 3 else f"instances_train{n}.json"), [name], segmentation=shape)


def build_voc(root: Path) -> None:
    _pictures(root)
    for n, name in enumerate(NAMES):
        size = "<size><width>64</width><height>48</height></size>"
        voc(root / f"Annotations/{n}.xml", name, (1, 2, 30, 40), size)
    write(root / "ImageSets/Main/train.txt", "0\n2\n")


def build_csv(root: Path) -> None:
    _pictures(root)
    rows = [f"{name},Cat,1,2,30,40,{'val' if n == 3 else 'train'}" for n, name in enumerate(NAMES)]
    write(root / "boxes.csv", "\n".join(["image,label,x0,y0,x1,y1,split", *rows, f"{NAMES[0]},Dog,3,4,50,41,train"]))


def build_yolo(root: Path) -> None:
    polygon = "0 0.25 0.25 0.75 0.25 0.25 0.75 0.2 0.6"
    yolo(root, ["0 0.5 0.5 0.5 0.5", polygon, "1 0.5 0.5 0.2 0.2 0.9", "1 0.4 0.4 0.2 0.2"], names="[Cat, Dog]")


def build_masks(root: Path) -> None:
    for n in range(NUM_IMAGES):
        picture(root / f"images/cat/{n}.jpg", (64, 48))
        pixels = np.zeros((48, 64, 3) if n == 1 else (48, 64), np.uint8)
        pixels[5:30, 5:30] = 200
        (root / "masks/cat").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / f"masks/cat/{n}.png")


def build_cvat(root: Path) -> None:
    _pictures(root)
    box = '<box label="Cat" xtl="1" ytl="2" xbr="30" ybr="40"/><polygon label="Dog" points="1,2;30,2;30,40"/>'
    images = "".join(f'<image name="{name}" width="64" height="48">{box}</image>' for name in NAMES)
    write(root / "annotations.xml", f"<annotations>{images}</annotations>")


def build_datumaro(root: Path) -> None:
    _pictures(root)
    triangle = [1, 2, 30, 2, 30, 40]
    boxes = [
        {"type": "bbox", "label_id": 0, "bbox": [1, 2, 29, 38]},
        {"type": "polygon", "label_id": 0, "points": triangle},
    ]
    items = [{"id": name, "annotations": boxes, "image": {"path": name, "size": [48, 64]}} for name in NAMES]
    content = {"categories": {"label": {"labels": [{"name": "Cat"}]}}, "items": items}
    write(root / "annotations/default.json", json.dumps(content))


def build_labelme(root: Path) -> None:
    _pictures(root)
    shapes = [{"label": "Cat", "points": [[1, 2], [30, 40]], "shape_type": "rectangle"},
              {"label": "Cat", "points": [[1, 2], [30, 2], [30, 40]], "shape_type": "polygon"}]  # fmt: skip
    for n, name in enumerate(NAMES):
        write(
            root / f"images/{n}.json",
            json.dumps({"imagePath": name, "imageHeight": 48, "imageWidth": 64, "shapes": shapes}),
        )


def build_label_studio(root: Path) -> None:
    _pictures(root)
    value = {"x": 10, "y": 10, "width": 50, "height": 60, "rotation": 0, "rectanglelabels": ["Cat"]}
    region = {"type": "rectanglelabels", "original_width": 64, "original_height": 48, "value": value}
    tasks = [{"data": {"image": f"/data/upload/1/{name}"}, "annotations": [{"result": [region]}]} for name in NAMES]
    write(root / "export.json", json.dumps(tasks))


def build_huggingface(root: Path) -> None:
    for split, numbers in (("train", "012"), ("val", "3")):
        objects = {"bbox": [[1, 2, 29, 38]], "category": ["Cat"]}
        rows = [json.dumps({"file_name": f"{n}.jpg", "objects": objects}) for n in numbers]
        for n in numbers:
            picture(root / split / f"{n}.jpg", (64, 48))
        write(root / split / "metadata.jsonl", "\n".join(rows))


def _count_images(root: Path) -> int:
    return sum(is_image_name(path.name) for path, _ in walk_files(root / "images"))


def _count_json(root: Path, rows: Callable[[Any], int]) -> int:
    return sum(rows(read_json(path)) for path, _ in walk_files(root) if path.suffix.casefold() == ".json")


def _count_coco(root: Path) -> int:
    files = [path for path, _ in walk_files(root) if path.suffix.casefold() == ".json"]
    files = [path for path in files if path.name.startswith("instances")] or files
    contents = [read_json(path) for path in files]
    return sum(len(content.get("images", [])) for content in contents if isinstance(content, dict))


def _count_csv(root: Path) -> int:
    text = read_text(root / "boxes.csv")
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=text.split("\n", 1)[0].count)))
    place = [name.strip().casefold() for name in rows[0]].index("image")
    return len({row[place].strip() for row in rows[1:] if any(field.strip() for field in row)})


def _count_xml(root: Path, tag: str, inner: str | None) -> int:
    trees: list[ElementTree.Element] = [read_xml(p) for p, _ in walk_files(root) if p.suffix.casefold() == ".xml"]
    return sum(len(tree.findall(inner)) if inner else 1 for tree in trees if tree.tag == tag)


def _count_labelme(content: Any) -> int:
    return isinstance(content, dict) and ("shapes" in content or "imagePath" in content)


def _count_metadata(root: Path) -> int:
    files = [path for path, _ in walk_files(root) if path.name.casefold() == "metadata.jsonl"]
    return sum(bool(line.strip()) for path in files for line in read_text(path).splitlines())


class Format(NamedTuple):
    """How to write a valid set, and how many images a set names."""

    build: Callable[[Path], None]
    count: Callable[[Path], int]


FORMATS = {
    "coco": Format(build_coco, _count_coco),
    "voc": Format(build_voc, lambda root: _count_xml(root, "annotation", None)),
    "csv": Format(build_csv, _count_csv),
    "yolo": Format(build_yolo, _count_images),
    "masks": Format(build_masks, _count_images),
    "cvat": Format(build_cvat, lambda root: _count_xml(root, "annotations", "image")),
    "datumaro": Format(build_datumaro, lambda root: _count_json(root, lambda content: len(content.get("items", [])))),
    "labelme": Format(build_labelme, lambda root: _count_json(root, _count_labelme)),
    "label_studio": Format(
        build_label_studio, lambda root: _count_json(root, lambda c: len(c) if isinstance(c, list) else 0)
    ),
    "huggingface": Format(build_huggingface, _count_metadata),
}
