"""Own folders acquired by several processes: the bytes, counts, progress and errors of one process."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pbe.acquisition import download, processes, shard_packing
from pbe.acquisition.importers import mask_folders
from pbe.errors import UserError
from pbe.settings import Acquire
from tests.support import parameters

SIDES = (60, 90)
NUM_IMAGES = 14


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two classes with masks; one mask is empty, one image has none, and one image is damaged."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for i in range(NUM_IMAGES):
        name = f"{('Cat', 'Dog')[i % 2]}/{i:02d}"
        write(folder / f"images/{name}.jpg", rng.integers(0, 256, (*SIDES, 3), dtype=np.uint8))
        mask = np.zeros(SIDES, np.uint8)
        if i != 5:
            cv2.circle(mask, (20 + i, 25), 12, 255, -1)
        if i != 8:
            write(folder / f"masks/{name}.png", mask)
    (folder / "images/Cat/02.jpg").write_bytes(b"\xff\xd8 no picture")
    return folder


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after which every run uses two processes."""

    def switch() -> None:
        monkeypatch.setattr(processes.os, "sched_getaffinity", lambda pid: {0, 1})
        monkeypatch.setattr(mask_folders, "MIN_IN_PROCESSES", 1)
        monkeypatch.setattr(shard_packing, "MIN_IN_PROCESSES", 1)

    return switch


def from_masks(root: Path, **changes: Any) -> Acquire:
    given = {"validation_frac": 0.3, "images_per_shard": 5, "max_lost_frac": 0.2, "workers": 3, **changes}
    return parameters.acquire(source="masks", root=str(root), **given)


def acquired(settings: Acquire, out: Path) -> tuple[dict[str, str], object, list[tuple[int, int]]]:
    """Return the digests of all files, the report, and the calls of the progress bar."""
    steps: list[tuple[int, int]] = []
    report = download.acquire(settings, 0, out, progress=lambda done, total, note="": steps.append((done, total)))
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(f.relative_to(out)): hashlib.md5(f.read_bytes()).hexdigest() for f in files}, report, steps


@pytest.mark.parametrize("changes", [{}, {"short_side_px": 40}])
def test_processes_leave_the_bytes_counts_and_progress_of_one(
    root: Path, tmp_path: Path, in_processes: Callable[[], None], changes: dict[str, Any]
) -> None:
    settings = from_masks(root, **changes)
    alone = acquired(settings, tmp_path / "one")
    in_processes()
    together = acquired(settings, tmp_path / "several")
    assert together == alone
    assert [done for done, _ in together[2]] == list(range(1, NUM_IMAGES - 1))
    again = acquired(settings, tmp_path / "several")
    assert again[0] == alone[0]
    assert again[1].num_fetched == 0  # type: ignore[attr-defined]


def test_the_first_error_in_order_is_raised_as_it_is_by_one_process(
    root: Path, tmp_path: Path, in_processes: Callable[[], None]
) -> None:
    for place, sides in (("Dog/01", (60, 80)), ("Dog/03", (10, 90))):
        write(tmp_path / f"own/images/{place}.jpg", np.zeros((*SIDES, 3), np.uint8))
        write(tmp_path / f"own/masks/{place}.png", np.full(sides, 255, np.uint8))
    errors = []
    for switch in (lambda: None, in_processes):
        switch()
        with pytest.raises(UserError) as caught:
            download.acquire(from_masks(tmp_path / "own"), 0, tmp_path / "raw")
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert "masks/Dog/01.png: 80 x 60 px, but its image" in errors[1]


def test_too_many_losses_are_the_same_line(root: Path, tmp_path: Path, in_processes: Callable[[], None]) -> None:
    errors = []
    for switch in (lambda: None, in_processes):
        switch()
        with pytest.raises(
            UserError, match=r"lost 1 of 12 images \(1 corrupt\), but acquire.max_lost_frac allows 0"
        ) as e:
            download.acquire(from_masks(root, max_lost_frac=0.0), 0, tmp_path / "raw")
        errors.append(str(e.value))
    assert errors[0] == errors[1]


def test_few_jobs_stay_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda pid: {0, 1, 2})
    assert processes.num_processes(9, min_jobs=10) == 1
    assert processes.num_processes(10, min_jobs=10) == 3
    seen: list[int] = []
    assert list(processes.map_in_processes(seen.append, [1, 2], min_jobs=10)) == [None, None]
    assert seen == [1, 2]
