"""The tables as Markdown, from the content of tables.json: the same content gives the same text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pbe.demo.tables.content import METRICS
from pbe.demo.tables.scores import ATTRIBUTES_CORRECT, COPIED_WHEN_RIGHT, FID
from pbe.evaluation.scoring.metric_table import METRICS as SPECS
from pbe.evaluation.scoring.metric_table import MetricSpec

Content = Mapping[str, Any]
_ATTRIBUTES = MetricSpec("attributes right", True, 1, "%")
_DIGITS = {FID: 4}  # of the demo world's small distances
_MASKS_TITLE = {"box": "box masks", "irregular": "irregular masks"}


def spec(metric: str) -> MetricSpec:
    """Return a metric's title, digits and direction."""
    if metric == COPIED_WHEN_RIGHT:
        return SPECS["copy_paste_score"]
    return _ATTRIBUTES if metric == ATTRIBUTES_CORRECT else SPECS[metric]


def markdown(content: Content) -> str:
    """Return all tables, each below a heading of level 3."""
    parts = [
        ("Ablation", _ablation(content["ablation"])),
        ("Guidance", _plain(content["guidance"], "scale")),
        ("Language against image", _compared(content["conditions"], "condition")),
        ("Box against arbitrary masks", _masks(content["masks"])),
        ("Directions", _directions(content["directions"])),
    ]
    return "\n\n".join(f"### {title}\n\n{table}" for title, table in parts) + "\n"


def _ablation(rows: Sequence[Content]) -> str:
    metrics = _metrics(rows)
    table = [["row", *(_head(m) for m in metrics), "paper: FID", "paper: CLIP score"]]
    for row in rows:
        cells = [_cell(row, metric) for metric in metrics]
        table.append([row["title"], *cells, _paper(row, "fid"), _paper(row, "clip_score")])
    return f"{_table(table)}\n\nChange from the row above:\n\n{_changes(rows, 'row', metrics)}"


def _plain(rows: Sequence[Content], what: str) -> str:
    metrics = _metrics(rows)
    return _table([[what, *map(_head, metrics)], *([r["title"], *(_cell(r, m) for m in metrics)] for r in rows)])


def _compared(rows: Sequence[Content], what: str) -> str:
    metrics = _metrics(rows)
    table = [[what, *map(_head, metrics), "paper: FID", "paper: CLIP score"]]
    for row in rows:
        table.append([row["title"], *(_cell(row, m) for m in metrics), _paper(row, "fid"), _paper(row, "clip_score")])
    return f"{_table(table)}\n\nFrom each text to the image:\n\n{_changes(rows, what, metrics)}"


def _masks(rows: Sequence[Content]) -> str:
    metrics = _metrics(rows)
    table = [["trained on", "painted into", *map(_head, metrics)]]
    table += [[r["title"], _MASKS_TITLE[r["bench"]], *(_cell(r, m) for m in metrics)] for r in rows]
    named = [{**row, "title": f"painted into {_MASKS_TITLE[row['bench']]}"} for row in rows]
    return (
        f"{_table(table)}\n\nFrom training on boxes to training on arbitrary masks:\n\n{_changes(named, '', metrics)}"
    )


def _directions(rows: Sequence[Content]) -> str:
    table = [["expected", "change", "found"]]
    table += [[row["claim"], _change(row["change"], row["metric"]), row["found"]] for row in rows]
    return _table(table)


def _changes(rows: Sequence[Content], what: str, metrics: Sequence[str]) -> str:
    changed = [row for row in rows if "change" in row]
    return _table(
        [[what, *map(_head, metrics)], *([r["title"], *(_change(r["change"][m], m) for m in metrics)] for r in changed)]
    )


def _metrics(rows: Sequence[Content]) -> list[str]:
    return [metric for metric in (FID, *METRICS) if metric in rows[0]["metrics"]]


def _head(metric: str) -> str:
    return f"{spec(metric).title} {'↑' if spec(metric).higher_is_better else '↓'}"


def _cell(row: Content, metric: str) -> str:
    value, digits = row["metrics"][metric], _DIGITS.get(metric, spec(metric).digits)
    return f"{value['value']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def _change(change: Content, metric: str) -> str:
    digits = _DIGITS.get(metric, spec(metric).digits)
    text = f"{change['value']:+.{digits}f} [{change['low']:+.{digits}f}, {change['high']:+.{digits}f}]"
    return f"**{text}**" if change["low"] > 0 or change["high"] < 0 else text


def _paper(row: Content, metric: str) -> str:
    value = row.get("paper", {}).get(metric)
    return "" if value is None else f"{value:.2f}"


def _table(rows: Iterable[Sequence[str]]) -> str:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    rule = "|" + "---|" * (head.count(" | ") + 1)
    return "\n".join([head, rule, *body])
