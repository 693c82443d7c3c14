"""Cases of own data: encodings, spaces, empty fields and YAML's booleans; splits by folders, files, lists and tags."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pbe.acquisition.importers.split_names import split_in_file_name
from pbe.demo.tiny_sets import BOX, coco, csv, picture, voc, write, yolo
from pbe.errors import UserError
from tests.support.own_cases import imported

CAT = ("Cat", *BOX)
CENTRE = ("Cat", 80, 60, 240, 180)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "my-data"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_with_a_byte_order_mark_or_in_utf_16_is_read(root: Path, encoding: str) -> None:
    for n in range(3):
        picture(root / f"{n}.jpg")
    coco(root / "instances.json", [f"{n}.jpg" for n in range(3)], label="Bär", encoding=encoding)
    assert imported("coco", root).all_boxes() == [("Bär", *BOX)] * 3


def test_a_csv_file_in_cp1252_is_an_error_that_names_file_and_line(root: Path) -> None:
    picture(root / "0.jpg")
    csv(root, ["0.jpg,Cat,20,60,140,160", "0.jpg,Bär,20,60,140,160"])
    path = root / "boxes.csv"
    path.write_bytes(path.read_text().encode("cp1252"))
    with pytest.raises(UserError, match=r"boxes\.csv: line 3 is not UTF-8; save the file as UTF-8"):
        imported("csv", root)


def test_a_yaml_file_in_gbk_is_an_error_that_names_it(root: Path) -> None:
    yolo(root, ["0 0.5 0.5 0.5 0.5"] * 3)
    write(root / "data.yaml", "train: images/train\nval: images/val\nnames: [狗]\n".encode("gbk"))
    with pytest.raises(UserError, match=r"data\.yaml: line 3 is not UTF-8; save the file as UTF-8"):
        imported("yolo", root)


@pytest.mark.parametrize(("declared", "written"), [
    ("gb2312", "gb2312"), ("GBK", "gbk"), ("Shift_JIS", "shift_jis"), ("utf-16", "utf-16"), ("utf-16", "utf-8"),
    ("UTF-8", "utf-8-sig"),
])  # fmt: skip
def test_xml_is_read_in_the_encoding_that_it_declares(root: Path, declared: str, written: str) -> None:
    for n in range(2):
        picture(root / f"JPEGImages/{n}.jpg")
        path = voc(root / f"Annotations/{n}.xml", f"{n}.jpg", head=f'<?xml version="1.0" encoding="{declared}"?>')
        path.write_bytes(path.read_text().replace("Cat", "山").encode(written))
    assert imported("voc", root).all_boxes() == [("山", *BOX)] * 2


@pytest.mark.parametrize(("declared", "message"), [
    ("utf-8", "is not UTF-8; save the file as UTF-8"),
    ("big5-x", "the encoding 'big5-x' is not known"),
    ("ascii", "is not UTF-8; save the file as UTF-8"),
])  # fmt: skip
def test_xml_in_another_encoding_than_it_declares_is_an_error(root: Path, declared: str, message: str) -> None:
    picture(root / "JPEGImages/0.jpg")
    path = voc(root / "Annotations/0.xml", "0.jpg", head=f'<?xml version="1.0" encoding="{declared}"?>')
    path.write_bytes(path.read_text().replace("Cat", "Bär").encode("cp1252"))
    with pytest.raises(UserError, match=message):
        imported("voc", root)


def test_spaces_around_fields_are_no_part_of_them(root: Path) -> None:
    for n in range(4):
        picture(root / f"{n}.jpg")
    csv(root, [f"{n}.jpg, Cat , 20, 60, 140, 160" if n % 2 else f"{n}.jpg,Cat,20,60,140,160" for n in range(4)])
    assert imported("csv", root).all_boxes() == [CAT] * 4


def test_semicolons_and_decimal_commas_are_read(root: Path) -> None:
    picture(root / "0.jpg"), picture(root / "1.jpg")
    rows = ["image;label;x0;y0;x1;y1", *(f"{n}.jpg;Cat;20,0;60,0;140,0;160,0" for n in range(2))]
    write(root / "boxes.csv", "\r\n".join(rows))
    assert imported("csv", root).all_boxes() == [CAT] * 2


@pytest.mark.parametrize(("row", "message"), [
    ("3.jpg,,20,60,140,160", "boxes.csv: line 4: the class is empty"),
    (",Cat,20,60,140,160", "boxes.csv: line 4: the image is empty"),
    ("3.jpg,Cat,20,60,140", "boxes.csv: line 4: 5 fields, but 6 columns"),
    ("3.jpg,Cat,20,60,140,", "boxes.csv: line 4: .* are not all numbers"),
])  # fmt: skip
def test_a_row_that_is_incomplete_is_an_error_with_its_line(root: Path, row: str, message: str) -> None:
    picture(root / "0.jpg")
    csv(root, ["0.jpg,Cat,20,60,140,160", "", row])
    with pytest.raises(UserError, match=message):
        imported("csv", root)


def test_rows_for_pictures_without_objects_are_counted(root: Path) -> None:
    for n in range(6):
        picture(root / f"{n}.jpg")
    csv(root, [f"{n}.jpg,Cat,20,60,140,160" if n < 4 else f"{n}.jpg,,,,," for n in range(6)] + ["0.jpg,,,,,"])
    found = imported("csv", root)
    assert found.all_boxes() == [CAT] * 4
    assert found.report.skipped == {"image_without_boxes": 2}


@pytest.mark.parametrize("names", ["[yes, no]", "{0: on, 1: off}", "{0: null, 1: 2020-01-01}", "[1.0, 010]"])
def test_yaml_names_stay_text(root: Path, names: str) -> None:
    yolo(root, [f"{n % 2} 0.5 0.5 0.5 0.5" for n in range(4)], names=names)
    words = [word.split(":")[-1].strip() for word in names.strip("[]{}").split(",")]
    assert imported("yolo", root).all_boxes() == [(words[n % 2], *CENTRE[1:]) for n in range(4)]


@pytest.mark.parametrize(
    "file", ["train/_annotations.coco.json", "annotations/instances_train2017.json", "pets-train.json"]
)
def test_a_coco_files_split_is_its_folders_or_its_names_word(root: Path, file: str) -> None:
    for split, count in (("train", 3), ("valid", 2), ("test", 2)):
        names = [f"{split}-{n}.jpg" for n in range(count)]
        place = root / file.replace("train", split)
        for name in names:
            picture(place.parent / name)
        coco(place, names)
    found = imported("coco", root)
    assert (found.num_images("train"), found.num_images("validation")) == (3, 2)
    assert found.report.skipped == {"images of split test": 2}
    as_validation = imported("coco", root, test_split="validation")
    assert (as_validation.num_images("train"), as_validation.num_images("validation")) == (3, 4)


def test_coco_images_without_boxes_are_counted(root: Path) -> None:
    for n in range(4):
        picture(root / f"{n}.jpg")
    path = coco(root / "instances.json", [f"{n}.jpg" for n in range(4)])
    content = json.loads(path.read_text())
    content["annotations"] = content["annotations"][:3]
    path.write_text(json.dumps(content))
    assert imported("coco", root).report.skipped == {"image_without_boxes": 1}


def test_images_of_one_coco_file_take_the_split_of_their_folders(root: Path) -> None:
    names = ["train/0.jpg", "train/1.jpg", "val/2.jpg", "test/3.jpg"]
    for name in names:
        picture(root / "images" / name)
    coco(root / "instances.json", names)
    found = imported("coco", root)
    assert found.splits == {"0": "train", "1": "train", "2": "validation"}


@pytest.mark.parametrize(("stem", "split"), [
    ("instances_train2017", "train"), ("val", "validation"), ("train_annotations.coco", "train"), ("pets-test", "test"),
    ("train-00000-of-00002", "train"), ("train_station", None), ("retrain", None), ("valve", None), ("trainval", None),
])  # fmt: skip
def test_a_word_of_a_file_name_is_a_split_only_as_a_whole(stem: str, split: str | None) -> None:
    assert split_in_file_name(stem) == split


def write_masks(root: Path, folders: list[str]) -> Path:
    mask = np.zeros((240, 320), np.uint8)
    mask[60:160, 20:140] = 255
    for folder in folders:
        for n in range(3):
            name = f"{folder}/{folder.replace('/', '-')}{n}"
            picture(root / f"images/{name}.jpg")
            (root / f"masks/{folder}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / f"masks/{name}.png")
    return root


def test_a_class_called_train_is_no_split(root: Path) -> None:
    found = imported("masks", write_masks(root, ["bus", "train", "valve"]))
    assert {box[0] for box in found.all_boxes()} == {"bus", "train", "valve"}
    assert len(found.boxes) == 9
    drawn = {image_id for image_id, split in found.splits.items() if split == "validation"}
    assert 0 < len(drawn) < 9
    assert drawn != {image_id for image_id in found.splits if image_id.startswith("valve")}


def test_a_class_called_train_inside_the_split_train_is_a_class(root: Path) -> None:
    found = imported("masks", write_masks(root, ["train/bus", "train/train", "val/train", "test/bus"]))
    assert {image_id: (box[0], found.splits[image_id]) for image_id, (box,) in found.boxes.items()} == {
        **{f"train-bus{n}": ("bus", "train") for n in range(3)},
        **{f"train-train{n}": ("train", "train") for n in range(3)},
        **{f"val-train{n}": ("train", "validation") for n in range(3)},
    }
    assert found.report.skipped == {"images of split test": 3}


@pytest.mark.parametrize("place", ["ImageSets/Main", "ImageSets", "."])
def test_vocs_lists_are_honoured_wherever_they_are(root: Path, place: str) -> None:
    base = root / "VOCdevkit" / "VOC2007"
    for n in range(8):
        picture(base / f"JPEGImages/{n}.jpg")
        voc(base / f"Annotations/{n}.xml", f"{n}.jpg")
    for name, numbers in (("train", "012"), ("val", "34"), ("trainval", "012345"), ("test", "67")):
        write(base / place / f"{name}.txt", "".join(f"{n}\n" for n in numbers))
    write(base / place / "cat_train.txt", "0 -1\n7  1\n")
    found = imported("voc", root)
    splits = [found.splits.get(str(n)) for n in range(8)]
    assert splits[:5] == ["train"] * 3 + ["validation"] * 2
    assert splits[5] in ("train", "validation")
    assert splits[6:] == [None, None]
    assert found.report.skipped == {"images of split test": 2}


@pytest.mark.parametrize(
    "line", ["café_{n}", "images/Café_{n}.JPG", ".\\images\\café_{n}.jpg", "/home/me/images/café_{n}.jpg"]
)
def test_a_list_names_images_in_any_form(root: Path, line: str) -> None:
    for n in range(4):
        picture(root / f"images/café_{n}.jpg")
    coco(root / "instances.json", [f"café_{n}.jpg" for n in range(4)])
    for name, numbers in (("train", "01"), ("val", "2"), ("test", "3")):
        write(root / f"{name}.txt", "".join(f"{line.format(n=n)}\n" for n in numbers))
    assert imported("coco", root).splits == {"café_0": "train", "café_1": "train", "café_2": "validation"}


def test_an_image_in_two_lists_is_an_error_that_names_both(root: Path) -> None:
    picture(root / "JPEGImages/0.jpg")
    voc(root / "Annotations/0.xml", "0.jpg")
    for name in ("train", "val"):
        write(root / f"ImageSets/Main/{name}.txt", "0\n")
    with pytest.raises(UserError, match=r"val\.txt: line 1: '0' is in .*train\.txt too; list it once"):
        imported("voc", root)


@pytest.mark.parametrize("word", ["val", "valid", "Validation", " VAL "])
def test_a_csv_file_says_the_split_in_the_same_words(root: Path, word: str) -> None:
    for n in range(3):
        picture(root / f"{n}.jpg")
    rows = [
        "image,label,x0,y0,x1,y1,split",
        *(f"{n}.jpg,Cat,20,60,140,160,{s}" for n, s in enumerate(["train", word, "test"])),
    ]
    write(root / "boxes.csv", "\n".join(rows))
    found = imported("csv", root)
    assert found.splits == {"0": "train", "1": "validation"}
    assert found.report.skipped == {"images of split test": 1}
