"""Own data: the same boxes in every format become the same curated boxes, and mistakes are named."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
import yaml

from pbe.data import openimages, own
from pbe.data.boxes import filter_boxes
from pbe.data.download import acquire
from pbe.settings import Acquire, Filter

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


def boxes_of(source: str, root: Path, out: Path, **changes: float) -> pl.DataFrame:
    report = acquire(Acquire(source=source, root=str(root), workers=2, **changes), 0, out / "raw")  # type: ignore[arg-type]
    assert sum(n for split in report.outcomes.values() for o, n in split.items() if o == "ok") == len(IMAGES)
    filter_boxes(out / "raw", out / "boxes", Filter(max_boxes_per_image=None), 0)
    return pl.read_parquet(out / "boxes" / "boxes.parquet")


@pytest.mark.parametrize("source", ["coco", "yolo", "voc", "csv"])
def test_every_format_gives_the_boxes_of_openimages_own(tmp_path: Path, source: str) -> None:
    for name in ("folder", source):
        WRITERS[name](tmp_path / name)
    expected = boxes_of("folder", tmp_path / "folder", tmp_path / "out-folder")
    assert expected.select("x0", "y0", "x1", "y1").rows() == [box for _, _, _, boxes in IMAGES for _, box in boxes]
    found = boxes_of(source, tmp_path / source, tmp_path / "out")
    assert found.drop("area_frac").equals(expected.drop("area_frac"))


def test_where_nothing_names_a_split_the_seed_draws_one(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "pictures").mkdir(parents=True)
    rows = ["image,label,x0,y0,x1,y1"]
    for n in range(60):
        cv2.imwrite(str(root / "pictures" / f"{n}.png"), np.full((40, 40, 3), n, np.uint8))
        rows.append(f"{n}.png,Cat,5,5,35,35")
    (root / "boxes.csv").write_text("\n".join(rows) + "\n")
    settings = Acquire(source="csv", root=str(root), validation_frac=0.25)
    keys = [list(own.describe(settings, root, seed, tmp_path / f"out{i}")) for i, seed in enumerate((0, 0, 1))]
    assert keys[0] == keys[1] != keys[2]
    assert 6 < sum(key.startswith("validation/") for key in keys[0]) < 25


def test_images_of_one_name_in_two_folders_keep_their_folders(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.jpg").write_bytes((tmp_path / "pictures" / "a.jpg").read_bytes())
    rows = "image,label,x0,y0,x1,y1,split\npictures/a.jpg,Cat,1,1,50,50,train\nmore/a.jpg,Cat,1,1,50,50,val\n"
    (tmp_path / "boxes.csv").write_text(rows)
    files = own.describe(Acquire(source="csv", root="x"), tmp_path, 0, tmp_path / "out")
    assert sorted(files) == ["train/pictures__a.jpg", "validation/more__a.jpg"]


def test_a_yolo_polygon_counts_as_the_box_around_it(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    (tmp_path / "labels" / "val" / "c.txt").write_text("0 0.1 0.2 0.5 0.1 0.4 0.9\n")
    boxes = [box for image in own.read_yolo(tmp_path) if image.path.stem == "c" for box in image.boxes]
    assert boxes == [own.OwnBox("Cat", (0.1, 0.1, 0.5, 0.9))]


def test_crowds_and_flags_are_kept(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco")
    path = tmp_path / "coco" / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    boxes = [box for image in own.read_coco(tmp_path / "coco") for box in image.boxes]
    assert [box.is_group_of for box in boxes] == [True, False, False, False]
    write_voc(tmp_path / "voc")
    path = tmp_path / "voc" / "Annotations" / "b.xml"
    path.write_text(path.read_text().replace("<truncated>0", "<truncated>1"))
    assert [box.is_truncated for i in own.read_voc(tmp_path / "voc") for box in i.boxes] == [False, False, True, False]


MISTAKES = [
    ("coco", "annotations/instances_val2017.json", '"bbox"', '"box"', r"val2017.json: annotations\[0\] has no 'bbox'"),
    ("coco", "annotations/instances_val2017.json", '"image_id": 2', '"image_id": 9', "9 is not among the images"),
    ("coco", "annotations/instances_val2017.json", "{", "[", "val2017.json: not a JSON file"),
    ("coco", "annotations/instances_train2017.json", '"width": 120', '"width": 60', "annotated at 60 x 90 px"),
    ("yolo", "labels/val/c.txt", "0 0", "7 0", "c.txt: line 1: class '7' is not among the names"),
    ("yolo", "labels/val/c.txt", "0.25", "x", "c.txt: line 1: .* are not all numbers"),
    ("yolo", "data.yaml", "images/val", "images/no", "images/no is neither a folder of images nor a list"),
    ("voc", "Annotations/b.xml", "xmin", "xmen", "b.xml: object 1, Dog: no bndbox/xmin"),
    ("voc", "Annotations/b.xml", "</annotation>", "", "b.xml: not an XML file"),
    ("csv", "boxes.csv", "x0,", "x,", "column x0 is missing; columns found: image, label, x,"),
    ("csv", "boxes.csv", "a.jpg,Cat,10", "a.jpg,Cat,ten", "boxes.csv: line 2: .* are not all numbers"),
    ("csv", "boxes.csv", "validation", "test", "boxes.csv: line 5: split 'test' is neither"),
]


@pytest.mark.parametrize(("source", "file", "old", "new", "message"), MISTAKES)
def test_a_mistake_is_named(tmp_path: Path, source: str, file: str, old: str, new: str, message: str) -> None:
    WRITERS[source](tmp_path)
    path = tmp_path / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        own.describe(Acquire(source=source, root="x"), tmp_path, 0, tmp_path / "out")  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["coco", "yolo", "voc", "csv"])
def test_an_empty_folder_says_what_is_looked_for(tmp_path: Path, source: str) -> None:
    with pytest.raises(ValueError, match=r"json|data\.yaml|xml|boxes\.csv"):
        own.describe(Acquire(source=source, root="x"), tmp_path, 0, tmp_path / "out")  # type: ignore[arg-type]


def test_an_image_that_is_nowhere_is_counted_as_missing(tmp_path: Path) -> None:
    write_csv(tmp_path / "data")
    (tmp_path / "data" / "pictures" / "a.jpg").unlink()
    settings = Acquire(source="csv", root=str(tmp_path / "data"), workers=1, max_lost_frac=0.5)
    assert acquire(settings, 0, tmp_path / "raw").outcomes["train"] == {"ok": 1, "missing": 1}
