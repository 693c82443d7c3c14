"""The file of people's verdicts; how tags become its lines is tested with a real dataset in test_curation.py."""

from pathlib import Path

import pytest

from pbe.curation.verdicts import read_verdicts, write_verdicts

VERDICTS = {("image", "train", "b"): "reject", ("box", "train", "a_001"): "reject", ("image", "train", "a"): "keep"}


def test_what_is_written_is_read_back_sorted(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.csv"
    write_verdicts(path, VERDICTS)
    assert read_verdicts(path) == VERDICTS
    assert path.read_text().splitlines() == [
        "kind,split,id,verdict",
        "box,train,a_001,reject",
        "image,train,a,keep",
        "image,train,b,reject",
    ]


def test_no_file_means_no_verdicts(tmp_path: Path) -> None:
    assert read_verdicts(tmp_path / "none.csv") == {}


def test_the_projects_file_is_there_and_empty() -> None:
    assert read_verdicts(Path(__file__).parents[2] / VERDICTS) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind,split,id,verdict\nimage,train,a,perhaps\n", r"v.csv: line 2: image,train,a,perhaps is no verdict"),
        ("kind,split,id,verdict\nimage,train,a,keep\npixel,train,a,keep\n", r"v.csv: line 3: pixel"),
        ("kind,split,verdict\n", r"v.csv: its columns are kind, split, verdict; they must be kind, split, id, verdict"),
        ("", r"v.csv: not a readable CSV file"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_verdicts(tmp_path / "v.csv")
