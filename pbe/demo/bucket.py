"""The demo world as a bucket: scenes drawn to disk under OpenImages' own keys, with its annotation files.

`{folder}/open-images-dataset/{split}/{image_id}.jpg` and, under `{folder}/openimages/`, the box annotations, class
descriptions and lists of images with all of OpenImages' columns, `world-attributes.csv` (what each box truly shows) and
`world-faults.csv` (which images have a planted fault, and which). After a kill the next run resumes.
"""

import base64
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pbe.dataset.openimages import (
    ANNOTATIONS_BUCKET,
    BOX_COLUMNS,
    BOX_FILES,
    CLASS_COLUMNS,
    CLASSES_FILE,
    CLICK_COLUMNS,
    IMAGE_COLUMNS,
    IMAGE_FILES,
    IMAGES_BUCKET,
    SPLITS,
    AnnotationFile,
    image_key,
)
from pbe.demo import faults, scenes
from pbe.demo.faults import Fault
from pbe.demo.scenes import ObjectBox, Scene, SceneObject
from pbe.runtime.child_processes import exit_with_parent, kill_child, start_child
from pbe.runtime.code_digest import digest_code
from pbe.runtime.files import atomic_file, write_text
from pbe.runtime.set_aside import aside_of, discard
from pbe.settings import World
from pbe.types import Progress, no_progress

ATTRIBUTES_FILE = AnnotationFile("world-attributes.csv", "world-attributes.csv")
ATTRIBUTE_COLUMNS = ("box_id", "Shape", "Colour", "Pattern", "SecondColour")
FAULT_COLUMNS = ("image_id", "fault", "of")
FAULTS_KEY = "world-faults.csv"
LABELS = {shape: f"/m/0pbe{number:02d}" for number, shape in enumerate(scenes.SHAPES, start=1)}

_CHUNK_IMAGES = 100
_PARTS = "parts"


class Chunk(NamedTuple):
    """Images `start` to `stop` of a split, the unit of drawing and of resuming."""

    split: str
    start: int
    stop: int

    @property
    def file_name(self) -> str:
        return f"{self.split}-{self.start:08d}.json"


def write_bucket(
    folder: Path, settings: World, seed: int, progress: Progress = no_progress, num_workers: int = 2
) -> None:
    """Draw the world into `folder`, or the part of it that is missing; the same arguments give the same bytes.

    A folder with another world (other settings, seed or drawing code) is emptied first (`set_aside`). `num_workers`
    processes draw. Raises RuntimeError when one of them fails.
    """
    key = describe_world(settings, seed)
    if _read_key(folder) != key:
        _empty(folder)
        write_text(folder / "world.json", json.dumps(key, indent=1) + "\n")
    if (folder / ANNOTATIONS_BUCKET / FAULTS_KEY).exists():
        return
    _draw_all(folder, settings, seed, progress, num_workers)
    _write_annotations(folder, settings)
    shutil.rmtree(folder / _PARTS)


def describe_world(settings: World, seed: int) -> dict[str, Any]:
    """Return everything that the bucket's bytes depend on: the settings, the seed and the code that draws."""
    code = digest_code(__name__)
    return {"seed": seed, **settings.model_dump(), "code": code}


def name_image(seed: int, split: str, index: int) -> str:
    """Return an image's id: 16 hex digits, as in OpenImages."""
    return hashlib.sha256(f"{seed}/{split}/{index}".encode()).hexdigest()[:16]


def _read_key(folder: Path) -> Any:
    try:
        return json.loads((folder / "world.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _empty(folder: Path) -> None:
    parts = [folder / name for name in (IMAGES_BUCKET, ANNOTATIONS_BUCKET, _PARTS) if (folder / name).exists()]
    files = [file for part in parts for file in sorted(part.rglob("*")) if file.is_file()]
    aside = next(each for n in count() if not (each := aside_of(folder) / str(n)).exists())
    discard({file: aside / file.relative_to(folder) for file in files}, f"acquire: {folder.name} had another world")
    for part in parts:
        shutil.rmtree(part)
    for split in SPLITS:
        (folder / IMAGES_BUCKET / split).mkdir(parents=True)
    (folder / ANNOTATIONS_BUCKET).mkdir()
    (folder / _PARTS).mkdir()


def _count_images(settings: World) -> dict[str, int]:
    return {"train": settings.train_images, "validation": settings.validation_images}


def _chunks(settings: World) -> list[Chunk]:
    return [
        Chunk(split, start, min(start + _CHUNK_IMAGES, total))
        for split, total in _count_images(settings).items()
        for start in range(0, total, _CHUNK_IMAGES)
    ]


def _draw_all(folder: Path, settings: World, seed: int, progress: Progress, num_workers: int) -> None:
    """Start `num_workers` children, which draw every `num_workers`-th chunk each and report counts through a pipe."""
    total = sum(_count_images(settings).values())
    read_end, write_end = os.pipe()
    children: list[subprocess.Popen[str]] = []
    try:
        for part in range(num_workers):
            arguments = [str(folder.resolve()), settings.model_dump_json(), str(seed), str(part), str(num_workers)]
            children.append(start_child("pbe.demo.bucket", arguments, stdout=write_end))
        os.close(write_end)
        done = 0
        with os.fdopen(read_end) as lines:
            for line in lines:
                done += int(line)
                progress(done, total)
        codes = [child.wait() for child in children]
    finally:
        for child in children:
            kill_child(child)
    if any(codes):
        raise RuntimeError(f"{folder}: drawing the demo world failed (exit codes {codes}); see the messages above")


def _draw_part(folder: Path, settings: World, seed: int, part: int, num_parts: int) -> None:
    plan = faults.plan_faults(_count_images(settings), settings.fault_frac, seed)
    for chunk in _chunks(settings)[part::num_parts]:
        if not (folder / _PARTS / chunk.file_name).exists():
            _draw_chunk(folder, chunk, plan, seed)
        # In one write: children share the pipe, and print() makes two where PYTHONUNBUFFERED is set.
        os.write(sys.stdout.fileno(), f"{chunk.stop - chunk.start}\n".encode())


def _draw_chunk(folder: Path, chunk: Chunk, plan: dict[tuple[str, int], Fault], seed: int) -> None:
    """Write the chunk's images and then its annotation rows, whose file marks the chunk as complete."""
    rows: dict[str, list[list[Any]]] = {"boxes": [], "attributes": [], "faults": [], "images": []}
    for index in range(chunk.start, chunk.stop):
        image_id = name_image(seed, chunk.split, index)
        fault = plan.get((chunk.split, index))
        jpeg, scene = _render(chunk.split, index, fault, seed)
        with atomic_file(folder / IMAGES_BUCKET / image_key(chunk.split, image_id)) as part:
            part.write_bytes(jpeg)
        rows["images"].append(_image_row(chunk.split, image_id, jpeg))
        for number, item in enumerate(scene.objects):
            rows["boxes"].append(_box_row(image_id, item, scene.image.shape[:2], clicks=chunk.split == "train"))
            a = item.attributes
            rows["attributes"].append([f"{image_id}_{number:03d}", a.shape, a.colour, a.pattern, a.second_colour])
        if fault is not None:
            rows["faults"].append([image_id, fault.kind, _name_origin(chunk.split, fault, seed)])
    write_text(folder / _PARTS / chunk.file_name, json.dumps(rows))


def _origin_split(split: str, fault: Fault) -> str:
    return "validation" if fault.kind == faults.LEAK else split


def _name_origin(split: str, fault: Fault, seed: int) -> str:
    return "" if fault.of is None else name_image(seed, _origin_split(split, fault), fault.of)


def _draw(split: str, index: int, seed: int) -> Scene:
    return scenes.draw_scene(np.random.default_rng([seed, SPLITS.index(split), index]))


def _render(split: str, index: int, fault: Fault | None, seed: int) -> tuple[bytes, Scene]:
    """Return the image's bytes and the scene that its annotations describe."""
    if fault is None or fault.of is None:
        scene = _draw(split, index, seed)
        return (faults.encode_jpeg(scene.image) if fault is None else faults.spoil(scene.image, fault.kind)), scene
    scene = _draw(_origin_split(split, fault), fault.of, seed)
    if fault.kind == "exact_duplicate" or (fault.kind == faults.LEAK and index % 2 == 0):
        return faults.encode_jpeg(scene.image), scene
    width = scene.image.shape[1]
    moved = tuple(replace(o, box=faults.move_box(o.box, width)) for o in scene.objects)
    return faults.encode_near_copy(scene.image), Scene(scene.image, moved)


def _flags(item: SceneObject) -> tuple[bool, bool, bool, bool]:
    return item.is_occluded, item.is_truncated, item.is_group_of, item.is_depiction


def _box_row(image_id: str, item: SceneObject, size: tuple[int, ...], clicks: bool) -> list[Any]:
    """Return a row of the annotation file; the four clicks are the midpoints of the box's sides."""
    height, width = size
    box = ObjectBox(*item.box)
    x0, x1, y0, y1 = (f"{v:.6f}" for v in (box.x0 / width, box.x1 / width, box.y0 / height, box.y1 / height))
    row: list[Any] = [image_id, "xclick", LABELS[item.attributes.shape], 1, x0, x1, y0, y1]
    row += [*(int(flag) for flag in _flags(item)), 0]
    if clicks:
        x, y = f"{(box.x0 + box.x1) / 2 / width:.6f}", f"{(box.y0 + box.y1) / 2 / height:.6f}"
        row += [x0, x, x1, x, y, y0, y, y1]
    return row


def _image_row(split: str, image_id: str, jpeg: bytes) -> list[Any]:
    """Return a row of the list of images: source, licence and author."""
    url = f"https://demo-world.invalid/{image_key(split, image_id)}"  # .invalid never resolves (RFC 2606)
    licence, author = "https://creativecommons.org/publicdomain/zero/1.0/", "https://demo-world.invalid/"
    md5 = base64.b64encode(hashlib.md5(jpeg, usedforsecurity=False).digest()).decode()
    return [image_id, split, url, url, licence, author, "the demo world", image_id, len(jpeg), md5, "", 0.0]


def _write_annotations(folder: Path, settings: World) -> None:
    """Join the chunks' rows; the list of faults is written last and marks the bucket as complete."""
    target = folder / ANNOTATIONS_BUCKET
    for split in SPLITS:
        columns = BOX_COLUMNS + (CLICK_COLUMNS if split == "train" else ())
        _write_csv(target / BOX_FILES[split].key, columns, _rows(folder, settings, "boxes", split))
        _write_csv(target / IMAGE_FILES[split].key, IMAGE_COLUMNS, _rows(folder, settings, "images", split))
    classes = ([LABELS[shape], shape.capitalize()] for shape in scenes.SHAPES)
    _write_csv(target / CLASSES_FILE.key, CLASS_COLUMNS, classes)
    _write_csv(target / ATTRIBUTES_FILE.key, ATTRIBUTE_COLUMNS, _rows(folder, settings, "attributes"))
    _write_csv(target / FAULTS_KEY, FAULT_COLUMNS, _rows(folder, settings, "faults"))


def _rows(folder: Path, settings: World, kind: str, split: str | None = None) -> Iterator[list[Any]]:
    for chunk in _chunks(settings):
        if split in (None, chunk.split):
            yield from json.loads((folder / _PARTS / chunk.file_name).read_text())[kind]


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[list[Any]]) -> None:
    with atomic_file(path) as part, part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


if __name__ == "__main__":
    exit_with_parent()
    cv2.setNumThreads(1)
    _draw_part(Path(sys.argv[1]), World.model_validate_json(sys.argv[2]), *(int(n) for n in sys.argv[3:6]))
