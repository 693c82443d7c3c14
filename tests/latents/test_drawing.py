"""Samples drawn ahead are those that the drawer draws, in order; errors of a process arrive as they are."""

from pathlib import Path

import numpy as np
import pytest

from pbe.dataset.curated_boxes import read_curated_boxes
from pbe.errors import UserError
from pbe.latents.drawing import Draw, DrawingPool, draw_all
from pbe.latents.samples import SampleDrawer
from pbe.method.training_triplet import TrainingTriplet
from tests.support import parameters
from tests.support.tiny_data import write_boxes, write_images, write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def drawer_of(root: Path) -> SampleDrawer:
    return SampleDrawer(root / "images", parameters.method(), 32, 2, seed=0)


def draws_of(root: Path) -> list[Draw]:
    return [(box, variant) for box in read_curated_boxes(root, "train") for variant in range(2)]


def are_equal(a: TrainingTriplet, b: TrainingTriplet) -> bool:
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("source", "mask", "exemplars"))


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
def test_batches_drawn_ahead_are_the_drawers_own_in_order(scenes: Path, processes: bool) -> None:
    draws = draws_of(scenes)
    expected = draw_all(drawer_of(scenes), draws)
    pool = DrawingPool(drawer_of(scenes), 2, processes=processes)
    batches = list(pool.draw_batches([draws[i : i + 5] for i in range(0, len(draws), 5)]))
    pool.close()
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 4]
    drawn = [sample for batch in batches for sample in batch]
    assert all(are_equal(a, b) for a, b in zip(drawn, expected, strict=True))


def test_no_more_than_a_few_batches_are_drawn_ahead(scenes: Path) -> None:
    taken = []
    pool = DrawingPool(drawer_of(scenes), 1, processes=False)
    batches = pool.draw_batches(taken.append(i) or draws_of(scenes)[i : i + 1] for i in range(20))  # type: ignore[func-returns-value]
    next(batches)
    assert len(taken) == 4
    next(batches)
    assert len(taken) == 5
    pool.close()


def test_a_damaged_image_in_a_process_is_a_user_error_in_one_line(tmp_path: Path) -> None:
    at = write_images(tmp_path, "train", {"a": np.zeros((70, 90, 3), np.uint8)})["a"]
    write_boxes(tmp_path, [("a_000", "a", "train", (5, 6, 40, 44), at._replace(num_bytes=at.num_bytes + 10**6))])
    pool = DrawingPool(drawer_of(tmp_path), 1, processes=True)
    with pytest.raises(UserError, match=r"train-00000\.tar: only .* bytes") as raised:
        list(pool.draw_batches([draws_of(tmp_path)]))
    pool.close()
    assert "\n" not in str(raised.value)
