"""What the summary says, against intervals made by hand: better, worse and tie, in both directions."""

from collections.abc import Mapping

import polars as pl
import pytest

from pbe.evaluation.report.numbers import digits_for, format_number, interval, names, signed
from pbe.evaluation.report.results import Difference, Estimate, Results
from pbe.evaluation.report.summary import headline, summarise
from pbe.evaluation.scoring.metric_table import MetricSpec

Values = Mapping[str, tuple[float, float, float]]  # metric -> value, low, high


def results(own: Values, differences: Mapping[str, Values]) -> Results:
    methods = ("paint_by_example", *differences)
    values = {m: {metric: own[metric][0] - d[0] for metric, d in found.items()} for m, found in differences.items()}
    return Results(
        "paint_by_example",
        methods,
        tuple(own),
        {"paint_by_example": {m: Estimate(*v) for m, v in own.items()}}
        | {m: {metric: Estimate(v) for metric, v in found.items()} for m, found in values.items()},
        {m: {metric: Difference(metric, m, *v) for metric, v in found.items()} for m, found in differences.items()},
        {},
        0.95,
        2000,
        (),
        {},
        {},
        pl.DataFrame(),
    )


OWN: Values = {"identity": (45.2, 44.0, 46.4), "fid": (0.0119, 0.0104, 0.0139)}
TIE = (0.0012, -0.0024, 0.0054)


@pytest.mark.parametrize(
    ("metric", "value", "low", "high", "verdict"),
    [
        ("identity", 12.3, 10.1, 14.4, "better"),
        ("identity", -12.3, -14.4, -10.1, "worse"),
        ("identity", 0.3, -0.1, 0.7, "tie"),
        ("identity", 0.3, 0.0, 0.7, "tie"),
        ("fid", -0.5, -0.7, -0.2, "better"),
        ("fid", 0.5, 0.2, 0.7, "worse"),
        ("fid", -0.5, -1.2, 0.1, "tie"),
    ],
)
def test_a_difference_is_real_when_its_interval_excludes_zero(
    metric: str, value: float, low: float, high: float, verdict: str
) -> None:
    assert Difference(metric, "source", value, low, high).verdict == verdict


def test_the_headline_says_what_is_shown_and_what_is_not() -> None:
    found = results(
        OWN,
        {
            "text_inpainting": {"identity": (12.3, 10.1, 14.4), "fid": TIE},
            "copy_paste": {"identity": (-40.0, -41.0, -39.0), "fid": TIE},
            "source": {"identity": (33.0, 32.0, 34.0), "fid": TIE},
        },
    )
    assert headline(found) == (
        "Paint by Example’s identity is above text-conditioned inpainting’s by 12.30 [10.10, 14.40], which is better; "  # noqa: RUF001
        "its FID does not differ significantly from the unchanged source’s."  # noqa: RUF001
    )


def test_a_worse_model_is_said_to_be_worse() -> None:
    found = results(
        OWN,
        {
            "text_inpainting": {"identity": (-12.3, -14.4, -10.1), "fid": (0.5, 0.2, 0.7)},
            "source": {"identity": (33.0, 32.0, 34.0), "fid": (0.5, 0.2, 0.7)},
        },
    )
    assert headline(found) == (
        "Paint by Example’s identity is below text-conditioned inpainting’s by 12.30 [10.10, 14.40], which is worse; "  # noqa: RUF001
        "its FID is above the unchanged source’s by 0.500 [0.200, 0.700], which is worse."  # noqa: RUF001
    )


def test_real_differences_and_ties_are_in_separate_lists() -> None:
    found = results(
        OWN,
        {
            "stock": {"identity": (0.1, -0.5, 0.7), "fid": (-0.5, -0.7, -0.2)},
            "copy_paste": {"identity": (-40.0, -41.0, -39.0), "fid": TIE},
            "source": {"identity": (33.0, 32.0, 34.0), "fid": TIE},
        },
    )
    summary = summarise(found)
    assert summary.shown == (
        "The identity of Paint by Example, 45.20 [44.00, 46.40], is above the unchanged source’s by 33.00 "  # noqa: RUF001
        "[32.00, 34.00] (better) and below copy and paste’s by 40.00 [39.00, 41.00] (worse).",  # noqa: RUF001
        "The FID of Paint by Example, 0.0119 [0.0104, 0.0139], is below diffusers' stock pipeline’s by 0.500 "  # noqa: RUF001
        "[0.200, 0.700] (better).",
    )
    assert summary.not_shown[0] == (
        "The identity of Paint by Example does not differ significantly from diffusers' stock pipeline’s "  # noqa: RUF001
        "(difference 0.10 [−0.50, 0.70])."  # noqa: RUF001
    )
    assert summary.not_shown[1].startswith(
        "The FID of Paint by Example does not differ significantly from copy and paste’s ("  # noqa: RUF001
    )
    assert any("judgement by people" in sentence for sentence in summary.not_shown)


def test_without_another_method_nothing_is_shown() -> None:
    summary = summarise(results(OWN, {}))
    assert summary.headline == ""
    assert summary.shown == ()


def test_clip_score_stands_in_for_identity() -> None:
    found = results({"clip_score": (80.0, 79.0, 81.0)}, {"source": {"clip_score": (70.0, 69.0, 71.0)}})
    assert "CLIP score is above the unchanged source" in headline(found)


def test_numbers_are_formatted_with_a_minus_sign_and_a_dash_for_none() -> None:
    assert [format_number(v) for v in (None, float("nan"), 1234, 3.14159, -2.0)] == ["–", "–", "1,234", "3.14", "−2.00"]  # noqa: RUF001
    assert [signed(1.0), signed(-1.0)] == ["+1.00", "−1.00"]  # noqa: RUF001
    assert interval(-1.0, 2.5, 1) == "[−1.0, 2.5]"  # noqa: RUF001
    assert [names(["a"]), names(["a", "b", "c"])] == ["a", "a, b and c"]


def test_an_interval_has_two_significant_digits_of_its_width() -> None:
    spec = MetricSpec("FID", False, 3)
    assert digits_for(spec, 0.0104, 0.0139) == 4
    assert digits_for(spec, 1.0, 9.0) == 3
    assert digits_for(spec, 1.0, 1.0) == 3
