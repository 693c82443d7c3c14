"""Own data: the same boxes in every format become the same curated boxes, and errors name their place."""

import json
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from pbe.acquisition.download import acquire
from pbe.acquisition.importers.annotations import ImportedBox
from pbe.acquisition.importers.conversion import READERS, import_dataset
from pbe.acquisition.importers.placement import ImportCounts
from pbe.errors import UserError
from tests.support import parameters
from tests.support.own_data import IMAGES, WRITERS, boxes_of, write_coco, write_csv, write_voc


@pytest.mark.parametrize("source", ["coco", "yolo", "voc", "csv"])
def test_every_format_gives_the_same_boxes_as_openimages_layout(tmp_path: Path, source: str) -> None:
    for name in ("folder", source):
        WRITERS[name](tmp_path / name)
    expected = boxes_of("folder", tmp_path / "folder", tmp_path / "out-folder")
    assert expected.select("x0", "y0", "x1", "y1").rows() == [box for _, _, _, boxes in IMAGES for _, box in boxes]
    found = boxes_of(source, tmp_path / source, tmp_path / "out")
    assert found.drop("area_frac").equals(expected.drop("area_frac"))
    manifests = [pl.read_parquet(tmp_path / out / "raw" / "manifest.parquet") for out in ("out-folder", "out")]
    assert manifests[0].equals(manifests[1])  # the same images


def test_where_nothing_names_a_split_the_seed_draws_one(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "pictures").mkdir(parents=True)
    rows = ["image,label,x0,y0,x1,y1"]
    for n in range(60):
        cv2.imwrite(str(root / "pictures" / f"{n}.png"), np.full((40, 40, 3), n, np.uint8))
        rows.append(f"{n}.png,Cat,5,5,35,35")
    (root / "boxes.csv").write_text("\n".join(rows) + "\n")
    settings = parameters.acquire(source="csv", root=str(root), validation_frac=0.25)
    keys = [list(import_dataset(settings, seed, tmp_path / f"out{i}").images) for i, seed in enumerate((0, 0, 1))]
    assert keys[0] == keys[1] != keys[2]
    assert 6 < sum(key.startswith("validation/") for key in keys[0]) < 25


def test_images_of_one_name_in_two_folders_keep_their_folders(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.jpg").write_bytes((tmp_path / "pictures" / "a.jpg").read_bytes())
    rows = "image,label,x0,y0,x1,y1,split\npictures/a.jpg,Cat,1,1,50,50,train\nmore/a.jpg,Cat,1,1,50,50,val\n"
    (tmp_path / "boxes.csv").write_text(rows)
    imported = import_dataset(parameters.acquire(source="csv", root=str(tmp_path)), 0, tmp_path / "out")
    assert sorted(imported.images) == ["train/pictures__a.jpg", "validation/more__a.jpg"]


def read(source: str, root: Path) -> list[ImportedBox]:
    images = READERS[source](parameters.acquire(source=source, root=str(root)), ImportCounts())
    return [box for image in sorted(images, key=lambda image: image.path.stem) for box in image.boxes]


def test_crowds_and_flags_are_kept(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco")
    path = tmp_path / "coco" / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    assert [box.is_group_of for box in read("coco", tmp_path / "coco")] == [True, False, False, False]
    write_voc(tmp_path / "voc")
    path = tmp_path / "voc" / "Annotations" / "b.xml"
    path.write_text(path.read_text().replace("<truncated>0", "<truncated>1"))
    assert [box.is_truncated for box in read("voc", tmp_path / "voc")] == [False, False, True, False]


ERRORS = [
    ("coco", "annotations/instances_val2017.json", '"bbox"', '"box"', r"val2017.json: annotations\[0\] has no 'bbox'"),
    ("coco", "annotations/instances_val2017.json", '"image_id": 2', '"image_id": 9', "9 is not among the images"),
    ("coco", "annotations/instances_val2017.json", "{", "[", "val2017.json: not a JSON file"),
    ("coco", "annotations/instances_train2017.json", '"width": 120', '"width": 60', "annotated at 60 x 90 px"),
    ("yolo", "labels/val/c.txt", "0 0", "7 0", "c.txt: line 1: class '7' is not among the names"),
    ("yolo", "labels/val/c.txt", "0.25", "x", "c.txt: line 1: .* are not all numbers"),
    ("yolo", "data.yaml", "images/val", "images/no", "images/no is neither a folder of images nor a list"),
    ("voc", "Annotations/b.xml", "xmin", "xmen", "b.xml: object 1, Dog: bndbox/xmin is missing"),
    ("voc", "Annotations/b.xml", "</annotation>", "", "b.xml: not an XML file"),
    ("csv", "boxes.csv", "x0,", "x,", "column x0 is missing; columns found: image, label, x,"),
    ("csv", "boxes.csv", "a.jpg,Cat,10", "a.jpg,Cat,ten", "boxes.csv: line 2: .* are not all numbers"),
    ("csv", "boxes.csv", "validation", "exam", "boxes.csv: line 5: split 'exam' is none of train, validation and test"),
]


@pytest.mark.parametrize(("source", "file", "old", "new", "message"), ERRORS)
def test_an_error_names_its_place(tmp_path: Path, source: str, file: str, old: str, new: str, message: str) -> None:
    WRITERS[source](tmp_path)
    path = tmp_path / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        import_dataset(parameters.acquire(source=source, root=str(tmp_path)), 0, tmp_path / "out")


@pytest.mark.parametrize("source", ["coco", "yolo", "voc", "csv", "masks", "huggingface"])
def test_an_empty_folder_names_the_expected_files(tmp_path: Path, source: str) -> None:
    with pytest.raises(UserError, match=r"json|data\.yaml|xml|boxes\.csv|masks|save_to_disk"):
        import_dataset(parameters.acquire(source=source, root=str(tmp_path)), 0, tmp_path / "out")


def test_an_image_without_a_file_is_counted_as_missing(tmp_path: Path) -> None:
    write_csv(tmp_path / "data")
    (tmp_path / "data" / "pictures" / "a.jpg").unlink()
    settings = parameters.acquire(source="csv", root=str(tmp_path / "data"), workers=1, max_lost_frac=0.5)
    assert acquire(settings, 0, tmp_path / "raw").outcomes["train"] == {"ok": 1, "missing": 1}
