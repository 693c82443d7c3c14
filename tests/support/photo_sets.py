"""A tiny FOD-A (Pascal VOC with scenes.csv) and a tiny COCO folder of photographs, whose pictures are noise."""

import json
from pathlib import Path

import cv2
import numpy as np

# label, scene, split, number of frames; frames are numbered through
CLIPS = [("Bolt", "0", "train", 5), ("Bolt", "1", "val", 6), ("AdjustableClamp", "2", "train", 3)]
CORNERS = ("11.0", "21.4", "60.0", "79.6")  # counted from 1, as Pascal VOC does
PICTURES = [("caltech-101/airplanes/p", "airplane"), ("oxford-pets/q", "cat"), ("raccoon/r", "raccoon")]
BOX = [8.0, 20.4, 70.2, 50.0]  # left, top, width, height


def write_fod_a(folder: Path) -> Path:
    """Write 14 frames of 3 clips, 100 x 100 px; the first has two boxes."""
    (folder / "Annotations").mkdir(parents=True)
    rows, names = ["image,scene,label,split"], []
    for label, scene, split, num_frames in CLIPS:
        for _ in range(num_frames):
            name = f"{len(names):06d}"
            names.append(name)
            rows.append(f"{name},{scene},{label},{split}")
            labels = [label, "Nail"] if len(names) == 1 else [label]
            (folder / "Annotations" / f"{name}.xml").write_text(_annotation(labels))
            _write_picture(folder / "JPEGImages" / f"{name}.jpg", 100, 100)
    (folder / "scenes.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_photos(folder: Path) -> Path:
    """Write a picture of each kind and split, 90 x 120 px, with one box."""
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        files = [f"images/{name}_{split}.jpg" for name, _ in PICTURES]
        for file in files:
            _write_picture(folder / file, 90, 120)
        table = {
            "images": [{"id": i, "file_name": file} for i, file in enumerate(files)],
            "categories": [{"id": i, "name": label} for i, (_, label) in enumerate(PICTURES)],
            "annotations": [{"image_id": i, "category_id": i, "bbox": BOX} for i in range(len(files))],
        }
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(table))
    return folder


def _annotation(labels: list[str]) -> str:
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), CORNERS, strict=True))
    objects = "".join(f"<object><name>{label}</name><bndbox>{sides}</bndbox></object>" for label in labels)
    return f"<annotation>{objects}</annotation>"


def _write_picture(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(path.name.encode())).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(noise, (width, height)))
