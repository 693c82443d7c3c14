"""The gate: whether a newly evaluated model becomes the champion, decided by paired intervals on the same cases.

Alone, the challenger changes no unmasked pixel, resembles the exemplars more than the untouched sources do, and is not
copy-and-paste: that has a higher CLIP score than a good model (table 2 of the paper: 88.79 against 84.97), so a model
that copies is refused by its FID and its copy-paste score, whatever its CLIP score.

Against the champion, one of `register.better` has to be better with confidence, and none of `better` and `hold` worse;
otherwise the champion stays. One of k metrics is enough, so every interval against the champion has a confidence of
1 - (1 - register.confidence) / k (Bonferroni): a model that is better in none of the k is promoted with a probability
of at most (1 - register.confidence) / 2. Another name in `hold` can only add a reason to refuse.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pbe.errors import UserError
from pbe.evaluation.names import COPY_PASTE, METHOD, SOURCE
from pbe.evaluation.scoring.metric_table import ACCURACY, METRICS
from pbe.serving.registry.comparisons import FID, Comparison, Difference, MethodScores, MissingScoreError
from pbe.serving.registry.evaluations import Evaluation
from pbe.settings import Register

MIN_CASES = 30  # to which a metric has to apply: a bootstrap of fewer has too narrow intervals
CHAMPION = "champion"
CHANGED, CLIP, IDENTITY, COPIED = "unmasked_max_abs_diff", "clip_score", "identity", "copy_paste_score"
WITHOUT_CASES = ("kid", CHANGED)  # metrics that are no mean over cases
REEVALUATE = (
    "to compare them, evaluate the champion in the same way: python -m flows.reevaluate, then dvc repro --force "
    "--single-item register; to replace it without a comparison, set register.replace_incomparable to true"
)
_NAMES = {SOURCE: "the untouched source", COPY_PASTE: "copy-and-paste"}

Outcome = Literal["first", "better", "tie", "worse", "faulty", "incomparable", "replaced"]


@dataclass(frozen=True)
class Champion:
    """The version that is champion; `evaluation` is None when it carries none."""

    version: int
    evaluation: Evaluation | None


@dataclass(frozen=True)
class Decision:
    """The gate's decision, its reason in one sentence with the numbers, and every comparison that it made."""

    promoted: bool
    outcome: Outcome
    reason: str
    table: tuple[Difference, ...] = ()


def decide(challenger: Evaluation, champion: Champion | None, settings: Register, *, seed: int) -> Decision:
    """Decide whether the challenger replaces the champion, None while there is none; `seed` is that of the bootstrap.

    A number that is missing, NaN or infinite is a reason to refuse, not an error. Raises UserError for a name in
    `register.better` or `register.hold` that is no metric of single cases.
    """
    check_metrics(settings)
    try:
        painter = challenger.method(METHOD, "the challenger")
        comparison = Comparison(painter.case_ids, challenger.reference, settings.bootstrap_draws, seed)
        alone, fault = _judge_alone(challenger, painter, comparison, settings)
        if fault is not None:
            return Decision(False, "faulty", f"Refused: {fault}.", alone)
        if champion is None:
            return Decision(True, "first", f"Promoted, the first champion: {_listed(alone)}.", alone)
        return _judge_against(champion, challenger, painter, comparison, settings, alone)
    except MissingScoreError as error:
        return Decision(False, "faulty", f"Refused: {error}.")


def check_metrics(settings: Register) -> None:
    """Raise UserError for a name in `register.better` or `register.hold` that the gate cannot compare."""
    known = [name for name in METRICS if name not in WITHOUT_CASES]
    for key in ("better", "hold"):
        for name in getattr(settings, key):
            if name in known or name.endswith(ACCURACY):
                continue
            why = "is no mean over cases" if name in WITHOUT_CASES else "is no metric"
            close = difflib.get_close_matches(name, known, n=1)
            what = f"did you mean {close[0]}?" if close else f"use some of {', '.join(known)}, <attribute>{ACCURACY}"
            raise UserError(f"register.{key}: {name} {why}; {what}")


def _judge_alone(
    challenger: Evaluation, painter: MethodScores, comparison: Comparison, settings: Register
) -> tuple[tuple[Difference, ...], str | None]:
    """Return the comparisons with the baselines, and the challenger's first fault that needs no champion, or None."""
    if fault := _changed_pixels(painter):
        return (), fault
    source, copy_paste = (challenger.method(name, _NAMES[name]) for name in (SOURCE, COPY_PASTE))
    pairs = [(CLIP, SOURCE, source), (IDENTITY, SOURCE, source), (FID, COPY_PASTE, copy_paste),
             (COPIED, COPY_PASTE, copy_paste)]  # fmt: skip
    table = tuple(
        comparison.difference(metric, name, painter, baseline, settings.confidence)
        for metric, name, baseline in pairs
        if metric in (CLIP, FID) or painter.has(metric)
    )
    return table, next((fault for row in table if (fault := _fault_alone(row, settings))), None)


def _changed_pixels(painter: MethodScores) -> str | None:
    if CHANGED not in painter.columns or not np.isfinite(painter.columns[CHANGED]).all():
        raise MissingScoreError(f"{CHANGED} of {painter.name} is missing or not finite in some cases")
    largest = float(painter.columns[CHANGED].max(initial=0.0))
    return f"pixels outside the mask change by up to {largest:.4g}, and must not change at all" if largest else None


def _fault_alone(row: Difference, settings: Register) -> str | None:
    """Return what is wrong with the challenger beside a baseline, or None."""
    beside = f"{row}, {row.challenger:.4g} against {row.baseline:.4g} of {_NAMES[row.against]}"
    if row.metric == CLIP and not row.low > settings.min_clip_score_gain:
        return f"not more than {settings.min_clip_score_gain:g} above the untouched source with confidence: {beside}"
    if row.metric == IDENTITY and row.verdict != "better":
        return f"not more like the exemplar than the untouched source with confidence: {beside}"
    if row.metric == FID and not row.difference < 0:
        return f"not below copy-and-paste: {beside}"
    if row.metric == COPIED and row.verdict != "better":
        return f"it copies the exemplar: {beside}"
    return None


def _judge_against(
    champion: Champion,
    challenger: Evaluation,
    painter: MethodScores,
    comparison: Comparison,
    settings: Register,
    alone: tuple[Difference, ...],
) -> Decision:
    """Return the decision on a challenger without a fault of its own."""
    name = f"the champion, version {champion.version}"
    if champion.evaluation is None:
        return _incomparable(f"{name}, carries no scores of single cases", settings, alone)
    if (what := challenger.difference_in_conditions(champion.evaluation)) is not None:
        return _incomparable(f"{name}, was evaluated with {what}", settings, alone)
    other = champion.evaluation.method(METHOD, "the champion")
    confidence = 1 - (1 - settings.confidence) / len(set(settings.better))
    table = tuple(
        _unless_few(comparison.difference(metric, CHAMPION, painter, other, confidence))
        for metric in dict.fromkeys((*settings.better, *settings.hold))
    )
    outcome, reason = _verdict(table, settings.better, name, f"{len(painter.case_ids)} cases")
    return Decision(outcome == "better", outcome, reason, (*table, *alone))


def _incomparable(why: str, settings: Register, alone: tuple[Difference, ...]) -> Decision:
    if settings.replace_incomparable:
        reason = f"Promoted without a comparison, because register.replace_incomparable is true: {why}."
        return Decision(True, "replaced", reason, alone)
    return Decision(False, "incomparable", f"Refused: not comparable, because {why}; {REEVALUATE}.", alone)


def _verdict(table: Sequence[Difference], better: Sequence[str], name: str, cases: str) -> tuple[Outcome, str]:
    if worse := [row for row in table if row.verdict == "worse"]:
        return "worse", f"Refused: worse than {name}, on {cases}: {_listed(worse)}."
    if gained := [row for row in table if row.verdict == "better" and row.metric in better]:
        rest = [row for row in table if row not in gained]
        not_worse = f"; not worse: {_listed(rest)}" if rest else ""
        return "better", f"Promoted: better than {name}, on {cases}: {_listed(gained)}{not_worse}."
    few = ", ".join(f"{row.metric} applies to {row.num_cases}" for row in table if row.num_cases < MIN_CASES)
    needed = f" At least {MIN_CASES} are needed: {few}." if few else ""
    return "tie", f"Not promoted: {cases} cannot tell it from {name}: {_listed(table)}.{needed} The champion stays."


def _unless_few(row: Difference) -> Difference:
    """Return the comparison, a tie if the metric applies to too few cases."""
    return row if row.num_cases >= MIN_CASES else replace(row, verdict="tie")


def _listed(rows: Sequence[Difference]) -> str:
    return ", ".join(map(str, rows))
