"""Cases of own data: names that differ from those on disk, files that are no data, and which image a box belongs to."""

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from pbe.demo.tiny_sets import BOX, coco, csv, picture, voc, write, yolo
from pbe.errors import UserError
from tests.support.own_cases import imported

CAT = ("Cat", *BOX)
CENTRE = ("Cat", 80, 60, 240, 180)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "my-data"


FORMS = {
    "separators": ("images\\{n}.jpg", "images/{n}.jpg", "separators"),
    "composed accents": ("Café_{n}.jpg", unicodedata.normalize("NFD", "images/Café_{n}.jpg"), "unicode_form"),
    "decomposed accents": (unicodedata.normalize("NFD", "Café_{n}.jpg"), "images/Café_{n}.jpg", "unicode_form"),
    "encoded": ("caf%C3%A9_{n}.jpg", "images/café_{n}.jpg", "url_encoding"),
    "upper case": ("{n}.JPG", "images/{n}.jpg", "case"),
    "lower case": ("{n}.jpg", "images/{n}.JPG", "case"),
    "no suffix": ("{n}", "images/{n}.jpg", "suffix"),
    "other suffix": ("{n}.png", "images/{n}.jpg", "suffix"),
    "other root": ("/home/me/set/images/{n}.jpg", "images/{n}.jpg", "other_root"),
    "other root on Windows": ("C:\\set\\images\\{n}.jpg", "images/{n}.jpg", "other_root"),
    "a URL": ("https://example.com/set/images/{n}.jpg", "images/{n}.jpg", "other_root"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_name_in_another_form_is_found_and_counted(root: Path, form: str) -> None:
    name, file, kind = FORMS[form]
    for n in range(4):
        picture(root / file.format(n=n), format="JPEG")
    coco(root / "instances.json", [name.format(n=n) for n in range(4)])
    found = imported("coco", root)
    assert found.all_boxes() == [CAT] * 4
    assert found.report.adjusted == {f"images_found_by_{kind}": 4}


def test_images_behind_linked_folders_are_found(root: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for n in range(count):
            picture(root.parent / "disk" / f"{split}2017" / f"{split}{n}.jpg")
        root.mkdir(exist_ok=True)
        (root / f"{split}2017").symlink_to(root.parent / "disk" / f"{split}2017")
        coco(root / "annotations" / f"instances_{split}2017.json", [f"{split}{n}.jpg" for n in range(count)])
    (root / "loop").symlink_to(root)
    found = imported("coco", root)
    assert (found.num_images("train"), found.num_images("validation")) == (3, 2)
    assert found.report.adjusted == {"images_found_by_linked_folder": 5}


def test_a_name_with_its_folder_is_never_found_in_another(root: Path) -> None:
    for n in range(6):
        picture(root / f"images/cam1/{n}.jpg")
    names = [f"cam{cam}/{n}.jpg" for cam in (1, 2) for n in range(6)]
    coco(root / "instances.json", names)
    found = imported("coco", root, max_lost_frac=0.6)
    assert found.all_boxes() == [CAT] * 6
    assert sum(counts.get("missing", 0) for counts in found.report.outcomes.values()) == 6
    message = (
        r"6 of 12 annotated images are missing \('cam2/0.jpg', 'cam2/1.jpg', 'cam2/2.jpg', \.\.\.\); images/cam1/0.jpg"
    )
    with pytest.raises(UserError, match=message):
        imported("coco", root)


def test_a_name_without_folder_is_not_found_in_the_folder_of_another_split(root: Path) -> None:
    picture(root / "val2017/0.jpg")
    picture(root / "val2017/1.jpg")
    picture(root / "train2017/2.jpg")
    coco(root / "instances_train2017.json", ["0.jpg", "2.jpg"])
    coco(root / "instances_val2017.json", ["0.jpg", "1.jpg"])
    found = imported("coco", root, max_lost_frac=0.5)
    assert found.report.outcomes == {"train": {"ok": 1, "missing": 1}, "validation": {"ok": 2}}


@pytest.mark.parametrize(("files", "cause"), [
    ([], "no image file is below the root"),
    (["other/x.jpg"], "the root holds 1 images such as other/x.jpg"),
])  # fmt: skip
def test_missing_images_are_one_error_with_their_probable_cause(root: Path, files: list[str], cause: str) -> None:
    for file in files:
        picture(root / file)
    csv(root, [f"{n}.jpg,Cat,20,60,140,160" for n in range(5)])
    with pytest.raises(UserError, match=rf"5 of 5 annotated images are missing \('0.jpg', .*{cause}"):
        imported("csv", root)


def test_a_broken_link_is_missing_and_named(root: Path) -> None:
    (root / "images").mkdir(parents=True)
    (root / "images/0.jpg").symlink_to("/nowhere/0.jpg")
    coco(root / "instances.json", ["0.jpg"])
    with pytest.raises(
        UserError, match=r"1 of 1 .* missing \('0\.jpg'\); images/0\.jpg is a link to a file that does not"
    ):
        imported("coco", root)


def test_two_pictures_of_one_stem_are_two_images(root: Path) -> None:
    for n in range(6):
        picture(root / f"images/{n}.jpg"), picture(root / f"images/{n}.png", (240, 320))
    csv(root, [row for n in range(6) for row in (f"{n}.jpg,Cat,20,60,140,160", f"{n}.png,Dog,60,160,200,300")])
    found = imported("csv", root)
    assert found.boxes["3.jpg"] == [CAT]
    assert found.boxes["3.png"] == [("Dog", 60, 160, 200, 300)]
    assert len(found.boxes) == 12


def test_a_name_without_suffix_that_fits_two_pictures_is_an_error(root: Path) -> None:
    picture(root / "images/0.jpg"), picture(root / "images/0.png")
    coco(root / "instances.json", ["0"])
    with pytest.raises(UserError, match=r"'0' matches images/0\.jpg, images/0\.png; give its path"):
        imported("coco", root)


def test_a_picture_of_another_suffix_is_not_taken_for_one_that_has_its_own_boxes(root: Path) -> None:
    picture(root / "images/0.jpg")
    coco(root / "instances.json", ["0.jpg", "0.png"])
    with pytest.raises(UserError, match=r"1 of 2 annotated images are missing \('0\.png'\)"):
        imported("coco", root)


def test_two_images_of_one_id_are_an_error_that_names_both(root: Path) -> None:
    coco(root / "instances.json", ["cats/0.jpg", "dogs/0.jpg"], ids=[0, 0])
    with pytest.raises(UserError, match=r"images\[1\]: id 0 is that of 'cats/0\.jpg' and of 'dogs/0\.jpg'"):
        imported("coco", root)


def test_a_picture_listed_twice_counts_once(root: Path) -> None:
    yolo(root, ["0 0.5 0.5 0.5 0.5"] * 4)
    write(root / "train.txt", "".join(f"./images/train/{n}.jpg\n" for n in (0, 1, 2, 0, 1)))
    write(root / "data.yaml", "train: train.txt\nval: images/val\nnames: [Cat]\n")
    found = imported("yolo", root)
    assert found.all_boxes() == [CENTRE] * 4
    assert found.report.skipped == {"image_listed_twice": 2}


def test_a_picture_listed_for_two_splits_is_an_error(root: Path) -> None:
    yolo(root, ["0 0.5 0.5 0.5 0.5"] * 4)
    write(root / "data.yaml", "train: [images/train, images/val]\nval: images/val\nnames: [Cat]\n")
    with pytest.raises(UserError, match=r"images/val/3\.jpg: listed for both train and validation"):
        imported("yolo", root)


def test_two_coco_ids_of_one_picture_join_their_boxes(root: Path) -> None:
    picture(root / "images/0.jpg"), picture(root / "images/1.jpg")
    coco(root / "a.json", ["0.jpg", "1.jpg"])
    coco(root / "b.json", ["0.jpg"], label="Dog")
    found = imported("coco", root)
    assert found.boxes["0"] == [CAT, ("Dog", *BOX)]
    assert found.report.skipped == {"image_listed_twice": 1}


def test_files_of_the_operating_system_are_left_alone(root: Path) -> None:
    apple_double = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100)
    for n in range(4):
        picture(root / f"JPEGImages/{n}.jpg")
        voc(root / f"Annotations/{n}.xml", f"{n}.jpg")
        write(root / f"Annotations/._{n}.xml", apple_double)
        write(root / f"JPEGImages/._{n}.jpg", apple_double)
        write(root / f"__MACOSX/JPEGImages/{n}.jpg", apple_double)
        write(root / f"Annotations/.ipynb_checkpoints/{n}.xml", "<annotation/>")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        write(root / "JPEGImages" / name, b"\0\1")
    found = imported("voc", root)
    assert found.all_boxes() == [CAT] * 4
    assert not found.report.skipped


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG", ".png", ".webp", ".bmp", ".tiff", ".avif", ".gif"])
def test_every_suffix_that_can_be_decoded_is_read(root: Path, suffix: str) -> None:
    yolo(root, ["0 0.5 0.5 0.5 0.5"] * 3)
    for path in root.rglob("*.jpg"):
        kind = Image.registered_extensions()[suffix.lower()]
        picture(path.with_suffix(suffix), format=kind)
        path.unlink()
    assert imported("yolo", root).all_boxes() == [CENTRE] * 3


def test_long_names_with_emoji_and_signs_are_read(root: Path) -> None:
    names = [f"{n} 🐈 a#b%20c+'d' " + "long " * 40 + ".jpg" for n in range(4)]
    for name in names:
        picture(root / "images" / name)
    csv(root, [f"{name},Cat,20,60,140,160" for name in names])
    found = imported("csv", root)
    assert found.all_boxes() == [CAT] * 4
    assert not found.report.adjusted


def test_a_list_of_windows_paths_is_read(root: Path) -> None:
    yolo(root, ["0 0.5 0.5 0.5 0.5"] * 4)
    for split, names in (("train", "012"), ("val", "3")):
        write(root / f"{split}.txt", "".join(f".\\images\\{split}\\{n}.jpg\r\n" for n in names))
    write(root / "data.yaml", "path: .\ntrain: train.txt\nval: val.txt\nnames: [Cat]\n")
    found = imported("yolo", root)
    assert found.all_boxes() == [CENTRE] * 4
    assert found.report.adjusted == {"images_found_by_separators": 4}


@pytest.mark.parametrize("name", ["{n}", "{n}.png", "img_{n}.jpg", ""])
def test_a_voc_file_name_that_does_not_exist_gives_way_to_the_name_of_the_xml_file(root: Path, name: str) -> None:
    for n in range(4):
        picture(root / f"JPEGImages/{n}.jpg")
        voc(root / f"Annotations/{n}.xml", name.format(n=n))
    assert imported("voc", root).all_boxes() == [CAT] * 4


def test_voc_files_that_all_claim_one_picture_belong_to_their_own(root: Path) -> None:
    for n in range(4):
        picture(root / f"JPEGImages/{n}.jpg")
        voc(root / f"Annotations/{n}.xml", "0.jpg")
    assert imported("voc", root).boxes == {str(n): [CAT] for n in range(4)}


def test_two_pictures_of_one_label_file_are_an_error(root: Path) -> None:
    yolo(root, ["0 0.5 0.5 0.5 0.5"] * 3)
    picture(root / "images/train/0.png")
    with pytest.raises(UserError, match=r"train/0\.txt: it is the label file of .*/0\.jpg and of .*/0\.png; rename"):
        imported("yolo", root)


def test_label_files_with_encoded_names_are_found(root: Path) -> None:
    yolo(root, ["0 0.5 0.5 0.5 0.5"] * 4)
    picture(root / "images/train/0.jpg").rename(root / "images/train/café_0.jpg")
    (root / "labels/train/0.txt").rename(root / "labels/train/caf%C3%A9_0.txt")
    found = imported("yolo", root)
    assert found.boxes["café_0"] == [CENTRE]
    assert found.report.adjusted == {"label_files_found_by_url_encoding": 1}


def test_a_test_folder_that_was_not_exported_is_no_error(root: Path) -> None:
    yolo(root, ["0 0.5 0.5 0.5 0.5"] * 4, more="test: ../test/images\n")
    assert imported("yolo", root).all_boxes() == [CENTRE] * 4
    picture(root / "test/images/9.jpg")
    assert imported("yolo", root).report.skipped == {"images of split test": 1}


def test_labels_are_found_beside_images_in_other_case(root: Path) -> None:
    yolo(root, ["0 0.5 0.5 0.5 0.5"] * 4)
    (root / "images").rename(root / "Images")
    (root / "labels").rename(root / "Labels")
    write(root / "data.yaml", "train: Images/train\nval: Images/val\nnames: [Cat]\n")
    assert imported("yolo", root).all_boxes() == [CENTRE] * 4


def test_yolo_counts_label_files_and_images_without_each_other(root: Path) -> None:
    yolo(root, ["0 0.5 0.5 0.5 0.5"] * 5)
    (root / "labels/train/0.txt").unlink()
    (root / "images/train/1.jpg").unlink()
    write(root / "labels/train/2.txt", "")
    write(root / "labels/train/classes.txt", "Cat\n")
    found = imported("yolo", root)
    assert found.report.outcomes == {"train": {"ok": 1}, "validation": {"ok": 1}}
    expected = {"image_without_label_file": 1, "image_without_boxes": 1, "label_file_without_image": 1}
    assert found.report.skipped == expected
