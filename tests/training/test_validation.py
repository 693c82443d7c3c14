"""Validation samples and cases: the same at each call; timesteps evenly over the whole range."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pbe.training.painting_loss import Batch
from pbe.training.validation import draw_cases, draw_samples
from tests.support import parameters
from tests.support.tiny_data import write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def draw(scenes: Path, backbone: Path, size: int) -> Batch:
    return draw_samples(scenes / "images", scenes, backbone, parameters.method(), seed=0, size=size)


def test_validation_samples_are_the_same_each_time(scenes: Path, backbone: Path) -> None:
    one, again = draw(scenes, backbone, 10), draw(scenes, backbone, 10)
    assert all(torch.equal(a, b) for a, b in zip(one.__dict__.values(), again.__dict__.values(), strict=True))
    assert one.timesteps.tolist() == list(range(50, 1000, 100))
    assert not one.dropped.any()


def test_there_are_no_more_samples_than_boxes(scenes: Path, backbone: Path) -> None:
    batch = draw(scenes, backbone, 1000)
    assert {len(t) for t in batch.__dict__.values()} == {12}
    assert [len(part.timesteps) for part in batch.split(5)] == [5, 5, 2]


def test_cases_are_the_same_each_time_and_take_their_exemplars_from_other_images(scenes: Path) -> None:
    one, again = (draw_cases(scenes / "images", scenes, parameters.method(), 32, seed=0) for _ in range(2))
    for name in ("sources", "masks", "exemplars"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
    assert one.sources.shape == (8, 64, 64, 3)
    assert one.exemplars.shape == (8, 32, 32, 3)
    assert all(0 < mask.sum() < mask.size for mask in one.masks)
    assert len({exemplar.tobytes() for exemplar in one.exemplars}) == 8
