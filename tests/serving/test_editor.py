"""The editor: where the window lies, that only masked pixels change, and that an edit's company does not matter."""

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as PILImage

from pbe.errors import UserError
from pbe.method.painter import Painter
from pbe.method.regions import find_regions
from pbe.serving.editor import (
    SAMPLERS,
    Cancelled,
    Edit,
    EditOptions,
    Editor,
    Exemplar,
    Region,
    SupportsPaint,
    check_mask,
    mask_notes,
    picture_of,
    read_exemplar,
    read_mask,
    read_source,
)

Array = NDArray[np.uint8]


def edit(
    painter: SupportsPaint,
    source: Array,
    mask: Array,
    exemplar: Array,
    *,
    seed: int = 0,
    on_step: Any = None,
    **options: Any,
) -> Array:
    """Return the picture with one object painted into it."""
    region = Region(mask, (Exemplar(exemplar),))
    one = Edit(picture_of(source), (region,), seed, EditOptions(**options))
    return Editor(painter).edit(one, on_step=on_step).picture.shown


class Flat:
    """A painter of one grey level that keeps its last arguments."""

    image_px, exemplar_px = 16, 8

    def __init__(self, level: int = 99) -> None:
        self.level = level

    def paint(
        self,
        sources: Array,
        masks: Array,
        exemplars: Sequence[Array],
        *,
        seeds: Sequence[int],
        **options: Any,
    ) -> Array:
        assert sources.shape == (len(seeds), 16, 16, 3)
        assert masks.shape == (len(seeds), 16, 16)
        assert [each.shape[1:] for each in exemplars] == [(8, 8, 3)] * len(seeds)
        assert set(np.unique(masks)) <= {0, 1}
        assert masks.any((1, 2)).all()
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


class Recorder(Flat):
    """A painter that keeps the masks and the seeds of every call, and reports each as one of two steps."""

    image_px, exemplar_px = 16, 8

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[Array] = []
        self.exemplars: list[Array] = []
        self.all_seeds: list[int] = []

    def paint(self, sources: Array, masks: Array, exemplars: Sequence[Array], **options: Any) -> Array:
        self.masks += list(masks)
        self.exemplars += list(exemplars)
        self.all_seeds += options["seeds"]
        if options["on_step"]:
            options["on_step"](1, 2)
            options["on_step"](2, 2)
        return np.full_like(sources, 99)


def picture_with(*corners: tuple[int, int], side: int = 30) -> tuple[Array, Array]:
    source, mask = np.zeros((400, 400, 3), np.uint8), np.zeros((400, 400), np.uint8)
    for y, x in corners:
        mask[y : y + side, x : x + side] = 1
    return source, mask


def test_each_region_is_as_large_in_its_window_as_it_is_alone() -> None:
    alone, both = Recorder(), Recorder()
    edit(alone, *picture_with((20, 20)), np.zeros((5, 5, 3), np.uint8), seed=3)
    result = edit(both, *picture_with((20, 20), (350, 350)), np.zeros((5, 5, 3), np.uint8), seed=3)
    assert [mask.mean() for mask in both.masks] == [alone.masks[0].mean()] * 2
    assert both.all_seeds == [3, 4]
    assert np.array_equal((result == 99).all(2), picture_with((20, 20), (350, 350))[1] == 1)


def test_a_speck_is_kept_as_the_source_has_it() -> None:
    source, mask = picture_with((20, 20))
    mask[399, 399] = 1
    painter = Recorder()
    result = edit(painter, source, mask, np.zeros((5, 5, 3), np.uint8))
    assert len(painter.masks) == 1
    assert not result[399, 399].any()
    assert mask_notes(mask, 16) == ["not painted: 1 speck of the mask, at most 2 x 2 px"]


def test_many_regions_are_painted_in_batches_that_share_one_progress() -> None:
    source, mask = picture_with(*((y, x) for y in (10, 190, 370) for x in (10, 190, 370)), side=20)
    painter, steps = Recorder(), []
    edit(
        painter,
        source,
        mask,
        np.zeros((5, 5, 3), np.uint8),
        on_step=lambda done, total, note="": steps.append((done, total)),
    )
    assert len(painter.masks) == 9
    assert steps == [(done, 6) for done in range(1, 7)]


PIXELS = np.full((8, 9, 3), 100, np.uint8)
FLOATS = (PIXELS / 255).astype(np.float32)
RGBA = np.dstack([PIXELS, PIXELS[..., :1]])
WRONG_ARRAYS: dict[str, tuple[Any, Any, Any]] = {
    "float source": (FLOATS, PIXELS[..., 0] > 0, PIXELS),
    "16-bit source": (PIXELS.astype(np.uint16), PIXELS[..., 0] > 0, PIXELS),
    "RGBA source": (RGBA, PIXELS[..., 0] > 0, PIXELS),
    "grey source": (PIXELS[..., 0], PIXELS[..., 0] > 0, PIXELS),
    "float exemplar": (PIXELS, PIXELS[..., 0] > 0, FLOATS),
    "RGBA exemplar": (PIXELS, PIXELS[..., 0] > 0, RGBA),
    "grey exemplar": (PIXELS, PIXELS[..., 0] > 0, PIXELS[..., 0]),
    "empty exemplar": (PIXELS, PIXELS[..., 0] > 0, PIXELS[:0]),
    "batched exemplar": (PIXELS, PIXELS[..., 0] > 0, PIXELS[None]),
    "Pillow exemplar": (PIXELS, PIXELS[..., 0] > 0, PILImage.fromarray(PIXELS)),
}


@pytest.mark.parametrize("name", WRONG_ARRAYS)
def test_arrays_of_another_kind_are_refused_with_what_is_wanted(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name.split()[1]} is .*\(H, W, 3\).* uint8"):
        edit(Flat(), *WRONG_ARRAYS[name])


@pytest.mark.parametrize(
    "mask", [np.full((8, 9), 0.7), np.ones((8, 9)), np.full((8, 9), -1), np.ones((8, 9, 1), np.uint8), [[1]]]
)
def test_masks_of_another_kind_are_refused(mask: Any) -> None:
    with pytest.raises(UserError, match=r"mask (is|has|holds)"):
        edit(Flat(), PIXELS, mask, PIXELS)


def test_a_mask_of_bool_is_as_good_as_one_of_numbers() -> None:
    mask = np.zeros((8, 9), np.uint8)
    mask[2:4, 3:5] = 1
    assert np.array_equal(edit(Flat(), PIXELS, mask > 0, PIXELS), edit(Flat(), PIXELS, mask, PIXELS))


def test_an_exemplar_that_is_fully_transparent_is_refused(tmp_path: Path) -> None:
    PILImage.new("RGBA", (4, 4), (200, 10, 10, 0)).save(tmp_path / "e.png")
    with pytest.raises(UserError, match=r"e\.png is fully transparent"):
        read_exemplar(tmp_path / "e.png")
    PILImage.new("RGBA", (4, 4), (200, 10, 10, 1)).save(tmp_path / "e.png")
    assert read_exemplar(tmp_path / "e.png").shape == (4, 4, 3)


def test_masks_and_sources_are_read_from_files_and_from_bytes(tmp_path: Path) -> None:
    file = tmp_path / "m.png"
    PILImage.fromarray(np.eye(4, dtype=np.uint8) * np.uint8(255)).save(file)
    assert np.array_equal(read_mask(file), read_mask(file.read_bytes()))
    assert np.array_equal(read_source(file).shown, read_source(file.read_bytes(), "row 0").shown)
    with pytest.raises(UserError, match=r"^mask: not an image"):
        read_mask(b"%!PS-Adobe-3.0 EPSF-3.0")


def grey(level: int, side: int = 8) -> Array:
    return np.full((side, side, 3), level, np.uint8)


def regions_at(*corners: tuple[int, int], exemplars: Sequence[Exemplar] = ()) -> tuple[Array, tuple[Region, ...]]:
    """Return a black picture (400, 400, 3) and a region of 30 x 30 px for each corner, its exemplar ever brighter."""
    masks = [picture_with(corner)[1] for corner in corners]
    own = [tuple(exemplars) or (Exemplar(grey(10 * number)),) for number in range(1, len(corners) + 1)]
    return np.zeros((400, 400, 3), np.uint8), tuple(Region(*each) for each in zip(masks, own, strict=True))


def test_each_region_is_painted_with_its_own_exemplar_and_hides_the_others() -> None:
    source, regions = regions_at((20, 20), (52, 20), (350, 350))
    painter = Recorder()
    result = Editor(painter, max_batch=2).edit(Edit(picture_of(source), regions, seed=5))
    assert [int(each.max()) for each in painter.exemplars] == [10, 20, 30]
    assert painter.all_seeds == [5, 6, 7]
    assert painter.masks[0].mean() > painter.masks[2].mean()  # the second region lies in the first one's window
    painted = sum(region.mask for region in regions)
    assert np.array_equal((result.picture.shown == 99).all(2), painted == 1)
    assert result.num_changed_outside == 0


def test_a_region_of_several_pieces_is_split_further() -> None:
    source, mask = picture_with((20, 20), (350, 350))
    _, (other,) = regions_at((200, 200))
    prepared = Editor(Recorder()).prepare(Edit(picture_of(source), (other, Region(mask, (Exemplar(grey(1)),)))))
    assert prepared.boxes == ((0, (200, 200, 230, 230)), (1, (20, 20, 50, 50)), (1, (350, 350, 380, 380)))
    assert prepared.notes == ("the masks have 3 regions; each gets its own object",)


def test_regions_that_overlap_are_named() -> None:
    source, regions = regions_at((20, 20), (300, 300), (40, 40))
    with pytest.raises(UserError, match=r"^regions 1 and 3 overlap in 100 pixels"):
        Editor(Flat()).prepare(Edit(picture_of(source), regions))


@pytest.mark.parametrize(
    ("exemplars", "words"),
    [
        ((), "^0 exemplars of region 2: give 1 to 16"),
        (
            (Exemplar(grey(0)), Exemplar(grey(0), np.ones((3, 3), np.uint8))),
            "^mask of exemplar 2 of region 2 is 3 x 3 ",
        ),
        ((Exemplar(grey(0), np.zeros((8, 8), np.uint8)),), "^mask of exemplar of region 2 marks nothing"),
        ((Exemplar(grey(0)[..., 0]),), "^exemplar of region 2 is "),
    ],
)
def test_a_mistake_in_one_of_several_regions_names_it(exemplars: list[Exemplar], words: str) -> None:
    source, (first, second) = regions_at((20, 20), (300, 300))
    with pytest.raises(UserError, match=words):
        Editor(Flat()).prepare(Edit(picture_of(source), (first, Region(second.mask, tuple(exemplars)))))
    with pytest.raises(UserError, match="has no region"):
        Editor(Flat()).prepare(Edit(picture_of(source), ()))


def test_only_the_masked_part_of_an_exemplar_is_looked_at() -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), np.zeros((20, 30), np.uint8)
    mask[4:12, 5:9] = 1
    mask[4, 5] = 0
    other = np.where(mask[..., None] == 1, image, 255 - image)
    seen = []
    for each in (image, other):
        source, regions = regions_at((20, 20), exemplars=[Exemplar(each, mask > 0)])
        painter = Recorder()
        Editor(painter).edit(Edit(picture_of(source), regions))
        seen.append(painter.exemplars[0])
    assert np.array_equal(*seen)
    assert (seen[0][0, 0, 0] == 255).all()
    assert np.array_equal(seen[0][0, -1, -1], image[11, 8])


def test_several_exemplars_are_one_condition_whatever_their_number(painter: Painter) -> None:
    rng = np.random.default_rng(0)
    pictures = [Exemplar(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)) for _ in range(2)]

    def paint(*exemplars: Exemplar) -> str:
        source, regions = regions_at((20, 20), exemplars=exemplars)
        return Editor(painter).edit(Edit(picture_of(source), regions, options=EditOptions(num_steps=1))).digest

    first, second = pictures
    assert paint(first) == paint(first, first)
    assert len({paint(first), paint(second), paint(first, second)}) == 3


@pytest.mark.parametrize("px", [0, 10, 50])
def test_the_context_is_shown_on_each_side_of_the_mask(px: int) -> None:
    source, mask = picture_with((200, 200))
    (window,) = find_regions(mask, 16, 2.0, px).windows
    assert window == (200 - px, 200 - px, 30 + 2 * px)
    options = EditOptions(context_px=px)
    (prepared,) = Editor(Flat()).prepare(Edit(picture_of(source), regions_at((200, 200))[1], 0, options)).windows
    assert prepared.mask.mean() == pytest.approx((30 / (30 + 2 * px)) ** 2, rel=0.3)


def test_samplers_and_intervals_are_checked() -> None:
    from pbe.method import sampling

    assert tuple(sampling.SAMPLERS) == SAMPLERS
    for wrong, words in (
        ({"sampler": "euler"}, "sampler is euler: give one of plms, ddim"),
        ({"guidance_interval": (2.0, 1.0)}, "guidance interval is 2 to 1"),
        ({"guidance_interval": (float("nan"), 1.0)}, "guidance interval is nan to 1"),
        ({"context_px": -1}, "context is -1 px"),
    ):
        with pytest.raises(UserError, match=words):
            EditOptions(**wrong).check()  # type: ignore[arg-type]


def tiny_edit(seed: int, num_steps: int = 2, *corners: tuple[int, int]) -> Edit:
    """Return an edit of a random picture with a region of 30 x 30 px for each corner."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)
    exemplars = [Exemplar(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))]
    _, regions = regions_at(*corners or ((20, 20),), exemplars=exemplars)
    return Edit(picture_of(source), regions, seed, EditOptions(num_steps=num_steps))


def test_threads_that_share_an_editor_get_the_bits_of_an_edit_alone(painter: Painter) -> None:
    edits = [tiny_edit(seed, 2, (20, 20), (300, 300)) for seed in range(6)]
    alone = [Editor(painter).edit(each).digest for each in edits]
    shared = Editor(painter)
    with ThreadPoolExecutor(6) as pool:
        assert [each.digest for each in pool.map(shared.edit, edits)] == alone
    assert len(set(alone)) == 6


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_windows_painted_together_have_the_bits_of_each_alone(painter: Painter, guidance_scale: float) -> None:
    editor = Editor(painter, max_batch=5)
    options = EditOptions(guidance_scale=guidance_scale, num_steps=3)
    edits = [replace(tiny_edit(seed), options=options) for seed in range(5)]
    windows = [editor.prepare(each).windows[0] for each in edits]
    assert len({window.group for window in windows}) == 1
    alone = [editor.paint([window])[0] for window in windows]
    assert np.array_equal(editor.paint(windows), alone)
    assert np.array_equal(editor.paint(windows[:2]), alone[:2])


def test_previews_show_the_whole_picture_and_change_only_the_mask(painter: Painter) -> None:
    edit = tiny_edit(0, 12, (20, 20), (300, 300))
    shown: list[Array] = []
    result = Editor(painter, max_batch=1).edit(edit, on_preview=shown.append)
    assert len(shown) == 10  # five of each window
    first, second = (region.mask == 1 for region in edit.regions)
    source = edit.source.shown
    assert all(np.array_equal(each[~first & ~second], source[~first & ~second]) for each in shown)
    assert np.array_equal(shown[0][second], source[second])
    assert np.array_equal(shown[-1][first], result.picture.shown[first])
    assert not np.array_equal(shown[0][first], shown[4][first])
    assert Editor(painter, max_batch=1).edit(edit).digest == result.digest


def test_a_cancelled_edit_stops_within_a_step(painter: Painter) -> None:
    steps: list[int] = []
    with pytest.raises(Cancelled):
        Editor(painter).edit(
            tiny_edit(0, 50), on_step=lambda done, *_: steps.append(done), cancelled=lambda: len(steps) >= 3
        )
    assert steps == [1, 2, 3]


def test_an_edit_that_waits_for_its_turn_can_be_cancelled(painter: Painter) -> None:
    editor, stop = Editor(painter), threading.Event()
    editor.edit(tiny_edit(0), cancelled=stop.is_set)
    with editor._turn, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(editor.edit, tiny_edit(0), cancelled=stop.is_set)
        stop.set()
        with pytest.raises(Cancelled):
            waiting.result(timeout=10)


def test_the_digest_is_that_of_the_shape_and_the_pixels() -> None:
    source, regions = regions_at((20, 20))
    edited = Editor(Flat()).edit(Edit(picture_of(source), regions))
    expected = hashlib.sha256(b"(400, 400, 3)" + edited.picture.pixels.tobytes()).hexdigest()
    assert edited.digest == expected
