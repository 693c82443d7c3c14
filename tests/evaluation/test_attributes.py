"""Accuracies of attributes: percentages of correct readings."""

import pytest

from pbe.evaluation.attributes import accuracies

TRUTH = (
    {"shape": "star", "colour": "red"},
    {"shape": "moon", "colour": "blue", "second_colour": "pink"},
    {"shape": "star", "colour": "red", "second_colour": "white"},
    {"shape": "ring", "colour": "black", "second_colour": "cyan"},
)
NAMES = ("shape", "colour", "second_colour")
CORRECT = tuple({"second_colour": "red", **truth} for truth in TRUTH)


def test_accuracies_are_percentages_of_correct_readings() -> None:
    readings = [{**CORRECT[0], "shape": "heart"}, *CORRECT[1:]]
    assert accuracies(NAMES, readings, TRUTH) == {
        "shape_accuracy": 75.0,
        "colour_accuracy": 100.0,
        "second_colour_accuracy": 100.0,
    }


def test_an_attribute_is_scored_on_the_cases_that_have_it() -> None:
    readings = [CORRECT[0], {**CORRECT[1], "second_colour": "green"}, *CORRECT[2:]]
    assert accuracies(NAMES, readings, TRUTH)["second_colour_accuracy"] == pytest.approx(200 / 3)


def test_the_accuracy_of_an_attribute_that_no_case_has_is_none() -> None:
    assert accuracies(NAMES, CORRECT[:1], TRUTH[:1])["second_colour_accuracy"] is None


def test_readings_and_truth_must_have_the_same_length() -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        accuracies(NAMES, CORRECT[:2], TRUTH)
