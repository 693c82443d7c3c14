"""A case of the chaos suite from its beginning to its row, with a shell script in the place of `dvc repro`."""

import shutil
from pathlib import Path

import pytest

from benchmarks.chaos import suite
from benchmarks.chaos.cases import Case
from benchmarks.chaos.rooms import Room, can_mount, mount

LOCK = "stages:\n  train:\n    cmd: train\n    outs:\n    - path: models/pbe\n      md5: aa\n"
SCRIPT = """
if [ ! -f models/pbe ]; then
    sleep 0.4
    { echo weights >models/part && cp whole.lock part && mv models/part models/pbe && mv part dvc.lock; } ||
        { echo "error: models/pbe: cannot be written"; exit 2; }
fi
"""
SECONDS = 0.4


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    monkeypatch.setattr(suite, "REPRO", ("sh", "repro.sh"))
    made = Room(tmp_path)
    (made.pristine / "models").mkdir(parents=True)
    (made.pristine / "models/pbe").write_text("weights\n")
    for name in ("dvc.lock", "whole.lock"):
        (made.pristine / name).write_text(LOCK)
    (made.pristine / "repro.sh").write_text(SCRIPT)
    made.seconds = {"train": SECONDS}
    return made


def case(kind: str, part: float = 0.3, choice: float = 0.0, at_once: bool = False) -> Case:
    return Case(kind, "train", part, choice, at_once)


@pytest.mark.parametrize("kind", ["KILL", "clock jump"])
def test_a_stage_that_was_killed_completes_with_the_same_bits(room: Room, kind: str) -> None:
    row = suite.run_case(room, case(kind), seed=0)
    assert (row.same_bits, row.left, row.faults) == (True, [], [])
    assert row.seconds is not None
    assert "killed" in row.happened
    assert not room.folder.exists()


def test_a_stage_that_had_ended_is_disturbed_earlier(room: Room) -> None:
    room.seconds = {"train": 0.8}
    row = suite.run_case(room, case("KILL", part=0.99), seed=0)
    assert row.faults == []
    assert float(row.moment.removesuffix(" s")) < 0.7


def test_other_bits_are_a_fault(room: Room) -> None:
    (room.pristine / "models/pbe").write_text("other weights\n")
    row = suite.run_case(room, case("KILL"), seed=0)
    assert row.same_bits is False
    assert row.faults == ["1 differ: models/pbe"]


def test_a_process_that_is_left_is_a_fault_and_is_ended(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "LEFT_S", 0.1)
    (room.pristine / "repro.sh").write_text(f"sleep 300 &\n{SCRIPT}")
    row = suite.run_case(room, case("KILL", at_once=True), seed=0)
    assert "still running: sleep" in row.faults
    assert room.processes() == []


def test_a_repro_that_needs_a_hand_is_a_fault(room: Room) -> None:
    (room.pristine / "repro.sh").write_text(f"[ -f models/pbe ] || mkdir locked || exit 1\n{SCRIPT}")
    row = suite.run_case(room, case("clock jump"), seed=0)
    assert any(fault.startswith("dvc repro exited with 1: mkdir:") for fault in row.faults)


def test_a_full_disk_and_a_read_only_folder_end_with_a_message_and_then_complete(room: Room) -> None:
    if not can_mount(room.pristine.parent / "mounted"):
        pytest.skip("this user cannot mount a file system")
    for kind in ("full disk", "read-only folder"):
        row = suite.run_case(room, case(kind), seed=0)
        assert row.happened.endswith("exit code 2: error: models/pbe: cannot be written"), kind
        assert (row.same_bits, row.faults) == (True, []), kind
    assert not room.folder.exists()


def test_file_systems_that_a_killed_suite_left_are_unmounted(room: Room) -> None:
    if not can_mount(room.pristine.parent / "mounted"):
        pytest.skip("this user cannot mount a file system")
    room.folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(room.folder))
    (room.folder / "data").mkdir()
    mount("--bind", str(room.folder / "data"), str(room.folder / "data"))
    Room(room.folder.parent).clear()
    assert not room.folder.exists()


def test_the_folder_is_that_of_the_undisturbed_project(room: Room) -> None:
    shutil.copytree(room.pristine, room.folder)
    assert room.differences() == []
    with room.opened(("train",)):
        assert not (room.folder / "models/pbe").exists()
        assert "dvc.lock: models/pbe" in room.differences()
