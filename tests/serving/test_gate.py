"""The gate on examples, and its properties for any numbers."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbe.serving.gate import decide
from tests.support import parameters

SETTINGS = parameters.register()


def bench(
    fid: Any = 2.0, clip: Any = 70.0, drift: Any = 0, pasted_fid: Any = 3.0, source_clip: Any = 50.0, **other: Any
) -> dict[str, Any]:
    methods = {
        "paint_by_example": {"fid": fid, "clip_score": clip, "unmasked_max_abs_diff": drift},
        "copy_paste": {"fid": pasted_fid, "clip_score": 88.79},
        "source": {"fid": 0.0, "clip_score": source_clip},
    }
    return {"methods": methods, "features": "tower", "num_cases": 256, **other}


@pytest.mark.parametrize(
    ("challenger", "champion", "promoted", "words"),
    [
        (bench(), None, True, "first champion: FID 2 is below copy-and-paste's 3"),
        (bench(drift=1), None, False, "outside the mask change by up to 1"),
        (bench(clip=50.0), None, False, "CLIP score 50 is not more than 0 above the untouched source's 50"),
        (bench(fid=3.0), None, False, "FID 3 is not below copy-and-paste's 3"),
        (bench(clip=99.0, fid=3.1), None, False, "FID 3.1 is not below copy-and-paste's 3"),
        (bench(fid=math.nan), None, False, "fid of paint_by_example is nan"),
        (bench(clip=None), None, False, "clip_score of paint_by_example is missing"),
        (bench(fid="2.0"), None, False, "fid of paint_by_example is '2.0'"),
        (bench(drift=False), None, False, "unmasked_max_abs_diff of paint_by_example is False"),
        ({}, None, False, "unmasked_max_abs_diff of paint_by_example is missing from the metrics of the challenger"),
        (bench(), bench(), True, "FID 2 after 2, CLIP score 70 after 70"),
        (bench(fid=2.1), bench(), True, "FID 2.1 after 2"),
        (bench(fid=2.11), bench(), False, "FID 2.11 is more than 5 % above the champion's 2"),
        (bench(clip=68.7), bench(), True, "CLIP score 68.7 after 70"),
        (bench(clip=68.5), bench(), False, "CLIP score 68.5 is more than 2 % below the champion's 70"),
        (bench(fid=1.0), {}, False, "missing from the metrics of the champion"),
        (bench(), bench(features="ViT-B/32"), False, "features is 'tower', and 'ViT-B/32' for the champion"),
        (bench(), bench(num_cases=8), False, "num_cases is 256, and 8 for the champion"),
    ],
)
def test_the_decision_and_its_reason(
    challenger: dict[str, Any], champion: dict[str, Any] | None, promoted: bool, words: str
) -> None:
    decision = decide(challenger, champion, SETTINGS)

    assert decision.promoted is promoted
    assert words in decision.reason
    assert decision.reason.startswith("Promoted" if promoted else "Refused")
    assert decision.reason.endswith(".")


def test_the_minimum_gain_in_clip_score_is_a_setting() -> None:
    assert decide(bench(clip=54.0), None, parameters.register(min_clip_score_gain=3.0)).promoted
    assert not decide(bench(clip=54.0), None, parameters.register(min_clip_score_gain=4.0)).promoted


numbers = st.floats(0.0, 100.0)
anything = st.one_of(st.floats(), st.none(), st.text(max_size=3), st.booleans(), st.integers())


@given(fid=numbers, clip=numbers, pasted_fid=numbers, source_clip=numbers)
def test_a_first_champion_beats_copy_paste_and_the_source(
    fid: float, clip: float, pasted_fid: float, source_clip: float
) -> None:
    decision = decide(bench(fid, clip, 0, pasted_fid, source_clip), None, SETTINGS)

    assert decision.promoted == (fid < pasted_fid and clip > source_clip)


@given(fid=anything, clip=anything, drift=anything, pasted_fid=anything, source_clip=anything)
def test_a_model_is_promoted_only_for_finite_numbers(
    fid: Any, clip: Any, drift: Any, pasted_fid: Any, source_clip: Any
) -> None:
    decision = decide(bench(fid, clip, drift, pasted_fid, source_clip), None, SETTINGS)

    if decision.promoted:
        assert drift == 0
        assert all(math.isfinite(value) for value in (fid, clip, pasted_fid, source_clip))


@given(worse=st.floats(0.0, 0.049))
def test_a_challenger_within_the_tolerance_replaces_the_champion(worse: float) -> None:
    assert decide(bench(fid=2.0 * (1 + worse)), bench(fid=2.0), SETTINGS).promoted
