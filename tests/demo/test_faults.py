"""The demo's planted faults: how many there are, and what each does to an image."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pbe.demo import faults
from pbe.demo.faults import plan_faults
from pbe.demo.scenes import ObjectBox, draw_scene


@given(train=st.integers(1, 300), validation=st.integers(1, 60), frac=st.floats(0, 0.1), seed=st.integers(0, 9))
def test_copies_are_of_images_without_faults_and_each_kind_is_equally_frequent(
    train: int, validation: int, frac: float, seed: int
) -> None:
    num_images = {"train": train, "validation": validation}
    plan = plan_faults(num_images, frac, seed)
    assert plan == plan_faults(num_images, frac, seed)
    for (split, index), fault in plan.items():
        assert 0 <= index < num_images[split]
        origin = "validation" if fault.kind == faults.LEAK else split
        assert (fault.of is None) == (fault.kind in faults.SPOILT)
        assert fault.of is None or (origin, fault.of) not in plan
    for split in num_images:
        kinds = [fault.kind for (s, _), fault in plan.items() if s == split]
        assert len({kinds.count(kind) for kind in (*faults.SPOILT, *faults.COPIES)}) == 1


def test_the_fraction_is_that_of_each_kind() -> None:
    plan = plan_faults({"train": 1000, "validation": 200}, 0.01, seed=0)
    assert sum(fault.kind == faults.LEAK for fault in plan.values()) == 10
    assert sum(fault.kind == "dark" for fault in plan.values()) == 12


def decoded(jpeg: bytes) -> NDArray[np.float64]:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), float) / 255


def test_spoilt_images_have_the_fault_of_their_name() -> None:
    scene = draw_scene(np.random.default_rng(2))
    good = decoded(faults.encode_jpeg(scene.image))
    assert decoded(faults.spoil(scene.image, "dark")).mean() < 0.12 < good.mean()
    assert decoded(faults.spoil(scene.image, "bright")).mean() > 0.9 > good.mean()
    assert np.abs(np.diff(decoded(faults.spoil(scene.image, "blurred")))).mean() < 0.3 * np.abs(np.diff(good)).mean()
    with pytest.raises(OSError, match="truncated"):
        decoded(faults.spoil(scene.image, "truncated"))


def test_a_near_copy_and_its_box_are_shifted_by_one_pixel() -> None:
    image = draw_scene(np.random.default_rng(2)).image
    original, copy = decoded(faults.encode_jpeg(image)), decoded(faults.encode_near_copy(image))
    assert np.abs(copy[:, 1:] - original[:, :-1]).mean() < 0.02
    assert faults.move_box(ObjectBox(3, 4, 20, 30), 64) == ObjectBox(4, 4, 21, 30)
    assert faults.move_box(ObjectBox(3, 4, 64, 30), 64) == ObjectBox(4, 4, 64, 30)
