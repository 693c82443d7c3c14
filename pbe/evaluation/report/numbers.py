"""How the report writes numbers, intervals and lists of names."""

import math
from collections.abc import Sequence

from pbe.evaluation.scoring.metric_table import MetricSpec

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
_MAX_DIGITS = 6


def format_number(value: float | int | None, digits: int = 2) -> str:
    """Format a number: integers without decimals, None and NaN as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return DASH
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
    return text.replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """Format a difference with its sign."""
    return ("+" if value > 0 else "") + format_number(float(value), digits)


def interval(low: float, high: float, digits: int = 2) -> str:
    """Format an interval, such as [10.1, 14.4]."""
    return f"[{format_number(float(low), digits)}, {format_number(float(high), digits)}]"


def digits_for(spec: MetricSpec, low: float | None, high: float | None) -> int:
    """Return the decimals that show two significant digits of an interval's width, and at least the metric's own."""
    if low is None or high is None or not high > low:
        return spec.digits
    return max(spec.digits, min(_MAX_DIGITS, 1 - math.floor(math.log10(high - low))))


def names(items: Sequence[str]) -> str:
    """Join names: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)
