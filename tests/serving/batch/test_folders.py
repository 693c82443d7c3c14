"""The folder convention of `pbe batch`: DIR/NAME/{source,mask,exemplar}.*"""

import csv
import json
import shutil
from pathlib import Path

import pytest

from pbe.errors import UserError
from pbe.serving.batch.folders import rows_of_folder
from pbe.serving.batch.rows import task_of
from pbe.serving.commands.main import main


@pytest.fixture
def pictures(images: Path) -> Path:
    """Return a folder with a complete picture `a`, one that lacks a mask, one with two sources, and other files."""
    root = images / "pictures"
    for name, files in (
        ("a", ("source.png", "mask.png", "exemplar.JPG")),
        ("b", ("source.png", "exemplar.jpg")),
        ("c", ("source.png", "source.bmp", "mask.png", "exemplar.jpg")),
        ("notes", ("readme.txt", "source.txt")),
        (".hidden", ("source.png",)),
    ):
        (root / name).mkdir(parents=True)
        for file in files:
            shutil.copy(images / {"s": "s.png", "m": "m.png", "e": "e.jpg", "r": "m.png"}[file[0]], root / name / file)
    return root


def test_each_folder_with_a_picture_is_a_row(pictures: Path) -> None:
    rows = rows_of_folder(pictures)
    assert [(row.number, row.name) for row in rows] == [(1, "a"), (2, "b"), (3, "c")]
    assert rows[0].fields == {
        "name": "a", "source": "a/source.png", "mask": "a/mask.png", "exemplar": "a/exemplar.JPG",
    }  # fmt: skip


def test_several_pictures_of_the_object_are_numbered(pictures: Path) -> None:
    (pictures / "a/exemplar.JPG").rename(pictures / "a/exemplar-2.jpg")
    shutil.copy(pictures / "b/exemplar.jpg", pictures / "a/exemplar-1.jpg")
    row = rows_of_folder(pictures)[0]
    assert row.fields["exemplar"] == ["a/exemplar-1.jpg", "a/exemplar-2.jpg"]
    assert task_of(row).exemplars == (pictures / "a/exemplar-1.jpg", pictures / "a/exemplar-2.jpg")


def test_what_a_folder_lacks_or_has_twice_is_counted(
    pictures: Path, model_folder: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = images / "painted"
    flags = ["batch", "--num-steps=2", f"--folder={pictures}", f"--out={out}", f"--model={model_folder}"]
    assert main(flags) == 2
    assert "2 of 3 rows could not be painted" in capsys.readouterr().err
    with (out / "errors.csv").open() as file:
        errors = list(csv.DictReader(file))
    assert [(error["name"], error["reason"].split(":")[0]) for error in errors] == [
        ("b", "needs a mask or a box"),
        ("c", "source is ['c/source.bmp', 'c/source.png']"),
    ]
    coco = json.loads((out / "annotations/instances_train.json").read_text())
    assert [(image["file_name"], image["source"]) for image in coco["images"]] == [("images/a.png", "a/source.png")]

    shutil.copy(images / "m.png", pictures / "b/mask.png")
    (pictures / "c/source.bmp").unlink()
    assert main(flags) == 0
    assert "2 pictures painted, 1 were there" in capsys.readouterr().out


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no picture; a picture NAME needs"):
        rows_of_folder(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        rows_of_folder(tmp_path / "absent")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "one of the arguments --rows --folder --boxes is required"),
        (["--rows=a.csv", "--boxes=b"], "argument --boxes: not allowed with argument --rows"),
        (["--folder=a", "--per-box=2"], "--per-box belongs to --boxes"),
    ],
)
def test_exactly_one_flag_names_the_pictures(
    flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["batch", f"--out={tmp_path / 'out'}", *flags]) == 2
    assert words in capsys.readouterr().err
