import numpy as np
import pytest

from pbe.demo import scenes
from pbe.demo.scenes import Box, draw_attributes, draw_scene


def draw_scenes(count, **kwargs):
    return [draw_scene(np.random.default_rng([11, index]), **kwargs) for index in range(count)]


def test_same_generator_same_scene():
    first, second = (draw_scene(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    assert first.objects == second.objects
    assert not np.array_equal(first.image[:64, :64], draw_scene(np.random.default_rng(6)).image[:64, :64])


def test_scenes_are_what_the_docstring_says():
    for scene in draw_scenes(60):
        height, width = scene.image.shape[:2]
        assert scene.image.dtype == np.uint8
        assert min(height, width) == 64
        assert max(height, width) in (64, 72, 80)
        assert 1 <= len(scene.objects) <= 4
        for item in scene.objects:
            assert 0 <= item.box.x0 < item.box.x1 <= width
            assert 0 <= item.box.y0 < item.box.y1 <= height


def test_every_attribute_and_flag_occurs():
    objects = [item for scene in draw_scenes(250) for item in scene.objects]
    assert {o.attributes.shape for o in objects} == set(scenes.SHAPES)
    assert {o.attributes.pattern for o in objects} == set(scenes.PATTERNS)
    assert {o.attributes.colour for o in objects} == set(scenes.COLOURS)
    for flag in ("is_occluded", "is_truncated", "is_group_of", "is_depiction"):
        assert {getattr(o, flag) for o in objects} == {True, False}


def test_boxes_reach_from_two_to_eighty_per_cent():
    shares = [
        o.box.width * o.box.height / scene.image[..., 0].size for scene in draw_scenes(250) for o in scene.objects
    ]
    assert min(shares) < 0.03
    assert max(shares) > 0.6


def test_without_rare_kinds_there_are_no_groups_and_no_depictions():
    for scene in draw_scenes(80, rare_kinds=False):
        assert not any(o.is_group_of or o.is_depiction for o in scene.objects)


def test_second_colour_differs_unless_plain():
    rng = np.random.default_rng(0)
    for _ in range(200):
        a = draw_attributes(rng)
        assert (a.second_colour == a.colour) == (a.pattern == "plain")


def test_box_is_tight_around_what_was_drawn():
    rng = np.random.default_rng(1)
    for shape in scenes.SHAPES:
        canvas = np.full((64, 72, 3), 128, np.float32)
        attributes = scenes.Attributes(shape, "red", "plain", "red")
        light = np.array([0, -1], np.float32)
        coverage = scenes._draw_object(rng, canvas, attributes, (36.0, 32.0), 30.0, light, flat=False)
        box = scenes._tight_box(coverage)
        inside = coverage[box.y0 : box.y1, box.x0 : box.x1] > 0.5
        assert inside.sum() == (coverage > 0.5).sum()
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()


def test_box_of_an_upright_square_by_hand():
    coverage = scenes._coverage("square", (32.0, 30.0), np.array([20, 20], np.float32), 0.0, 64, 64)
    assert scenes._tight_box(coverage) == Box(14, 12, 50, 48)


@pytest.mark.parametrize(
    ("shape", "share"),
    [
        ("circle", np.pi / 4),
        ("square", 0.81),
        ("triangle", 0.499),
        ("cross", 0.551),
        ("ring", np.pi / 4 * (1 - 0.48**2)),
    ],
)
def test_shapes_fill_their_extent_as_geometry_says(shape, share):
    coverage = scenes._coverage(shape, (32.0, 32.0), np.array([24, 24], np.float32), 0.2, 64, 64)
    assert coverage.sum() / 48**2 == pytest.approx(share, abs=0.015)


def test_caption_names_the_largest_object_first():
    for scene in draw_scenes(40):
        largest = max(scene.objects, key=lambda o: o.box.width * o.box.height)
        assert scene.caption.startswith(largest.attributes.caption)
