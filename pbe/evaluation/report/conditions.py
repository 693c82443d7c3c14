"""What was measured with what: the conditions in evaluation.json as lines of the page."""

import re
from collections.abc import Mapping
from typing import Any

from pbe.evaluation.report.results import Results

_DIGEST = re.compile(r"[0-9a-f]{24,128}")
_SHOWN_DIGITS = 12
MAX_ROWS = 60


def condition_rows(results: Results) -> list[tuple[str, str, str]]:
    """Return (name, text, whole text) for each condition: digests are shortened in the text."""
    rows = [
        (name.replace("_", " "), _text(value), str(value))
        for name, value in _leaves(results.conditions)
        if value is not None and value != ""
    ]
    return rows[:MAX_ROWS]


def _leaves(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        return [(name, value)]
    return [leaf for key, below in value.items() for leaf in _leaves(below, f"{name}: {key}" if name else str(key))]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return _DIGEST.sub(lambda digest: digest[0][:_SHOWN_DIGITS], str(value))
