"""The bundled classifier against the true attributes of scenes that it was not trained on."""

from pathlib import Path

import numpy as np
import pytest

from pbe.demo.attribute_classifier import CROP_PX, FOLDER, WORDS, AttributeClassifier
from pbe.demo.scenes import draw_scene
from pbe.demo.weights.crops import clear_objects
from pbe.errors import UserError
from pbe.method.exemplars import crop_exemplar

WEIGHTS = Path(__file__).parents[2] / "data/tiny" / FOLDER


@pytest.fixture(scope="module")
def classifier() -> AttributeClassifier:
    return AttributeClassifier.from_pretrained(WEIGHTS)


def test_at_least_95_percent_of_unedited_boxes_are_read_correctly(classifier: AttributeClassifier) -> None:
    rng = np.random.default_rng(991)
    pairs = clear_objects([draw_scene(rng, 2, rare_kinds=False) for _ in range(300)])
    readings = classifier.read_boxes([scene.image for scene, _ in pairs], [o.box for _, o in pairs])
    for name in WORDS:
        truth = [getattr(o.attributes, name) for _, o in pairs]
        assert np.mean([reading[name] == true for reading, true in zip(readings, truth, strict=True)]) >= 0.95, name


def test_a_box_is_read_as_an_exemplar_cropped_with_the_same_margin(classifier: AttributeClassifier) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), dtype=np.uint8))
    boxes = [(0, 0, 20, 20), (10, 5, 48, 40), (30, 30, 47, 39)]
    crops = [crop_exemplar(image, box, 0.06, CROP_PX) for image, box in zip(images, boxes, strict=True)]
    assert classifier.read_boxes(images, boxes) == classifier.read_exemplars(crops)


def test_a_reading_has_a_word_for_each_attribute_and_a_caption(classifier: AttributeClassifier) -> None:
    (reading,) = classifier.read_exemplars([np.zeros((20, 24, 3), np.uint8)])
    assert tuple(reading) == classifier.attributes == ("shape", "colour", "pattern", "second_colour")
    assert all(reading[name] in words for name, words in WORDS.items())
    words = {"shape": "star", "colour": "red", "pattern": "striped", "second_colour": "blue"}
    assert classifier.caption(words) == "a striped red star with blue"


def test_a_saved_classifier_reads_the_same(classifier: AttributeClassifier, tmp_path: Path) -> None:
    exemplars = list(np.random.default_rng(0).integers(0, 256, (5, 20, 24, 3), dtype=np.uint8))
    classifier.save_pretrained(tmp_path)
    assert AttributeClassifier.from_pretrained(tmp_path).read_exemplars(exemplars) == classifier.read_exemplars(
        exemplars
    )


def test_a_folder_without_a_classifier_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{tmp_path}: cannot be loaded as an attribute classifier: .*config.json"):
        AttributeClassifier.from_pretrained(tmp_path)


def test_damaged_weights_are_named(classifier: AttributeClassifier, tmp_path: Path) -> None:
    classifier.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=f"^{tmp_path}: cannot be loaded"):
        AttributeClassifier.from_pretrained(tmp_path)
