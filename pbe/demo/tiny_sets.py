"""Small sets of own data, one writer a format, for tests and fuzz runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (320, 240)
BOX = (20, 60, 140, 160)


def picture(path: Path, size: tuple[int, int] = SIZE, **options: Any) -> Path:
    """Write a picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def coco(
    path: Path,
    names: Sequence[str],
    ids: Sequence[int] | None = None,
    bbox: Sequence[float] = (20, 60, 120, 100),
    segmentation: object = None,
    label: str = "Cat",
    encoding: str = "utf-8",
) -> Path:
    """Write a COCO file with one box for each image name."""
    ids = list(ids if ids is not None else range(len(names)))
    images = [{"id": i, "file_name": n, "width": SIZE[0], "height": SIZE[1]} for i, n in zip(ids, names, strict=True)]
    extra = {} if segmentation is None else {"segmentation": segmentation}
    annotations = [{"id": n, "image_id": i, "category_id": 1, "bbox": list(bbox), **extra} for n, i in enumerate(ids)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": label}]}
    return write(path, json.dumps(content).encode(encoding))


def voc(path: Path, name: str, corners: Sequence[float] = (21, 61, 140, 160), size: str = "", head: str = "") -> Path:
    """Write a VOC file with one Cat."""
    keys = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, corners, strict=True))
    return write(
        path,
        f"{head}<annotation><filename>{name}</filename>{size}"
        f"<object><name>Cat</name><bndbox>{box}</bndbox></object></annotation>",
    )


def csv(root: Path, rows: Sequence[str]) -> Path:
    return write(root / "boxes.csv", "\n".join(["image,label,x0,y0,x1,y1", *rows]) + "\n")


def yolo(root: Path, lines: Sequence[str], names: str = "[Cat]", more: str = "", num_val: int = 1) -> Path:
    """Write a YOLO set with one image for each content of a label file; the last `num_val` are for validation."""
    for n, line in enumerate(lines):
        split = "val" if n >= len(lines) - num_val else "train"
        picture(root / f"images/{split}/{n}.jpg")
        write(root / f"labels/{split}/{n}.txt", f"{line}\n")
    write(root / "data.yaml", f"path: .\ntrain: images/train\nval: images/val\n{more}names: {names}\n")
    return root
