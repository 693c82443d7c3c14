"""The file of reviewers' verdicts; test_selection.py tests how tags in a FiftyOne dataset become its lines."""

from pathlib import Path

import pytest

from pbe import layout
from pbe.curation.verdicts import read_verdicts, write_verdicts
from pbe.errors import UserError

SAMPLE = {("image", "train", "b"): "reject", ("box", "train", "a_001"): "reject", ("image", "train", "a"): "keep"}


def test_what_is_written_is_read_back_sorted(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.csv"
    write_verdicts(path, SAMPLE)
    assert read_verdicts(path) == SAMPLE
    assert path.read_text().splitlines() == [
        "kind,split,id,verdict",
        "box,train,a_001,reject",
        "image,train,a,keep",
        "image,train,b,reject",
    ]


def test_no_file_means_no_verdicts(tmp_path: Path) -> None:
    assert read_verdicts(tmp_path / "none.csv") == {}


def test_the_file_in_git_has_no_verdicts() -> None:
    assert read_verdicts(Path(__file__).parents[2] / layout.VERDICTS) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind,split,id,verdict\nimage,train,a,perhaps\n", r"v.csv: line 2: image,train,a,perhaps is not a verdict"),
        ("kind,split,id,verdict\nimage,train,a,keep\npixel,train,a,keep\n", r"v.csv: line 3: pixel"),
        ("kind,split,verdict\n", r"v.csv: its columns are kind, split, verdict; they must be kind, split, id, verdict"),
        ("", r"v.csv: the file is empty"),
        ("kind,split,id,verdict\nimage,train,a,keep,b\n", r"v.csv: not a readable CSV file"),
    ],
)
def test_a_malformed_file_or_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_verdicts(tmp_path / "v.csv")
