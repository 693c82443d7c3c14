"""Packing the photographs: which frames and pictures, their boxes and clips, and that no picture of another licence."""

import zipfile
from pathlib import Path

import pytest

from pbe.demo.photo_weights.photos import INDEX, Photo, PhotoSet, pack
from pbe.errors import UserError
from tests.support.photo_sets import write_fod_a, write_photos


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("photographs")
    return write_fod_a(root / "fod-a"), write_photos(root / "photos")


@pytest.fixture(scope="module")
def packed(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "photos.zip"
    pack(*folders, out)
    return out


def frames(packed: Path, split: str) -> list[Photo]:
    return [photo for photo in PhotoSet(packed).of(split) if photo.file.startswith("fod-a/")]


def test_every_second_frame_of_a_training_clip_is_packed_and_every_fifth_of_one_held_back(packed: Path) -> None:
    assert sorted({photo.file for photo in frames(packed, "train")}) == [
        f"fod-a/{name}.jpg" for name in ("000000", "000002", "000004", "000011", "000013")
    ]
    assert [photo.file for photo in frames(packed, "val")] == ["fod-a/000005.jpg", "fod-a/000010.jpg"]


def test_a_clip_is_named_by_its_label_and_scene_and_lies_in_one_split(packed: Path) -> None:
    assert {photo.clip for photo in frames(packed, "train")} == {"Bolt/0", "AdjustableClamp/2"}
    assert {photo.clip for photo in frames(packed, "val")} == {"Bolt/1"}


def test_each_object_of_a_frame_is_a_row_and_its_corners_count_from_0(packed: Path) -> None:
    first = [photo for photo in frames(packed, "train") if photo.file == "fod-a/000000.jpg"]
    assert [photo.label for photo in first] == ["Bolt", "Nail"]
    assert {photo.box for photo in first} == {(10, 20, 60, 80)}  # first pixel, and the one after the last


def test_of_the_photos_only_caltechs_are_packed(packed: Path) -> None:
    others = [photo for photo in PhotoSet(packed).photos if not photo.file.startswith("fod-a/")]
    train, val = "caltech-101/airplanes/p_train.jpg", "caltech-101/airplanes/p_val.jpg"
    assert others == [
        Photo(train, "train", "airplane", train, (8, 20, 78, 70)),
        Photo(val, "val", "airplane", val, (8, 20, 78, 70)),
    ]
    names = zipfile.ZipFile(packed).namelist()
    assert {name.split("/")[0] for name in names} == {"fod-a", "caltech-101", INDEX}
    assert len(names) == len(set(names))


def test_pictures_are_packed_as_they_are_and_read_as_rgb(packed: Path, folders: tuple[Path, Path]) -> None:
    original = folders[0] / "JPEGImages" / "000002.jpg"
    assert zipfile.ZipFile(packed).read("fod-a/000002.jpg") == original.read_bytes()
    image = PhotoSet(packed).read("caltech-101/airplanes/p_val.jpg")
    assert image.shape == (90, 120, 3)
    assert image.dtype == "uint8"


def test_the_same_folders_give_the_same_bytes(packed: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert pack(*folders, tmp_path / "again.zip") == {"train": 7, "val": 3}
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


@pytest.mark.parametrize(
    ("index", "file", "option"), [(0, "scenes.csv", "--fod-a"), (1, "instances_train.json", "--photos")]
)
def test_a_folder_of_another_layout_is_one_line(
    folders: tuple[Path, Path], tmp_path: Path, index: int, file: str, option: str
) -> None:
    wrong = [tmp_path if i == index else folder for i, folder in enumerate(folders)]
    with pytest.raises(UserError, match=f"{file}: no such file; {option} names"):
        pack(*wrong, tmp_path / "photos.zip")
    assert not (tmp_path / "photos.zip").exists()


def test_a_missing_packed_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no packed photographs; make them with --fod-a DIR --photos DIR"):
        PhotoSet(tmp_path / "photos.zip")
