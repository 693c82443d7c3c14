"""The demo's scenes: sizes, boxes, attributes and flags, from a seeded generator."""

from typing import Any

import numpy as np
import pytest

from pbe.demo import scenes
from pbe.demo.scenes import ObjectBox, Scene, draw_attributes, draw_scene


def draw_scenes(count: int, **options: Any) -> list[Scene]:
    return [draw_scene(np.random.default_rng([11, index]), **options) for index in range(count)]


def test_the_same_generator_draws_the_same_scene() -> None:
    first, second = (draw_scene(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    assert first.objects == second.objects
    assert not np.array_equal(first.image[:64, :64], draw_scene(np.random.default_rng(6)).image[:64, :64])


def test_scenes_have_the_sizes_and_boxes_that_draw_scene_documents() -> None:
    for scene in draw_scenes(60):
        height, width = scene.image.shape[:2]
        assert scene.image.dtype == np.uint8
        assert min(height, width) == 64
        assert max(height, width) in (64, 72, 80)
        assert 1 <= len(scene.objects) <= 4
        for item in scene.objects:
            assert 0 <= item.box.x0 < item.box.x1 <= width
            assert 0 <= item.box.y0 < item.box.y1 <= height


def test_every_attribute_and_flag_occurs() -> None:
    objects = [item for scene in draw_scenes(250) for item in scene.objects]
    assert {o.attributes.shape for o in objects} == set(scenes.SHAPES)
    assert {o.attributes.pattern for o in objects} == set(scenes.PATTERNS)
    assert {o.attributes.colour for o in objects} == set(scenes.COLOURS)
    for flag in ("is_occluded", "is_truncated", "is_group_of", "is_depiction"):
        assert {getattr(o, flag) for o in objects} == {True, False}


def test_boxes_cover_from_3_to_60_percent_of_an_image_and_beyond() -> None:
    shares = [
        o.box.width * o.box.height / scene.image[..., 0].size for scene in draw_scenes(250) for o in scene.objects
    ]
    assert min(shares) < 0.03
    assert max(shares) > 0.6


def test_without_rare_kinds_there_are_no_groups_and_no_depictions() -> None:
    for scene in draw_scenes(80, rare_kinds=False):
        assert not any(o.is_group_of or o.is_depiction for o in scene.objects)


def test_the_second_colour_differs_from_the_first_unless_the_object_is_plain() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        a = draw_attributes(rng)
        assert (a.second_colour == a.colour) == (a.pattern == "plain")


def test_the_box_is_tight_around_the_object() -> None:
    rng = np.random.default_rng(1)
    for shape in scenes.SHAPES:
        canvas = np.full((64, 72, 3), 128, np.float32)
        attributes = scenes.Attributes(shape, "red", "plain", "red")
        light = np.array([0, -1], np.float32)
        coverage = scenes._draw_object(rng, canvas, attributes, (36.0, 32.0), 30.0, light, flat=False)
        box = scenes._tight_box(coverage)
        assert box is not None
        inside = coverage[box.y0 : box.y1, box.x0 : box.x1] > 0.5
        assert inside.sum() == (coverage > 0.5).sum()
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()


def test_the_box_of_an_upright_square_matches_its_geometry() -> None:
    coverage = scenes._coverage("square", (32.0, 30.0), np.array([20, 20], np.float32), 0.0, 64, 64)
    assert scenes._tight_box(coverage) == ObjectBox(14, 12, 50, 48)


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
def test_the_area_of_a_shape_matches_its_geometry(shape: str, share: float) -> None:
    coverage = scenes._coverage(shape, (32.0, 32.0), np.array([24, 24], np.float32), 0.2, 64, 64)
    assert coverage.sum() / 48**2 == pytest.approx(share, abs=0.015)


def test_a_caption_names_the_largest_object_first() -> None:
    for scene in draw_scenes(40):
        largest = max(scene.objects, key=lambda o: o.box.width * o.box.height)
        assert scene.caption.startswith(largest.attributes.caption)
