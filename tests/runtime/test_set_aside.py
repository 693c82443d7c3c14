"""What a stage needs no longer: quickly made files are removed, others are moved aside; either is said."""

import os
from pathlib import Path

import pytest

from pbe.runtime.set_aside import EXPENSIVE_S, aside_of, discard, duration


def make(folder: Path, **ages: float) -> list[Path]:
    """Write a file for each name, modified so many seconds after the first."""
    folder.mkdir(exist_ok=True)
    for name, age in ages.items():
        (folder / name).write_text(name)
        os.utime(folder / name, (1e9 + age, 1e9 + age))
    return [folder / name for name in ages]


def test_files_that_took_long_are_moved_and_the_place_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = make(tmp_path / "latents", a=0, b=3 * 3600)
    aside = aside_of(tmp_path / "latents") / "old"
    discard({file: aside / file.name for file in files}, "encode: another key")
    assert {path.name: path.read_text() for path in aside.iterdir()} == {"a": "a", "b": "b"}
    assert list((tmp_path / "latents").iterdir()) == []
    said = capsys.readouterr().err
    assert (
        said
        == f"encode: another key: moved 2 files, which took 3.0 h to make, to {aside}; to delete them: rm -r {aside}\n"
    )


def test_files_that_took_less_than_ten_minutes_are_removed_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = make(tmp_path / "latents", a=0, b=EXPENSIVE_S)
    discard({file: tmp_path / "aside" / file.name for file in files}, "encode: another key")
    assert [path.name for path in tmp_path.rglob("*")] == ["latents"]
    assert capsys.readouterr().err == "encode: another key: removed 2 files\n"


def test_one_file_took_the_time_since_its_run_started(tmp_path: Path) -> None:
    started, file = make(tmp_path / "latents", key=0, shard=EXPENSIVE_S + 1)
    discard({file: tmp_path / "aside/shard"}, "encode: another key", started=started)
    assert (tmp_path / "aside/shard").exists()
    assert started.exists()


def test_nothing_to_discard_is_not_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    discard({}, "encode: another key")
    assert capsys.readouterr().err == ""


def test_durations() -> None:
    assert [duration(seconds) for seconds in (660, 5400, 200_000)] == ["11 min", "1.5 h", "2.3 days"]
