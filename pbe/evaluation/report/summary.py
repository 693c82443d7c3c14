"""The page's summary: sentences about what the intervals show, and about what they do not."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pbe.evaluation.names import COPY_PASTE, SOURCE
from pbe.evaluation.report.numbers import digits_for, format_number, interval, names
from pbe.evaluation.report.results import Difference, Estimate, Results, method_title
from pbe.evaluation.scoring.metric_table import MetricSpec, metric_spec

HEADLINES = ("identity", "clip_score", "fid")  # identity and FID; the CLIP score where identity was not measured
_ON_PASTING = ("copy_paste_score", "seam_visibility")
_NO_RIVALS = (SOURCE, COPY_PASTE, "poisson", "stock")  # no model, the exemplar's own pixels, or the painter's weights
_POSSESSIVE = "\N{RIGHT SINGLE QUOTATION MARK}s"


@dataclass(frozen=True)
class Summary:
    """What an evaluation shows with confidence, and what it does not show: sentences."""

    headline: str
    shown: tuple[str, ...]
    not_shown: tuple[str, ...]


def summarise(results: Results) -> Summary:
    """Return the sentences on the headline metrics, on copying and seams, and what no metric of the page can show."""
    shown: list[str] = []
    not_shown: list[str] = []
    for metric in (*headline_metrics(results), *_ON_PASTING):
        differences = [d for other in results.others if (d := results.difference(other, metric))]
        real = [d for d in differences if d.verdict != "tie"]
        ties = [d for d in differences if d.verdict == "tie"]
        shown += [_real_sentence(results, metric, real)] if real else []
        not_shown += [_tie_sentence(results, metric, ties)] if ties else []
    return Summary(headline(results), tuple(shown), (*not_shown, *_limits(results)))


def headline(results: Results) -> str:
    """Return one sentence: each headline metric against the one method that it is best read against.

    That is the unchanged source for FID, and otherwise the best other model; without one, the source again.
    """
    clauses: list[str] = []
    for metric in headline_metrics(results):
        difference = results.difference(_rival(results, metric), metric)
        if difference is not None:
            subject = "its" if clauses else _possessive(results.subject, start=True)
            clauses.append(f"{subject} {metric_spec(metric).title} {_relation(difference)}")
    return "; ".join(clauses) + "." if clauses else ""


def _rival(results: Results, metric: str) -> str:
    """Return the method that a headline compares the subject with; "" when there is none."""
    measured = [other for other in results.others if results.difference(other, metric)]
    models = [other for other in measured if other not in _NO_RIVALS]
    if SOURCE in measured and (metric == "fid" or not models):
        return SOURCE
    sign = 1 if metric_spec(metric).higher_is_better else -1
    return max(models or measured, key=lambda other: sign * results.estimates[other][metric].value, default="")


def _relation(difference: Difference) -> str:
    """Return "is above B's by 12.3 [10.1, 14.4]" or "does not differ significantly from B's"."""
    if difference.verdict == "tie":
        return f"does not differ significantly from {_possessive(difference.other)}"
    side = "above" if difference.value > 0 else "below"
    return f"is {side} {_by(difference, metric_spec(difference.metric))}, which is {difference.verdict}"


def headline_metrics(results: Results) -> tuple[str, ...]:
    """Return the metrics that the summary is about."""
    measured = [m for m in HEADLINES if results.estimate(results.subject, m)]
    if "identity" in measured and "clip_score" in measured:
        measured.remove("clip_score")
    return tuple(measured)


def _real_sentence(results: Results, metric: str, differences: Sequence[Difference]) -> str:
    """Return "The identity of A, 45.2 [44.0, 46.4], is above B's by 12.3 [10.1, 14.4], and below C's by ..."."""
    spec = metric_spec(metric)
    own = results.estimate(results.subject, metric)
    assert own is not None
    groups: dict[bool, list[Difference]] = defaultdict(list)
    for d in differences:
        groups[d.value > 0].append(d)
    clauses = [
        f"{'above' if above else 'below'} {names([_by(d, spec) for d in groups[above]])} ({groups[above][0].verdict})"
        for above in (True, False)
        if groups[above]
    ]
    subject = method_title(results.subject)
    return f"The {spec.title} of {subject}, {estimate_text(own, spec)}, is {' and '.join(clauses)}."


def _by(difference: Difference, spec: MetricSpec) -> str:
    digits = digits_for(spec, difference.low, difference.high)
    low, high = sorted((abs(difference.low), abs(difference.high)))
    size = format_number(abs(difference.value), digits)
    return f"{_possessive(difference.other)} by {size} {interval(low, high, digits)}"


def _tie_sentence(results: Results, metric: str, ties: Sequence[Difference]) -> str:
    """Return "The FID of A does not differ significantly from B's (difference -0.001 [-0.004, 0.002])."."""
    spec = metric_spec(metric)
    others = names([f"{_possessive(d.other)} (difference {difference_text(d)})" for d in ties])
    return f"The {spec.title} of {method_title(results.subject)} does not differ significantly from {others}."


def estimate_text(estimate: Estimate, spec: MetricSpec) -> str:
    """Return a value and its interval, where it has one."""
    digits = digits_for(spec, estimate.low, estimate.high)
    text = format_number(float(estimate.value), digits)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} {interval(estimate.low, estimate.high, digits)}"


def difference_text(difference: Difference) -> str:
    """Return a difference and its interval."""
    digits = digits_for(metric_spec(difference.metric), difference.low, difference.high)
    return f"{format_number(difference.value, digits)} {interval(difference.low, difference.high, digits)}"


def _possessive(method: str, *, start: bool = False) -> str:
    title = method_title(method)
    article = "" if method != SOURCE else "The " if start else "the "
    return f"{article}{title}{_POSSESSIVE}"


def _limits(results: Results) -> list[str]:
    """Return what the page cannot show whatever its numbers are."""
    limits = ["How the results look to people was not measured: no metric on this page is a judgement by people."]
    if COPY_PASTE in results.others:
        limits.append(
            "A high identity or CLIP score alone does not show a good edit: pasting the exemplar has the highest. "
            "Read it beside the copy-paste score, the seams and FID."
        )
    return limits
