import numpy as np
import pytest

from pbe.demo.attribute_classifier import CLASSES, CROP_PX, Judge
from pbe.demo.scenes import Attributes
from pbe.evaluation.attributes import (
    WORDS,
    accuracies,
    crop_for_judge,
    join_readings,
    read_boxes,
    read_exemplars,
    truth_readings,
)

TRUTH = (
    Attributes("star", "red", "plain", "red"),
    Attributes("moon", "blue", "dotted", "pink"),
    Attributes("star", "red", "striped", "white"),
    Attributes("ring", "black", "checked", "cyan"),
)


def test_the_words_are_the_judges_own() -> None:
    assert WORDS == CLASSES
    assert crop_for_judge(np.zeros((40, 40, 3), np.uint8), (5, 5, 20, 30)).shape == (CROP_PX, CROP_PX, 3)


def test_reading_the_truth_is_always_right() -> None:
    assert set(accuracies(truth_readings(TRUTH), TRUTH).values()) == {100.0}


def test_accuracies_are_percent_right() -> None:
    read = truth_readings(TRUTH)
    read["shape"] = read["shape"].copy()
    read["shape"][0] = WORDS["shape"].index("heart")
    assert accuracies(read, TRUTH)["shape_accuracy"] == 75.0


def test_the_second_colour_counts_on_patterned_things_only() -> None:
    read = truth_readings(TRUTH)
    read["second_colour"] = read["second_colour"].copy()
    read["second_colour"][0] = WORDS["second_colour"].index("green")  # plain: does not count
    assert accuracies(read, TRUTH)["second_colour_accuracy"] == 100.0
    read["second_colour"][1] = WORDS["second_colour"].index("green")
    assert accuracies(read, TRUTH)["second_colour_accuracy"] == pytest.approx(200 / 3)
    assert accuracies(truth_readings(TRUTH[:1]), TRUTH[:1])["second_colour_accuracy"] is None


def test_a_judge_reads_boxes_as_it_reads_their_crops(judge: Judge) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), dtype=np.uint8)
    boxes = [(0, 0, 20, 20), (10, 5, 48, 40), (30, 30, 47, 39)]
    crops = [crop_for_judge(image, box) for image, box in zip(images, boxes, strict=True)]
    by_box, by_crop = read_boxes(judge, list(images), boxes), read_exemplars(judge, crops)
    for name in WORDS:
        np.testing.assert_array_equal(by_box[name], by_crop[name])
        assert join_readings([by_box, by_crop])[name].shape == (6,)
