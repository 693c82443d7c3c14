"""Painted pictures that took long and are not wanted now are moved aside, and used again when they are wanted."""

import os
from pathlib import Path

import numpy as np
import pytest

from pbe.evaluation.painting.keys import keep_results, read_key, write_painted

HOUR = 3600.0


def paint(folder: Path, seconds: float, **keys: str) -> dict[Path, str]:
    """Write a picture for each name and key, the last of them `seconds` after the first."""
    paths = {folder / f"{name}.png": key for name, key in keys.items()}
    for number, (path, key) in enumerate(paths.items()):
        write_painted(path, np.full((4, 4, 3), len(key), np.uint8), key)
        os.utime(path, (1e9 + seconds * number,) * 2)
    return paths


def test_pictures_of_another_model_are_moved_and_found_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "evaluation"
    old = paint(results / "pbe", HOUR, a="old-a", b="old-b")
    new = {path: key.replace("old", "new") for path, key in old.items()}
    assert keep_results(results, new) == new
    assert f"moved 2 files, which took 1.0 h to make, to {tmp_path}/evaluation.aside" in capsys.readouterr().err
    paint(results / "pbe", 1.0, a="new-a", b="new-b")
    assert keep_results(results, new) == {}
    assert keep_results(results, old) == {}
    assert {path: read_key(path) for path in old} == old
    assert list((tmp_path / "evaluation.aside").iterdir()) == []


def test_the_old_picture_is_moved_before_one_of_another_folder_takes_its_place(tmp_path: Path) -> None:
    results = tmp_path / "evaluation"
    paint(results / "pbe", HOUR, a="scale-5", b="scale-5b")
    paint(results / "scale-3", HOUR, a="scale-3")
    wanted = {results / "pbe/a.png": "scale-3"}
    assert keep_results(results, wanted) == {}
    assert read_key(results / "pbe/a.png") == "scale-3"
    assert {path.stem for path in (tmp_path / "evaluation.aside").iterdir()} == {"scale-5", "scale-5b"}


def test_pictures_that_took_seconds_are_removed(tmp_path: Path) -> None:
    results = tmp_path / "evaluation"
    old = paint(results / "pbe", 30.0, a="old-a", b="old-b")
    assert keep_results(results, dict.fromkeys(old, "new")) == dict.fromkeys(old, "new")
    assert list(tmp_path.rglob("*.png")) == []
