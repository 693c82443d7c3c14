"""The editor: where the window lies, and that only masked pixels change."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pbe.errors import UserError
from pbe.serving.editor import check_mask, edit

Array = NDArray[np.uint8]


class Flat:
    """A painter of one grey level that keeps its last arguments."""

    image_px, exemplar_px = 16, 8

    def __init__(self, level: int = 99) -> None:
        self.level = level

    def paint(
        self,
        sources: Array,
        masks: Array,
        exemplars: Array,
        *,
        guidance_scale: float = 5.0,
        num_steps: int = 50,
        seeds: Sequence[int],
        on_step: object = None,
    ) -> Array:
        assert sources.shape == (1, 16, 16, 3)
        assert masks.shape == (1, 16, 16)
        assert exemplars.shape == (1, 8, 8, 3)
        assert set(np.unique(masks)) <= {0, 1}
        assert masks.any()
        self.source, self.mask, self.seeds = sources[0], masks[0], seeds
        return np.where(masks[..., None] == 1, np.uint8(self.level), sources)


@st.composite
def edits(draw: st.DrawFn) -> tuple[Array, Array]:
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    mask = np.zeros((height, width), np.uint8)
    mask[y0:y1, x0:x1] = rng.integers(0, 2, (y1 - y0, x1 - x0))
    mask[y0, x0] = 1
    return rng.integers(0, 98, (height, width, 3), dtype=np.uint8), mask


@settings(max_examples=200, deadline=None)
@given(edits())
def test_unmasked_pixels_are_bit_identical_and_masked_ones_repainted(source_and_mask: tuple[Array, Array]) -> None:
    source, mask = source_and_mask
    before = source.copy()

    result = edit(Flat(), source, mask, np.zeros((5, 9, 3), np.uint8))

    assert result.shape == source.shape
    assert result.dtype == np.uint8
    assert np.array_equal(result[mask == 0], source[mask == 0])
    assert np.array_equal(source, before)
    assert (result[mask == 1] > source[mask == 1]).any()


def test_a_mask_longer_than_the_short_side_is_padded_by_reflection() -> None:
    source = np.repeat(np.arange(4, dtype=np.uint8)[:, None, None], 16, 1).repeat(3, 2)
    mask = np.zeros((4, 16), np.uint8)
    mask[1, :] = 1
    painter = Flat()

    edit(painter, source, mask, source)

    assert painter.source[:, 0, 0].tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert painter.mask[:, 0].tolist() == [0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0]


def test_a_thin_line_of_a_mask_survives_shrinking() -> None:
    mask = np.eye(640, dtype=np.uint8)
    painter = Flat()

    edit(painter, np.zeros((640, 640, 3), np.uint8), mask, np.zeros((8, 8, 3), np.uint8), seed=7)

    assert np.diag(painter.mask).all()
    assert painter.seeds == [7]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"guidance_scale": -1.0}, "guidance scale is -1"),
        ({"guidance_scale": float("nan")}, "guidance scale is nan"),
        ({"num_steps": 0}, "number of steps is 0"),
        ({"num_steps": 1001}, "number of steps is 1001"),
        ({"seed": -3}, "seed is -3"),
        ({"max_magnification": 0.5}, "magnification is 0.5"),
        ({"max_magnification": float("nan")}, "magnification is nan"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, float], words: str) -> None:
    image = np.ones((16, 16, 3), np.uint8)
    with pytest.raises(UserError, match=words):
        edit(Flat(), image, image[..., 0], image, **options)  # type: ignore[arg-type]


def test_the_error_for_a_mask_of_another_size_names_both_files() -> None:
    source, mask = np.zeros((96, 128, 3), np.uint8), np.ones((64, 64), np.uint8)
    with pytest.raises(UserError, match=r"^mask m\.png is 64 x 64 but source s\.png is 128 x 96: "):
        check_mask(mask, source, mask_name="mask m.png", source_name="source s.png")


@pytest.mark.parametrize(("level", "words"), [(0, "mask marks nothing"), (255, "mask holds the value 255")])
def test_a_mask_that_marks_nothing_or_holds_other_values_is_refused(level: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_mask(np.full((8, 8), level, np.uint8), np.zeros((8, 8, 3), np.uint8))
