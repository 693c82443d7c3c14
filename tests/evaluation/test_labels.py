"""Class names become the words that a text-conditioned model was trained on."""

from dataclasses import replace

import pytest

from pbe.dataset.image_shards import ImageRef
from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.benches.case_selection import _BoxRow, _origin, _Plan
from pbe.evaluation.labels import words_of
from pbe.evaluation.painting.methods import class_prompts
from pbe.evaluation.report.gallery import case_captions
from pbe.method.windows import Window


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


def test_captions_are_in_words(bench: Bench) -> None:
    box = _BoxRow("1_0", "1", "SodaCan", (4, 4, 24, 24), 32, 32, True, ImageRef("x.tar", 0, 1), None, None)
    origin = _origin(0, _Plan(box, Window(0, 0, 32), box), {})
    assert origin.exemplar_caption == "soda can"
    unknown = replace(origin, exemplar_caption="")
    assert case_captions(replace(bench, ids=(0, 1), origins=(origin, unknown))) == ["soda can", "soda can"]
