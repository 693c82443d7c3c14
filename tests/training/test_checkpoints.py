"""Checkpoints: atomic, checked, the newest few kept, and safe on a full disk."""

import errno
import logging
import pickle
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pbe.runtime.ray_cluster import as_user_error
from pbe.training.checkpoints import find_newest, list_checkpoints, load_checkpoint, remove_leftovers, save_checkpoint


def state(step: int, size: int = 3) -> dict[str, Any]:
    return {"step": step, "model": {"w": torch.full((size,), float(step))}, "records": [[1, 0.5, None]]}


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 64 KiB, as on a disk that is almost full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_saved_state_is_loaded_unchanged(tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path, 5, state(5), keep=2)
    assert find_newest(tmp_path) == saved
    loaded = load_checkpoint(saved)
    assert (loaded["step"], loaded["records"]) == (5, [[1, 0.5, None]])
    assert torch.equal(loaded["model"]["w"], torch.full((3,), 5.0))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 11):
        save_checkpoint(tmp_path, step, state(step), keep=2)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000003", "step-00000011"]


def flip(content: bytearray) -> None:
    content[len(content) // 2] ^= 1


def truncate(content: bytearray) -> None:
    del content[len(content) // 2 :]


@pytest.mark.parametrize("damage", [flip, truncate, bytearray.clear])
def test_a_damaged_checkpoint_is_skipped_with_a_warning_and_can_be_saved_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytearray], None]
) -> None:
    good = save_checkpoint(tmp_path, 1, state(1), keep=2)
    damaged = save_checkpoint(tmp_path, 2, state(2), keep=2)
    content = bytearray((damaged / "state.pt").read_bytes())
    damage(content)
    (damaged / "state.pt").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert find_newest(tmp_path) == good
    assert str(damaged) in caplog.text
    again = save_checkpoint(tmp_path, 2, state(2), keep=2)
    assert find_newest(tmp_path) == again


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_last_good_checkpoint_and_nothing_incomplete(tmp_path: Path) -> None:
    good = save_checkpoint(tmp_path, 1, state(1), keep=1)
    with pytest.raises(OSError) as raised:  # noqa: PT011
        save_checkpoint(tmp_path, 2, state(2, size=1 << 16), keep=1)
    assert raised.value.errno == errno.EFBIG
    assert raised.value.filename == str(tmp_path / "step-00000002")
    assert as_user_error(pickle.loads(pickle.dumps(raised.value))) is not None
    assert list(tmp_path.iterdir()) == [good]
    assert find_newest(tmp_path) == good


def test_the_incomplete_files_of_a_killed_writer_are_no_checkpoint_and_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / ".step-00000009.123").mkdir()
    (tmp_path / "step-00000008").mkdir()
    assert find_newest(tmp_path) is None
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000008"]
