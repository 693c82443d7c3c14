"""The gate with planted models: better, equal and worse ones, the boundary cases, and properties of every decision."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbe.errors import UserError
from pbe.evaluation.names import METHOD
from pbe.serving.registry.evaluations import Evaluation
from pbe.serving.registry.gate import Champion, Decision, check_metrics, decide
from tests.support import parameters
from tests.support.planted_evaluations import planted

SETTINGS = parameters.register(bootstrap_draws=500)


def judge(challenger: Evaluation, champion: Evaluation | None = None, **changes: Any) -> Decision:
    opponent = None if champion is None else Champion(7, champion)
    return decide(challenger, opponent, SETTINGS.replace(**changes), seed=0)


def with_scores(evaluation: Evaluation, column: str, values: Mapping[int, float | None]) -> Evaluation:
    """Return the evaluation with other scores of the painter, by case."""
    mine = pl.col("method") == METHOD
    new = pl.col("case_id").replace_strict(dict(values), default=pl.col(column), return_dtype=pl.Float64)
    return replace(
        evaluation, cases=evaluation.cases.with_columns(pl.when(mine).then(new).otherwise(column).alias(column))
    )


CHAMPION = planted(1)


@pytest.mark.parametrize(
    ("challenger", "outcome", "words"),
    [
        (planted(2, identity=62.0), "better", "better than the champion, version 7, on 60 cases: identity +1"),
        (planted(2, identity=58.0), "worse", "worse than the champion, version 7, on 60 cases: identity -"),
        (planted(2), "tie", "60 cases cannot tell it from the champion, version 7: identity "),
        (planted(2, clip=87.0), "better", "CLIP score +"),
        (planted(2, identity=62.0, clip=83.0), "worse", "60 cases: CLIP score -"),
        (planted(2, identity=62.0, seam=1.8), "worse", "seam visibility +"),
        (planted(2, identity=62.0, fid=1.6), "worse", "FID +"),
        (planted(2, seam=1.2), "tie", "The champion stays"),
        (planted(2, fid=0.5), "tie", "The champion stays"),
    ],
)
def test_a_planted_model_against_the_champion(challenger: Evaluation, outcome: str, words: str) -> None:
    decision = judge(challenger, CHAMPION)

    assert decision.outcome == outcome
    assert decision.promoted == (outcome == "better")
    assert words in decision.reason
    assert decision.reason.startswith({"better": "Promoted", "worse": "Refused", "tie": "Not promoted"}[outcome])


def test_the_table_has_every_comparison_with_its_interval() -> None:
    table = judge(planted(2, identity=62.0, seam=1.8), CHAMPION).table

    assert [(row.metric, row.against) for row in table] == [
        ("identity", "champion"), ("clip_score", "champion"), ("fid", "champion"), ("seam_visibility", "champion"),
        ("clip_score", "source"), ("identity", "source"), ("fid", "copy_paste"), ("copy_paste_score", "copy_paste"),
    ]  # fmt: skip
    assert {row.metric: row.verdict for row in table[:4]} == {
        "identity": "better", "clip_score": "tie", "fid": "tie", "seam_visibility": "worse",
    }  # fmt: skip
    for row in table:
        assert row.low <= row.difference <= row.high
        assert row.difference == pytest.approx(row.challenger - row.baseline, abs=2e-4)


def test_what_is_held_is_a_setting() -> None:
    challenger = planted(2, identity=62.0, seam=1.8)

    assert judge(challenger, CHAMPION).outcome == "worse"
    assert judge(challenger, CHAMPION, hold=("fid",)).outcome == "better"
    assert judge(challenger, CHAMPION, better=("fid",), hold=()).outcome == "tie"
    assert judge(planted(2, fid=0.5), CHAMPION, better=("fid",)).outcome == "better"


def test_one_of_two_metrics_has_to_be_better_with_more_confidence_than_one_of_one() -> None:
    challenger = planted(2, identity=62.0)
    one, two = (judge(challenger, CHAMPION, better=names).table[0] for names in (("identity",), ("identity", "fid")))

    assert two.low < one.low < one.high < two.high


@pytest.mark.parametrize(
    ("challenger", "words"),
    [
        (planted(drift=1), "pixels outside the mask change by up to 1"),
        (planted(clip=50.0), "not more than 0 above the untouched source with confidence: CLIP score"),
        (planted(identity=20.0), "not more like the exemplar than the untouched source with confidence: identity"),
        (planted(fid=2.2), "not below copy-and-paste: FID"),
        (planted(copied=100.0), "it copies the exemplar: copy-paste score"),
        (planted(num_cases=1), "fid of the challenger is missing: it needs at least two cases"),
        (
            with_scores(planted(), "clip_score", {3: None}),
            "clip_score of the challenger is missing in 1 of 60 cases, such as 3",
        ),
        (with_scores(planted(), "clip_score", {3: np.inf}), "clip_score of the challenger is infinite"),
        (with_scores(planted(), "unmasked_max_abs_diff", {3: np.nan}), "unmasked_max_abs_diff of the challenger is"),
        (replace(planted(), features={}), "fid of the challenger is missing"),
        (replace(planted(), reference=None), "fid of the challenger is missing"),
        (replace(planted(), cases=planted().cases.drop("clip_score")), "clip_score of the challenger was not measured"),
        (
            replace(planted(), cases=planted().cases.filter(pl.col("method") != "copy_paste")),
            "copy-and-paste was not ev",
        ),
        (replace(planted(), cases=planted().cases.clear()), "the challenger was not evaluated"),
    ],
)
def test_a_fault_of_its_own_is_a_reason_to_refuse(challenger: Evaluation, words: str) -> None:
    for champion in (None, CHAMPION):
        decision = judge(challenger, champion)

        assert (decision.promoted, decision.outcome) == (False, "faulty")
        assert words in decision.reason


def test_the_first_good_model_is_promoted_with_its_comparisons() -> None:
    decision = judge(planted())

    assert (decision.promoted, decision.outcome) == (True, "first")
    assert decision.reason.startswith("Promoted, the first champion: CLIP score +")
    assert {row.against for row in decision.table} == {"source", "copy_paste"}


def test_copy_and_paste_never_wins() -> None:
    """It has the highest CLIP score and identity, as in table 2 of the paper."""
    copier = planted(identity=90.0, clip=99.0, fid=2.0, copied=100.0)

    assert not judge(copier).promoted
    assert not judge(copier, CHAMPION).promoted


def test_the_minimum_gain_in_clip_score_is_a_setting() -> None:
    assert judge(planted(clip=54.0), min_clip_score_gain=3.0).promoted
    assert not judge(planted(clip=54.0), min_clip_score_gain=4.0).promoted


@pytest.mark.parametrize(
    ("champion", "words"),
    [
        (None, "the champion, version 7, carries no scores of single cases"),
        (planted(conditions={"bench_digest": "c" * 32}), "evaluated with bench_digest cccc"),
        (planted(conditions={"num_steps": 50}), "evaluated with num_steps 50, the challenger with 8"),
        (planted(conditions={"encoder": "ViT-B/32"}), "evaluated with encoder ViT-B/32, the challenger with tower"),
        (planted(conditions={"eta": 1}), "evaluated with eta 1, the challenger with None"),
    ],
)
def test_what_cannot_be_compared_is_refused_unless_it_may_be_replaced(champion: Evaluation | None, words: str) -> None:
    challenger = planted(2, identity=70.0)
    refused = decide(challenger, Champion(7, champion), SETTINGS, seed=0)

    assert (refused.promoted, refused.outcome) == (False, "incomparable")
    assert words in refused.reason
    assert "python -m flows.reevaluate" in refused.reason

    deliberate = SETTINGS.replace(replace_incomparable=True)
    replaced = decide(challenger, Champion(7, champion), deliberate, seed=0)
    assert (replaced.promoted, replaced.outcome) == (True, "replaced")
    assert words in replaced.reason
    assert not decide(planted(drift=1), Champion(7, champion), deliberate, seed=0).promoted


def test_replacing_what_cannot_be_compared_is_no_way_around_a_comparison() -> None:
    assert judge(planted(2), CHAMPION, replace_incomparable=True).outcome == "tie"
    assert judge(planted(2, identity=55.0), CHAMPION, replace_incomparable=True).outcome == "worse"


def test_few_cases_are_a_tie() -> None:
    decision = judge(planted(2, num_cases=29, identity=80.0), planted(1, num_cases=29))

    assert (decision.promoted, decision.outcome) == (False, "tie")
    assert "29 cases cannot tell it from the champion, version 7: identity +" in decision.reason
    assert "At least 30 are needed: identity applies to 29" in decision.reason


def test_a_metric_that_applies_to_few_cases_decides_nothing() -> None:
    few = pl.when(pl.col("case_id") < 29).then("identity").alias("identity")
    for identity in (50.0, 80.0):
        models = (planted(2, identity=identity), CHAMPION)
        challenger, champion = (replace(each, cases=each.cases.with_columns(few)) for each in models)
        assert judge(challenger, champion, better=("identity",)).outcome == "tie"
        assert judge(challenger, champion, better=("clip_score",), hold=("identity",)).outcome == "tie"


def test_a_score_that_the_champion_lacks_is_a_reason_to_refuse() -> None:
    challenger = planted(2, identity=70.0)

    for champion in (
        with_scores(CHAMPION, "identity", {5: np.nan}),
        replace(CHAMPION, cases=CHAMPION.cases.drop("identity")),
        replace(CHAMPION, cases=CHAMPION.cases.filter(pl.col("case_id") != 5)),
        replace(CHAMPION, features={}),
    ):
        decision = judge(challenger, champion)
        assert (decision.promoted, decision.outcome) == (False, "faulty")
        assert "of the champion" in decision.reason


def test_a_case_to_which_a_score_does_not_apply_is_left_out_for_both() -> None:
    applies = pl.when(pl.col("case_id") != 5).then("identity").alias("identity")
    challenger, champion = (
        replace(each, cases=each.cases.with_columns(applies)) for each in (planted(2, identity=62.0), CHAMPION)
    )

    decision = judge(challenger, champion, better=("identity",))
    assert decision.outcome == "better"
    expected = challenger.cases.filter(pl.col("method") == METHOD)["identity"].mean()
    assert decision.table[0].challenger == pytest.approx(expected, abs=1e-4)


def test_the_accuracy_of_an_attribute_is_the_mean_of_its_column() -> None:
    def with_shapes(evaluation: Evaluation, every: int) -> Evaluation:
        column = (pl.col("case_id") % every != 0).alias("shape_correct")
        return replace(evaluation, cases=evaluation.cases.with_columns(column))

    better, worse = with_shapes(planted(2), 20), with_shapes(CHAMPION, 2)
    assert judge(better, worse, better=("shape_accuracy",)).outcome == "better"
    assert judge(worse, better, better=("shape_accuracy",)).outcome == "worse"
    assert judge(better, worse, better=("shape_accuracy",)).table[0].challenger == 95.0  # per cent


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("identiti",), "register.better: identiti is no metric; did you mean identity?"),
        (("kid",), "register.better: kid is no mean over cases; did you mean fid?"),
    ],
)
def test_a_name_that_is_no_metric_of_cases_is_named(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        check_metrics(SETTINGS.replace(better=names))
    with pytest.raises(UserError, match=r"register\.hold"):
        check_metrics(SETTINGS.replace(hold=names))


SHIFTS = st.floats(-4.0, 4.0)


@settings(max_examples=25, deadline=None)
@given(identity=SHIFTS, clip=SHIFTS, seam=st.floats(-0.3, 0.3), fid=st.floats(-0.5, 0.5))
def test_two_models_never_replace_each_other(identity: float, clip: float, seam: float, fid: float) -> None:
    one, other = planted(1), planted(2, identity=60 + identity, clip=85 + clip, seam=1.5 + seam, fid=1 + fid)
    there, back = judge(other, one), judge(one, other)

    assert not (there.promoted and back.promoted)
    opposite = {"better": "worse", "worse": "better", "tie": "tie"}
    assert [row.verdict for row in there.table[:4]] == [opposite[row.verdict] for row in back.table[:4]]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), better=st.sets(st.sampled_from(["identity", "clip_score", "fid"]), min_size=1))
def test_the_same_scores_are_a_tie(seed: int, better: set[str]) -> None:
    decision = judge(planted(seed), planted(seed), better=tuple(sorted(better)))

    assert decision.outcome == "tie"
    assert all(row.low == row.high == 0 for row in decision.table if row.against == "champion")


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    identity=SHIFTS,
    extra=st.sets(st.sampled_from(["clip_score", "copy_paste_score", "fid"])),
)
def test_holding_more_never_promotes_more(seed: int, identity: float, extra: set[str]) -> None:
    challenger = planted(seed, identity=60 + identity)
    few, more = (judge(challenger, CHAMPION, better=("identity",), hold=names) for names in ((), tuple(sorted(extra))))

    assert few.promoted or not more.promoted


def test_an_equal_model_is_rarely_promoted_and_a_better_one_often() -> None:
    """At most 2.5 % of equal models are, so more than 4 of 40 would be astonishing (p < 0.3 %)."""
    pairs = [(seed, planted(100 + seed)) for seed in range(40)]
    equal = [judge(planted(seed), champion).promoted for seed, champion in pairs]
    better = [judge(planted(seed, identity=61.0), champion).promoted for seed, champion in pairs]

    assert sum(equal) <= 4
    assert sum(better) >= 30
