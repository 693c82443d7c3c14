"""The subject's scores by class, by the mask's size and by the exemplar's resolution, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from pbe.evaluation.report.results import Results
from pbe.evaluation.scoring.intervals import Floats, Interval, bootstrap_counts, mean_interval, share_interval
from pbe.evaluation.scoring.metric_table import metric_spec

SLICED = ("identity", "clip_score", "class_agreement", "seam_visibility", "copy_paste_score")
MAX_CLASSES = 12
_MASK_EDGES: Mapping[float, str] = {0.05: "5 %", 0.1: "10 %", 0.2: "20 %", 0.4: "40 %"}
_EXEMPLAR_EDGES: Mapping[float, str] = {32: "32 px", 64: "64 px", 128: "128 px", 256: "256 px", 512: "512 px"}
_MIN_CASES = 5  # of an interval


@dataclass(frozen=True)
class SliceCell:
    """A metric in a slice: its value, and an interval where the slice has enough cases.

    `stands_out` is "better" or "worse" when the whole interval lies on that side of the value of all cases.
    """

    value: float | None
    interval: Interval | None
    stands_out: str = ""


@dataclass(frozen=True)
class Slice:
    """The cases that share a property."""

    name: str
    num_cases: int
    cells: tuple[SliceCell, ...]


@dataclass(frozen=True)
class SliceTable:
    """Slices by one property; `metrics` are the columns, and `left_out` counts slices that are not shown."""

    title: str
    metrics: tuple[str, ...]
    slices: tuple[Slice, ...]
    left_out: int = 0


def slice_tables(results: Results) -> list[SliceTable]:
    """Return the tables that the case scores allow; one with a single slice is left out."""
    scores = results.case_scores.filter(pl.col("method") == results.subject)
    metrics = tuple(m for m in SLICED if m in scores.columns and scores[m].is_not_nan().any())
    overall = {m: float(np.nanmean(scores[m].to_numpy())) for m in metrics}
    keys = {"class of the exemplar": _class_names(scores)}
    keys |= {"size of the mask": _bins(scores, "mask_frac", _MASK_EDGES, "of the picture")}
    keys |= {"resolution of the exemplar": _bins(scores, "exemplar_px", _EXEMPLAR_EDGES, "")}
    tables = [_table(title, scores, groups, metrics, overall, results) for title, groups in keys.items()]
    return [table for table in tables if len(table.slices) > 1]


Groups = Sequence[tuple[str, pl.Series]]  # name -> which rows


def _table(
    title: str,
    scores: pl.DataFrame,
    groups: Groups,
    metrics: tuple[str, ...],
    overall: Mapping[str, float],
    results: Results,
) -> SliceTable:
    shown, left_out = groups[:MAX_CLASSES], max(0, len(groups) - MAX_CLASSES)
    slices = []
    for name, rows in shown:
        part = scores.filter(rows)
        cells = tuple(_cell(part[m].to_numpy(), overall[m], m, results) for m in metrics)
        slices.append(Slice(name, len(part), cells))
    return SliceTable(title, metrics, tuple(slices), left_out)


def _cell(values: Floats, overall: float, metric: str, results: Results) -> SliceCell:
    known = values[~np.isnan(values)]
    value = float(known.mean()) if len(known) else None
    if value is None or len(known) < _MIN_CASES:
        return SliceCell(value, None)
    found = _interval(known, metric, results)
    if found.low <= overall <= found.high:
        return SliceCell(value, found)
    is_better = (value > overall) == metric_spec(metric).higher_is_better
    return SliceCell(value, found, "better" if is_better else "worse")


def _interval(known: Floats, metric: str, results: Results) -> Interval:
    if metric == "class_agreement":  # a share, for which a bootstrap has no width where all cases agree
        found = share_interval(known / 100, results.confidence)
    else:
        found = mean_interval(known, bootstrap_counts(len(known), results.draws, seed=0), results.confidence)
    assert found is not None
    return found


def _class_names(scores: pl.DataFrame) -> Groups:
    """Return the classes, the most frequent first; none where they are unknown."""
    if "label" not in scores.columns:
        return []
    labels = scores["label"].fill_null("")
    counted = labels.filter(labels != "").value_counts().sort(["count", "label"], descending=[True, False])
    return [(label, labels == label) for label in counted["label"]]


def _bins(scores: pl.DataFrame, column: str, edges: Mapping[float, str], of: str) -> Groups:
    """Return the bins between `edges` that have cases, in ascending order."""
    if column not in scores.columns:
        return []
    values, bounds, texts = scores[column], list(edges), list(edges.values())
    groups = []
    for i in range(len(bounds) + 1):
        low, high = bounds[i - 1] if i else -np.inf, bounds[i] if i < len(bounds) else np.inf
        rows = (values >= low) & (values < high)
        if not rows.any():
            continue
        name = f"below {texts[0]}" if i == 0 else f"{texts[-1]} and more" if i == len(bounds) else ""
        groups.append((f"{name or f'{texts[i - 1]} to {texts[i]}'} {of}".strip(), rows))
    return groups
