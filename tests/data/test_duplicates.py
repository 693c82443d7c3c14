import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pbe.data.duplicates import Item, aligned_difference, confirm, judge, pairs_within
from pbe.data.quality import thumbnail
from pbe.data.world import draw_scene


def item(image_id: str, split: str = "train", fault: str = "", md5: str | None = None) -> Item:
    return Item(image_id, split == "train", fault, md5 or image_id)


def reasons(items: list[Item], near: list[tuple[int, int]] | None = None) -> list[str]:
    return [verdict.reason for verdict in judge(items, near or [])]


def scene(seed: int) -> np.ndarray:
    return draw_scene(np.random.default_rng(seed)).image


def test_the_smallest_id_of_exact_duplicates_is_kept() -> None:
    verdicts = judge([item("c", md5="x"), item("a", md5="x"), item("b", md5="x")], [])
    assert [v.reason for v in verdicts] == ["exact_duplicate", "", "exact_duplicate"]
    assert [v.duplicate_of for v in verdicts] == [1, None, 1]


def test_a_train_image_that_repeats_a_validation_image_leaks() -> None:
    items = [item("a", md5="x"), item("b"), item("v", "validation", md5="x"), item("w", "validation")]
    verdicts = judge(items, [(1, 3)])
    assert [v.reason for v in verdicts] == ["leak", "leak", "", ""]
    assert [v.duplicate_of for v in verdicts] == [2, 3, None, None]


def test_leak_comes_before_duplicate() -> None:
    items = [item("a", md5="x"), item("b", md5="x"), item("v", "validation", md5="x")]
    assert reasons(items) == ["leak", "leak", ""]


def test_exact_comes_before_near() -> None:
    assert reasons([item("a", md5="x"), item("b", md5="x")], [(0, 1)]) == ["", "exact_duplicate"]


def test_only_repeats_of_a_kept_image_are_rejected() -> None:
    # b repeats a, and c repeats b only: with b gone, c is the only picture of its kind.
    assert reasons([item("a"), item("b"), item("c")], [(0, 1), (1, 2)]) == ["", "near_duplicate", ""]


def test_a_faulty_image_repeats_nobody() -> None:
    items = [item("a", fault="dark", md5="x"), item("b", md5="x"), item("v", "validation", fault="blurred", md5="x")]
    assert reasons(items, [(0, 1)]) == ["dark", "", "blurred"]


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_the_order_of_images_changes_nothing_and_no_kept_pair_repeats(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    splits, md5s = st.sampled_from(["train", "validation"]), st.sampled_from("xyz01234")
    items = [item(f"{i}", data.draw(splits), "", data.draw(md5s)) for i in range(count)]
    near = [pair for pair in pairs_within([range(count)]) if data.draw(st.booleans())]
    verdicts = judge(items, near)
    order = data.draw(st.permutations(range(count)))
    place = {old: new for new, old in enumerate(order)}
    shuffled = judge([items[i] for i in order], [(place[i], place[j]) for i, j in near])
    assert [shuffled[place[i]].reason for i in range(count)] == [v.reason for v in verdicts]
    for i, j in near:
        assert verdicts[i].reason or verdicts[j].reason
    assert any(not verdict.reason for verdict in verdicts)


def test_pairs_are_listed_once() -> None:
    assert pairs_within([[3, 1], [1, 2, 3], [5]]) == [(1, 2), (1, 3), (2, 3)]


def test_alignment_finds_a_shift_of_one_image_pixel() -> None:
    image = scene(3)
    moved = np.roll(image, 1, axis=1)
    small, other = thumbnail(image)[None], thumbnail(moved)[None]
    plain = np.abs(small.astype(float) - other).mean() / 255
    assert aligned_difference(small, other)[0] < 0.75 * plain
    assert aligned_difference(small, small)[0] == 0


def test_the_difference_is_a_share_of_full_scale() -> None:
    black, white = np.zeros((1, 32, 32, 3), np.uint8), np.full((1, 32, 32, 3), 255, np.uint8)
    assert aligned_difference(black, white)[0] == 1


def test_plain_pictures_with_different_small_objects_are_no_repeats() -> None:
    plain = np.full((3, 32, 32, 3), 150, np.uint8)
    plain[0, 4:10, 4:10] = (220, 30, 30)
    plain[1, 20:26, 20:26] = (30, 30, 220)
    plain[2, 4:10, 4:10] = (221, 31, 30)
    assert aligned_difference(plain[:1], plain[1:2])[0] < 0.035
    assert confirm(pairs_within([range(3)]), plain, 0.035) == [(0, 2)]


def test_confirm_keeps_repeats_and_drops_other_scenes() -> None:
    thumbnails = np.stack([thumbnail(scene(seed)) for seed in range(12)] + [thumbnail(np.roll(scene(4), 1, 1))])
    assert confirm(pairs_within([range(13)]), thumbnails, 0.035) == [(4, 12)]
    assert confirm([], thumbnails, 0.035) == []
