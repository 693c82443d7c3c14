"""Images that a narrower selection leaves out are moved aside when they took long to fetch."""

import os
from pathlib import Path

import polars as pl
import pytest

from pbe.acquisition.shard_plan import Folders, Plan
from pbe.dataset.image_shards import scan_shard, write_tar

IDS = pl.Series([f"{number:016x}" for number in range(6)])


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Return a project with two shards of three images each, the second an hour younger than the first."""
    folders = Folders.within(tmp_path / "raw", tmp_path / ".raw.parts")
    for number in (0, 1):
        path = folders.images / f"train-{number:05d}.tar"
        write_tar(path, ((image_id, b"JPEG") for image_id in IDS[3 * number : 3 * number + 3]))
        os.utime(path, (1e9 + 3600 * number,) * 2)
    return folders


def test_a_narrower_selection_moves_the_shards_with_other_images(
    folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan({"train": IDS.gather([0, 3])}, 3, folders)
    assert len(list(folders.old.iterdir())) == 2  # to copy the two images from
    plan.release(plan.shards[0])
    plan.discard_unwanted()
    aside = folders.images.parent.with_name("raw.aside")
    assert sorted(len(scan_shard(path)) for path in aside.iterdir()) == [3, 3]
    assert f"images that are not selected now: moved 2 files, which took 1.0 h to make, to {aside};" in (
        capsys.readouterr().err
    )


def test_other_sizes_of_shards_leave_nothing_behind(folders: Folders) -> None:
    plan = Plan({"train": IDS}, 6, folders)
    plan.release(plan.shards[0])
    plan.discard_unwanted()
    assert list(folders.old.iterdir()) == []
    assert not folders.images.parent.with_name("raw.aside").exists()
