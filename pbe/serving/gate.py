"""The gate: whether a newly evaluated model becomes the champion, decided from reports/metrics.json alone.

Copy-and-paste has a higher CLIP score than a good model (table 2 of the paper: 88.79 against 84.97), so the CLIP score
never decides alone: the FID of every champion, not only of the first, must be below that of copy-and-paste.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pbe.settings import Register

Metrics = Mapping[str, Any]

PAINTER, COPY_PASTE, SOURCE = "paint_by_example", "copy_paste", "source"
NEEDED = (
    (PAINTER, "unmasked_max_abs_diff"),
    (PAINTER, "fid"),
    (PAINTER, "clip_score"),
    (COPY_PASTE, "fid"),
    (SOURCE, "clip_score"),
)


@dataclass(frozen=True)
class Decision:
    """The gate's decision, and its reason in one sentence with the numbers."""

    promoted: bool
    reason: str


def decide(challenger: Metrics, champion: Metrics | None, settings: Register) -> Decision:
    """Decide whether the challenger replaces the champion.

    Both are the content of a reports/metrics.json; `champion` is None while there is no champion. A number that is
    missing, NaN or infinite is a reason to refuse, not an error.
    """
    fault = _missing_number(challenger, "the challenger") or _fault_alone(challenger, settings)
    if fault is None and champion is not None:
        fault = _missing_number(champion, "the champion") or _fault_against(champion, challenger, settings)
    if fault is not None:
        return Decision(False, f"Refused: {fault}.")
    return Decision(True, _reason_to_promote(challenger, champion))


def _missing_number(metrics: Metrics, whose: str) -> str | None:
    """Return a sentence on the first number that the gate needs and that is missing or not finite, or None."""
    for method, metric in NEEDED:
        value = _value(metrics, method, metric)
        if value is None:
            return f"{metric} of {method} is missing from the metrics of {whose}"
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{metric} of {method} is {value!r} in the metrics of {whose}, not a finite number"
    return None


def _fault_alone(metrics: Metrics, settings: Register) -> str | None:
    """Return the challenger's first fault that is independent of the champion, or None.

    It must leave unmasked pixels unchanged, resemble the exemplar more than the source does, and beat copy-and-paste.
    """
    unmasked_diff, fid, clip = (
        _value(metrics, PAINTER, name) for name in ("unmasked_max_abs_diff", "fid", "clip_score")
    )
    copy_paste_fid, source_clip = _value(metrics, COPY_PASTE, "fid"), _value(metrics, SOURCE, "clip_score")
    if unmasked_diff != 0:
        return f"pixels outside the mask change by up to {unmasked_diff:.4g}, and must not change at all"
    if not clip - source_clip > settings.min_clip_score_gain:
        return (
            f"CLIP score {clip:.4g} is not more than {settings.min_clip_score_gain:.4g} above the untouched source's "
            f"{source_clip:.4g}"
        )
    if not fid < copy_paste_fid:
        return f"FID {fid:.4g} is not below copy-and-paste's {copy_paste_fid:.4g}"
    return None


def _fault_against(champion: Metrics, challenger: Metrics, settings: Register) -> str | None:
    """Return how the challenger is worse than the champion by more than is allowed, or not comparable; or None."""
    for key in ("features", "num_cases"):
        if challenger.get(key) != champion.get(key):
            return f"not comparable: {key} is {challenger.get(key)!r}, and {champion.get(key)!r} for the champion"
    fid, champion_fid = _value(challenger, PAINTER, "fid"), _value(champion, PAINTER, "fid")
    if fid > champion_fid * (1 + settings.max_fid_increase):
        limit = f"{100 * settings.max_fid_increase:.4g} % above the champion's {champion_fid:.4g}"
        return f"FID {fid:.4g} is more than {limit}"
    clip, champion_clip = _value(challenger, PAINTER, "clip_score"), _value(champion, PAINTER, "clip_score")
    if clip < champion_clip - settings.max_clip_score_drop * abs(champion_clip):
        limit = f"{100 * settings.max_clip_score_drop:.4g} % below the champion's {champion_clip:.4g}"
        return f"CLIP score {clip:.4g} is more than {limit}"
    return None


def _reason_to_promote(challenger: Metrics, champion: Metrics | None) -> str:
    fid, clip = _value(challenger, PAINTER, "fid"), _value(challenger, PAINTER, "clip_score")
    if champion is None:
        copy_paste_fid, source_clip = _value(challenger, COPY_PASTE, "fid"), _value(challenger, SOURCE, "clip_score")
        return (
            f"Promoted, the first champion: FID {fid:.4g} is below copy-and-paste's {copy_paste_fid:.4g}, and CLIP "
            f"score {clip:.4g} above the untouched source's {source_clip:.4g}."
        )
    champion_fid, champion_clip = _value(champion, PAINTER, "fid"), _value(champion, PAINTER, "clip_score")
    return f"Promoted: FID {fid:.4g} after {champion_fid:.4g}, CLIP score {clip:.4g} after {champion_clip:.4g}."


def _value(metrics: Metrics, method: str, metric: str) -> Any:
    """Return the value in the file, or None when the metric or its method is missing."""
    methods = metrics.get("methods")
    row = methods.get(method) if isinstance(methods, Mapping) else None
    return row.get(metric) if isinstance(row, Mapping) else None
