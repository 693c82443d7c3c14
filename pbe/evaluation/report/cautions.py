"""What a reader has to know before the numbers of a page: few images, saturated metrics, cases that were left out."""

from collections.abc import Mapping
from typing import Any

from pbe.evaluation.metrics.quality import NUM_COMPONENTS
from pbe.evaluation.report.numbers import format_number, names
from pbe.evaluation.report.results import Results
from pbe.evaluation.report.summary import estimate_text
from pbe.evaluation.scoring.metric_table import ACCURACY, metric_spec

OFFICIAL_REAL_IMAGES = 40_670  # COCO test2017
_SATURATED = 0.99  # of a metric's range
_BOUNDED = ("qs", "class_agreement", "background_ssim")  # metrics between 0 and a largest value


def cautions(results: Results) -> list[str]:
    """Return a sentence or two for each reason to distrust a number; an empty list when there is none."""
    found = [
        _few_real_images(results),
        _few_components(results.summary),
        _saturated(results),
        _own_tower(results.summary),
        _left_out(results.summary),
        _reused_boxes(results.summary),
        _changed_outside(results),
    ]
    return [sentence for sentence in found if sentence]


def _few_real_images(results: Results) -> str:
    number = results.summary.get("num_real_images")
    if number is None or number >= OFFICIAL_REAL_IMAGES:
        return ""
    floor = results.floors.get("fid")
    least = f" Real images against real images give {estimate_text(floor, metric_spec('fid'))}." if floor else ""
    return (
        f"FID and QS compare with {format_number(number)} real images; the official evaluation has "
        f"{format_number(OFFICIAL_REAL_IMAGES)}. Fewer raise every method's FID.{least}"
    )


def _few_components(summary: Mapping[str, Any]) -> str:
    """Repeat what scoring says of a mixture with fewer components, or say it of one that came from a file."""
    number = summary.get("qs_components")
    if number is None or number >= NUM_COMPONENTS:
        return ""
    reason = summary.get("qs_too_few_images") or f"QS has {number} of its {NUM_COMPONENTS} components"
    return f"{reason}. It is not comparable with QS elsewhere."


def _saturated(results: Results) -> str:
    """Name the metrics in which every method, unchanged sources included, has nearly the largest value."""
    titles = [metric_spec(metric).title for metric in results.saturated]
    for metric in results.metrics:
        largest = 1.0 if metric == "background_ssim" else 100.0
        values = [found.value for name in results.methods if (found := results.estimate(name, metric))]
        bounded = metric in _BOUNDED or metric.endswith(ACCURACY)
        if bounded and len(values) > 1 and min(values) >= _SATURATED * largest and metric not in results.saturated:
            titles.append(metric_spec(metric).title)
    if not titles:
        return ""
    return f"{_capital(names(titles))} cannot tell methods apart here: every method is at the end of the scale."


def _own_tower(summary: Mapping[str, Any]) -> str:
    if "own CLIP tower" not in str(summary.get("features", "")):
        return ""
    return (
        "FID, QS and CLIP score use the painter's own CLIP tower, which the painter was conditioned on in training. "
        "That favours the painter, and the numbers are not comparable with those of CLIP ViT-B/32."
    )


def _left_out(summary: Mapping[str, Any]) -> str:
    """Say how many cases of the bench were skipped, and how many are used although they have a fault."""
    bench = summary.get("bench", {})
    skipped, accepted = bench.get("skipped", {}), bench.get("accepted", {})
    parts = []
    if skipped:
        parts.append(f"{sum(skipped.values())} of {bench['cases']} cases were left out: {_counted(skipped)}.")
    if accepted:
        parts.append(f"{sum(accepted.values())} cases are used although they have a fault: {_counted(accepted)}.")
    return " ".join(parts)


def _counted(faults: Mapping[str, int]) -> str:
    return names([f"{number} {fault.replace('_', ' ')}" for fault, number in faults.items()])


def _reused_boxes(summary: Mapping[str, Any]) -> str:
    reused = summary.get("num_reused_boxes", 0)
    if not reused:
        return ""
    return (
        f"{reused} of the {summary['num_cases']} cases repaint the box of an earlier case with another exemplar. "
        "The intervals take the cases for independent, so they are too narrow."
    )


def _changed_outside(results: Results) -> str:
    changed = results.estimate(results.subject, "unmasked_max_abs_diff")
    if changed is None or changed.value == 0:
        return ""
    return f"Pixels outside the mask differ from the source by up to {format_number(int(changed.value))} grey levels."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
