"""Class names become the words that a text-conditioned model was trained on."""

from dataclasses import replace

import pytest

from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.labels import words_of
from pbe.evaluation.painting.methods import class_prompts


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("AdjustableClamp", "adjustable clamp"),
        ("BoltNutSet", "bolt nut set"),
        ("traffic_light", "traffic light"),
        ("Traffic light", "traffic light"),
        ("Dog", "dog"),
        ("TV", "tv"),
        ("LEGOBrick", "lego brick"),
        ("Type2Plug", "type2 plug"),
    ],
)
def test_a_class_name_in_words(label: str, words: str) -> None:
    assert words_of(label) == words


def test_prompts_are_in_words(bench: Bench) -> None:
    assert bench.origins is not None
    renamed = tuple(replace(origin, exemplar_label="SodaCan") for origin in bench.origins)
    assert set(class_prompts(replace(bench, origins=renamed), {}).values()) == {"a soda can"}
