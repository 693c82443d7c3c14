"""The true attributes of the demo's boxes, and which of them are scored."""

from pathlib import Path

from pbe.demo.accuracy import read_truth, scored_values
from pbe.demo.attribute_classifier import WORDS
from pbe.demo.scenes import Attributes
from pbe.evaluation.attributes import accuracies

STAR = Attributes("star", "red", "plain", "red")
MOON = Attributes("moon", "blue", "dotted", "pink")


def test_the_truth_is_read_by_box_id(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    rows = ["box_id,Shape,Colour,Pattern,SecondColour", "a_000,star,red,plain,red", "b_001,moon,blue,dotted,pink"]
    (tmp_path / "annotations" / "world-attributes.csv").write_text("\n".join(rows) + "\n")
    truth = read_truth(tmp_path)
    assert {box_id: box.caption for box_id, box in truth.items()} == {
        "a_000": "a plain red star",
        "b_001": "a dotted blue moon with pink",
    }
    assert truth["b_001"].values == scored_values(MOON)


def test_data_of_another_source_have_no_truth(tmp_path: Path) -> None:
    assert read_truth(tmp_path) == {}


def test_every_attribute_of_a_patterned_object_is_scored() -> None:
    values = {"shape": "moon", "colour": "blue", "pattern": "dotted", "second_colour": "pink"}
    assert scored_values(MOON) == values
    assert tuple(values) == tuple(WORDS)


def test_the_second_colour_of_a_plain_object_is_not_scored() -> None:
    truth = [scored_values(STAR), scored_values(MOON)]
    readings = [{**truth[0], "second_colour": "green"}, truth[1]]
    assert accuracies(tuple(WORDS), readings, truth)["second_colour_accuracy"] == 100.0
    readings[1] = {**truth[1], "second_colour": "green"}
    assert accuracies(tuple(WORDS), readings, truth)["second_colour_accuracy"] == 0.0
    assert accuracies(tuple(WORDS), readings[:1], truth[:1])["second_colour_accuracy"] is None
