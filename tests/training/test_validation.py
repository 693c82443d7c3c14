"""The validation samples: the same at each call, with timesteps evenly over the whole range."""

import pytest
import torch

from pbe.training.validation import draw_validation
from tests.support import parameters
from tests.support.tiny_data import write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def draw(scenes, backbone, size):
    return draw_validation(scenes / "images", scenes, backbone, parameters.method(), seed=0, size=size)


def test_validation_samples_are_the_same_each_time(scenes, backbone):
    one, again = draw(scenes, backbone, 10), draw(scenes, backbone, 10)
    assert all(torch.equal(a, b) for a, b in zip(one.__dict__.values(), again.__dict__.values(), strict=True))
    assert one.timesteps.tolist() == list(range(50, 1000, 100))
    assert not one.dropped.any()


def test_no_more_samples_than_boxes(scenes, backbone):
    batch = draw(scenes, backbone, 1000)
    assert {len(t) for t in batch.__dict__.values()} == {12}
    assert [len(part.timesteps) for part in batch.split(5)] == [5, 5, 2]
