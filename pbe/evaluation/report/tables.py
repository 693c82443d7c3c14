"""The page's tables of metrics and of differences: what each cell says, ready for the template."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pbe.evaluation.report.numbers import DASH, digits_for, format_number, interval, signed
from pbe.evaluation.report.results import Difference, Estimate, Results, Verdict, method_title
from pbe.evaluation.report.summary import headline_metrics
from pbe.evaluation.scoring.metric_table import ACCURACY, OFFICIAL, metric_spec

THEMES: Mapping[str, tuple[str, ...]] = {
    "Does the box show the exemplar?": ("identity", "foreground_identity", "clip_score", "class_agreement"),
    "Do the results look like photographs?": ("fid", "kid", "qs"),
    "Is it painted, and not pasted?": ("copy_paste_score", "seam_visibility"),
    "Is the background kept?": (
        "background_psnr", "background_ssim", "background_lpips", "ring_psnr", "ring_ssim", "ring_lpips",
        "unmasked_max_abs_diff",
    ),
    "How much do results vary with the seed?": ("diversity", "pixel_diversity"),
}  # fmt: skip
_MARKS: Mapping[Verdict, str] = {
    "better": "worse",
    "worse": "better",
    "tie": "tie",
}  # the other's view of the subject's


@dataclass(frozen=True)
class Column:
    """A metric as the head of a column."""

    metric: str
    title: str
    unit: str
    higher_is_better: bool
    digits: int


@dataclass(frozen=True)
class Cell:
    """A value and its interval as text; `mark` says how the method stands to the subject: better, worse, tie or ""."""

    value: str
    interval: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """A method's cells."""

    title: str
    is_subject: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """The methods' metrics of one theme."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class DifferenceBar:
    """A difference drawn over an axis: the ends, the value and zero are percentages of the axis' length."""

    title: str
    text: str
    verdict: Verdict
    low: float
    high: float
    value: float


@dataclass(frozen=True)
class DifferenceChart:
    """The subject's differences to all others in one metric."""

    column: Column
    zero: float
    bars: tuple[DifferenceBar, ...]


def metric_tables(results: Results, *, extra: Mapping[str, Mapping[str, float | None]] | None = None) -> list[Table]:
    """Return a table for each theme that was measured, without methods that have none of its metrics.

    Attributes' accuracies belong to the first theme.
    `extra` are rows of further settings of the subject, such as without guidance: title -> metric -> value.
    """
    tables = []
    for title, metrics in THEMES.items():
        wanted = [m for m in results.metrics if m.removesuffix(OFFICIAL) in metrics]
        if "identity" in metrics:
            wanted += [m for m in results.metrics if m.endswith(ACCURACY)]
        columns = tuple(_column(results, m) for m in sorted(wanted, key=lambda m: _position(m, metrics)))
        rows = [_row(results, name, columns) for name in results.methods]
        rows[1:1] = [_extra_row(name, values, columns) for name, values in (extra or {}).items()]
        measured = tuple(row for row in rows if any(cell.value != DASH for cell in row.cells))
        tables += [Table(title, columns, measured)] if columns else []
    return tables


def _position(metric: str, metrics: Sequence[str]) -> tuple[int, bool]:
    plain = metric.removesuffix(OFFICIAL)
    return (metrics.index(plain) if plain in metrics else len(metrics), plain != metric)


def _column(results: Results, metric: str) -> Column:
    """Return the head of a column, whose decimals show the subject's interval."""
    own, spec = results.estimate(results.subject, metric), metric_spec(metric)
    digits = digits_for(spec, own.low, own.high) if own else spec.digits
    return Column(metric, spec.title, spec.unit, spec.higher_is_better, digits)


def _row(results: Results, name: str, columns: Sequence[Column]) -> Row:
    cells = []
    for column in columns:
        difference = results.difference(name, column.metric)
        mark = _MARKS[difference.verdict] if difference else ""
        cells.append(_cell(results.estimate(name, column.metric), column.digits, mark))
    return Row(method_title(name), name == results.subject, tuple(cells))


def _extra_row(title: str, values: Mapping[str, float | None], columns: Sequence[Column]) -> Row:
    found = [values.get(column.metric) for column in columns]
    estimates = [None if value is None else Estimate(value) for value in found]
    return Row(title, False, tuple(_cell(e, c.digits, "") for e, c in zip(estimates, columns, strict=True)))


def _cell(estimate: Estimate | None, digits: int, mark: str) -> Cell:
    if estimate is None:
        return Cell(format_number(None))
    value = format_number(float(estimate.value), digits)
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high:
        return Cell(value, "", mark)
    return Cell(value, interval(estimate.low, estimate.high, digits), mark)


def difference_charts(results: Results) -> tuple[list[DifferenceChart], list[DifferenceChart]]:
    """Return the charts of the headline metrics and of the two on pasting, and those of all other metrics."""
    first = (*headline_metrics(results), "copy_paste_score", "seam_visibility")
    charts = {m: _chart(results, m) for m in results.metrics}
    drawn = {m: chart for m, chart in charts.items() if chart}
    return [drawn[m] for m in first if m in drawn], [drawn[m] for m in drawn if m not in first]


def _chart(results: Results, metric: str) -> DifferenceChart | None:
    found = [d for other in results.others if (d := results.difference(other, metric))]
    if all(d.low == d.high == 0 for d in found):
        return None
    low, high = min(0.0, *(d.low for d in found)), max(0.0, *(d.high for d in found))
    margin = 0.04 * (high - low)
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    spec = metric_spec(metric)
    digits = max(digits_for(spec, d.low, d.high) for d in found)
    column = Column(metric, spec.title, spec.unit, spec.higher_is_better, digits)
    return DifferenceChart(column, place(0.0), tuple(_bar(d, digits, place) for d in found))


def _bar(difference: Difference, digits: int, place: Callable[[float], float]) -> DifferenceBar:
    text = f"{signed(difference.value, digits)} {interval(difference.low, difference.high, digits)}"
    ends = place(difference.low), place(difference.high), place(difference.value)
    return DifferenceBar(method_title(difference.other), text, difference.verdict, *ends)
