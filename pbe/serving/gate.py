"""The gate: whether a newly evaluated model may become the champion, from reports/metrics.json alone.

Copy-and-paste scores a higher CLIP score than a good model (table 2 of the paper: 88.79 against 84.97), so CLIP score
never decides alone: FID has to be below copy-and-paste's as well, for every champion and not only for the first.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pbe.settings import Register

Metrics = Mapping[str, Any]

OURS, PASTED, UNTOUCHED = "paint_by_example", "copy_paste", "source"
NEEDED = (
    (OURS, "unmasked_max_abs_diff"),
    (OURS, "fid"),
    (OURS, "clip_score"),
    (PASTED, "fid"),
    (UNTOUCHED, "clip_score"),
)


@dataclass(frozen=True)
class Decision:
    """What the gate says, and why in one sentence with the numbers."""

    promoted: bool
    reason: str


def decide(challenger: Metrics, champion: Metrics | None, settings: Register) -> Decision:
    """Decide whether the challenger takes the champion's place.

    Both arguments are the contents of a reports/metrics.json; `champion` is None while there is none. Never raises for
    what the metrics hold: a number that is missing, NaN or infinite is a refusal.
    """
    refusal = _unusable(challenger, "the challenger") or _refused_alone(challenger, settings)
    if refusal is None and champion is not None:
        refusal = _unusable(champion, "the champion") or _refused_beside(challenger, champion, settings)
    if refusal is not None:
        return Decision(False, f"Refused: {refusal}.")
    return Decision(True, _praise(challenger, champion))


def _unusable(metrics: Metrics, whose: str) -> str | None:
    """The first number the gate needs and cannot use, in words."""
    for method, metric in NEEDED:
        value = _value(metrics, method, metric)
        if value is None:
            return f"{metric} of {method} is missing from the metrics of {whose}"
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{metric} of {method} is {value!r} in the metrics of {whose}, not a finite number"
    return None


def _refused_alone(metrics: Metrics, settings: Register) -> str | None:
    """What the challenger must do whoever the champion is: keep the rest, do something, and do more than paste."""
    drift, fid, clip = (_value(metrics, OURS, name) for name in ("unmasked_max_abs_diff", "fid", "clip_score"))
    pasted_fid, untouched_clip = _value(metrics, PASTED, "fid"), _value(metrics, UNTOUCHED, "clip_score")
    if drift != 0:
        return f"pixels outside the mask change by up to {drift:.4g}, and must not change at all"
    if not clip - untouched_clip > settings.min_clip_score_gain:
        return (
            f"CLIP score {clip:.4g} is not more than {settings.min_clip_score_gain:.4g} above the untouched source's "
            f"{untouched_clip:.4g}"
        )
    if not fid < pasted_fid:
        return f"FID {fid:.4g} is not below copy-and-paste's {pasted_fid:.4g}"
    return None


def _refused_beside(challenger: Metrics, champion: Metrics, settings: Register) -> str | None:
    """How much worse than the champion the challenger may be, measured on the same bench."""
    for key in ("features", "num_cases"):
        if challenger.get(key) != champion.get(key):
            return f"not comparable: {key} is {challenger.get(key)!r} here and {champion.get(key)!r} for the champion"
    fid, champion_fid = _value(challenger, OURS, "fid"), _value(champion, OURS, "fid")
    if fid > champion_fid * (1 + settings.max_fid_increase):
        limit = f"{100 * settings.max_fid_increase:.4g} % above the champion's {champion_fid:.4g}"
        return f"FID {fid:.4g} is more than {limit}"
    clip, champion_clip = _value(challenger, OURS, "clip_score"), _value(champion, OURS, "clip_score")
    if clip < champion_clip - settings.max_clip_score_drop * abs(champion_clip):
        limit = f"{100 * settings.max_clip_score_drop:.4g} % below the champion's {champion_clip:.4g}"
        return f"CLIP score {clip:.4g} is more than {limit}"
    return None


def _praise(challenger: Metrics, champion: Metrics | None) -> str:
    fid, clip = _value(challenger, OURS, "fid"), _value(challenger, OURS, "clip_score")
    if champion is None:
        pasted_fid, untouched_clip = _value(challenger, PASTED, "fid"), _value(challenger, UNTOUCHED, "clip_score")
        return (
            f"Promoted, the first champion: FID {fid:.4g} is below copy-and-paste's {pasted_fid:.4g}, and CLIP score "
            f"{clip:.4g} above the untouched source's {untouched_clip:.4g}."
        )
    champion_fid, champion_clip = _value(champion, OURS, "fid"), _value(champion, OURS, "clip_score")
    return f"Promoted: FID {fid:.4g} after {champion_fid:.4g}, CLIP score {clip:.4g} after {champion_clip:.4g}."


def _value(metrics: Metrics, method: str, metric: str) -> Any:
    """The number as it stands in the file, or None where it, its method or the table is absent."""
    methods = metrics.get("methods")
    row = methods.get(method) if isinstance(methods, Mapping) else None
    return row.get(metric) if isinstance(row, Mapping) else None
