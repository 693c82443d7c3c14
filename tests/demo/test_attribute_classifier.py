"""The bundled judge against the truth of scenes it has never seen."""

from pathlib import Path

import numpy as np
import pytest

from pbe.demo import scenes
from pbe.demo.attribute_classifier import CLASSES, Judge
from pbe.demo.weights.crops import clear_objects
from pbe.method.exemplars import crop_exemplar

WEIGHTS = Path(__file__).parents[2] / "data/tiny/judge"


def test_it_is_right_on_at_least_95_percent_of_unedited_crops():
    rng = np.random.default_rng(991)
    pairs = clear_objects([scenes.draw_scene(rng, 2, rare_kinds=False) for _ in range(300)])
    crops = np.stack([crop_exemplar(s.image, tuple(o.box), 0.06, 32) for s, o in pairs])
    read = Judge.from_pretrained(WEIGHTS).read(crops)
    for name, words in CLASSES.items():
        truth = [words.index(getattr(o.attributes, name)) for _, o in pairs]
        assert np.mean(read[name] == truth) >= 0.95, name


def test_saved_and_loaded_it_reads_the_same(tmp_path):
    crops = np.random.default_rng(0).integers(0, 256, (5, 20, 24, 3), dtype=np.uint8)
    judge = Judge.from_pretrained(WEIGHTS)
    judge.save_pretrained(tmp_path)
    again = Judge.from_pretrained(tmp_path).read(crops)
    assert all((again[k] == v).all() for k, v in judge.read(crops).items())


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="no judge here"):
        Judge.from_pretrained(tmp_path)
