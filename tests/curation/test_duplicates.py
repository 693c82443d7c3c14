"""Duplicates: which pairs the pixels confirm, and which image of them is kept."""

from itertools import combinations, product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pbe.curation.duplicates import Item, PixelCheck, Regions, aligned_difference, contrast, decide
from pbe.curation.quality import thumbnail
from pbe.demo.scenes import draw_scene
from pbe.types import Image


def item(image_id: str, split: str = "train", fault: str = "", pixels: str | None = None) -> Item:
    return Item(image_id, split == "train", fault, pixels or image_id)


def reasons(items: list[Item], near: list[tuple[int, int]] | None = None) -> list[str]:
    return [decision.reason for decision in decide(items, near or [])]


def every_pair(number: int) -> NDArray[np.int64]:
    return np.array(list(combinations(range(number), 2)), np.int64).reshape(-1, 2)


def scene(seed: int) -> Image:
    return draw_scene(np.random.default_rng(seed)).image


def test_the_smallest_id_of_exact_duplicates_is_kept() -> None:
    decisions = decide([item("c", pixels="x"), item("a", pixels="x"), item("b", pixels="x")], [])
    assert [v.reason for v in decisions] == ["exact_duplicate", "", "exact_duplicate"]
    assert [v.duplicate_of for v in decisions] == [1, None, 1]


def test_a_train_image_that_duplicates_a_validation_image_is_a_leak() -> None:
    items = [item("a", pixels="x"), item("b"), item("v", "validation", pixels="x"), item("w", "validation")]
    decisions = decide(items, [(1, 3)])
    assert [v.reason for v in decisions] == ["leak", "leak", "", ""]
    assert [v.duplicate_of for v in decisions] == [2, 3, None, None]


def test_leak_takes_precedence_over_duplicate() -> None:
    items = [item("a", pixels="x"), item("b", pixels="x"), item("v", "validation", pixels="x")]
    assert reasons(items) == ["leak", "leak", ""]


def test_exact_takes_precedence_over_near() -> None:
    assert reasons([item("a", pixels="x"), item("b", pixels="x")], [(0, 1)]) == ["", "exact_duplicate"]


def test_only_duplicates_of_a_kept_image_are_rejected() -> None:
    # b duplicates a, and c duplicates only b: without b, nothing like c is left.
    assert reasons([item("a"), item("b"), item("c")], [(0, 1), (1, 2)]) == ["", "near_duplicate", ""]


def test_a_faulty_image_is_neither_duplicate_nor_original() -> None:
    items = [
        item("a", fault="dark", pixels="x"),
        item("b", pixels="x"),
        item("v", "validation", fault="blurred", pixels="x"),
    ]
    assert reasons(items, [(0, 1)]) == ["dark", "", "blurred"]


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_the_order_of_images_does_not_matter_and_no_kept_pair_is_near(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    splits, pictures = st.sampled_from(["train", "validation"]), st.sampled_from("xyz01234")
    items = [item(f"{i}", data.draw(splits), "", data.draw(pictures)) for i in range(count)]
    near = [pair for pair in combinations(range(count), 2) if data.draw(st.booleans())]
    decisions = decide(items, near)
    order = data.draw(st.permutations(range(count)))
    place = {old: new for new, old in enumerate(order)}
    shuffled = decide([items[i] for i in order], [(place[i], place[j]) for i, j in near])
    assert [shuffled[place[i]].reason for i in range(count)] == [v.reason for v in decisions]
    for i, j in near:
        assert decisions[i].reason or decisions[j].reason
    assert any(not decision.reason for decision in decisions)


def test_alignment_finds_a_shift_of_one_image_pixel() -> None:
    image = scene(3)
    moved = np.roll(image, 1, axis=1)
    small, other = thumbnail(image)[None], thumbnail(moved)[None]
    plain = np.abs(small.astype(float) - other).mean() / 255
    assert aligned_difference(small, other)[0] < 0.75 * plain
    assert aligned_difference(small, small)[0] == 0


def test_the_difference_is_a_fraction_of_full_scale() -> None:
    black, white = np.zeros((1, 32, 32, 3), np.uint8), np.full((1, 32, 32, 3), 255, np.uint8)
    assert aligned_difference(black, white)[0] == 1


def test_plain_images_with_different_small_objects_are_not_duplicates() -> None:
    plain = np.full((3, 32, 32, 3), 150, np.uint8)
    plain[0, 4:10, 4:10] = (220, 30, 30)
    plain[1, 20:26, 20:26] = (30, 30, 220)
    plain[2, 4:10, 4:10] = (221, 31, 30)
    assert aligned_difference(plain[:1], plain[1:2])[0] < 0.035
    assert PixelCheck(plain).confirm(every_pair(3), 0.035) == [(0, 2)]


def on_vignetted_ground(*places: tuple[int, int]) -> Image:
    """Return thumbnails of ground that is darker towards the corners, each with an object of 5 x 5 px at a place."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    ground = np.repeat((180 - 90 * np.hypot(x, y))[..., None], 3, axis=2).astype(np.uint8)
    images = np.repeat(ground[None], len(places), axis=0)
    for image, (top, left) in zip(images, places, strict=True):
        image[top : top + 5, left : left + 5] = (40, 50, 160)
    return images


def test_an_object_that_moved_over_plain_ground_makes_no_duplicate() -> None:
    places = [(4, 4), (20, 18), (4, 5)]
    images = on_vignetted_ground(*places)
    boxes = np.array([(x, y, x + 5, y + 5) for y, x in places], np.float32) / 32
    assert PixelCheck(images).confirm(every_pair(3), 0.035) == [(0, 1), (0, 2), (1, 2)]
    regions = Regions(np.arange(3), boxes, 3, 32)
    assert PixelCheck(images, regions).confirm(every_pair(3), 0.035) == [(0, 2)]
    of_one = Regions(np.array([1]), boxes[1:2], 3, 32)  # the boxes of one image of a pair are enough
    assert PixelCheck(images, of_one).confirm(every_pair(3), 0.035) == [(0, 2)]
    none = Regions(np.zeros(0, np.int64), boxes[:0], 3, 32)
    assert len(PixelCheck(images, none).confirm(every_pair(3), 0.035)) == 3


def test_regions_are_the_boxes_and_the_pixels_around_them() -> None:
    boxes = np.array([[0, 0, 0.25, 0.5], [0.9, 0.9, 1, 1], [0.5, 0.5, 0.6, 0.6]], np.float32)
    weights = Regions(np.array([0, 0, 2]), boxes, 3, 32).weights(np.array([2, 1, 0]))
    expected = np.zeros((3, 32, 32), bool)
    expected[0, 14:22, 14:22] = True  # 16 to 19.2, and two pixels on each side
    expected[2, 1:18, 1:10] = True  # without the margin, which shifts move out of the picture
    expected[2, 26:31, 26:31] = True
    np.testing.assert_array_equal(weights, expected)


def test_the_aligned_difference_is_that_of_interpolated_pixels() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 256, (2, 3, 8, 8, 3)).astype(np.uint8)
    weights = rng.random((3, 8, 8)) < 0.5
    grid = np.arange(6)[:, None] + np.arange(5) / 2
    best = np.full((2, 3), np.inf)
    for rows, columns in product(grid.T, repeat=2):
        moved = (first.astype(float)[:, np.floor(rows).astype(int)] + first[:, np.ceil(rows).astype(int)]) / 2
        moved = (moved[:, :, np.floor(columns).astype(int)] + moved[:, :, np.ceil(columns).astype(int)]) / 2
        difference = np.abs(moved - second[:, 1:-1, 1:-1]).mean(axis=3) / 255
        inside = weights[:, 1:-1, 1:-1]
        weighted = (difference * inside).sum(axis=(1, 2)) / inside.sum(axis=(1, 2))
        best = np.minimum(best, [difference.mean(axis=(1, 2)), weighted])
    np.testing.assert_allclose(aligned_difference(first, second), best[0], rtol=1e-5)
    np.testing.assert_allclose(aligned_difference(first, second, weights), best[1], rtol=1e-5)


def test_duplicates_are_confirmed_and_other_scenes_are_not() -> None:
    thumbnails = np.stack([thumbnail(scene(seed)) for seed in range(12)] + [thumbnail(np.roll(scene(4), 1, 1))])
    assert PixelCheck(thumbnails).confirm(every_pair(13), 0.035) == [(4, 12)]
    assert PixelCheck(thumbnails).confirm(every_pair(1), 0.035) == []


def test_skipping_the_alignment_changes_no_result() -> None:
    scenes = [scene(seed) for seed in range(8)]
    moved = [np.roll(image, (y, x), (0, 1)) for image in scenes[:4] for y, x in ((1, 0), (1, 1), (2, 1))]
    thumbnails = np.stack([thumbnail(image) for image in (*scenes, *moved)])
    pairs = every_pair(len(thumbnails))
    left, right = pairs.T
    limit = np.minimum(0.06, 0.35 * np.minimum(contrast(thumbnails[left]), contrast(thumbnails[right])))
    near = aligned_difference(thumbnails[left], thumbnails[right]) <= np.maximum(limit, 0.005)
    assert 4 <= near.sum() < len(pairs) / 2
    assert PixelCheck(thumbnails).confirm(pairs, 0.06) == [tuple(pair) for pair in pairs[near].tolist()]
