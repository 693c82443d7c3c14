"""The figure of the tables: the ablation and the guidance scales, each metric in its own panel, with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pbe.demo.tables.markdown import spec
from pbe.demo.tables.scores import FID
from pbe.runtime.files import atomic_file

METRICS = (FID, "clip_score", "identity", "copy_paste_score")
_COLOUR, _PAPER_COLOUR = "#1f4e79", "#b0612a"
_PANEL_INCHES = (3.2, 2.6)


def write_figure(path: Path, content: Mapping[str, Any]) -> None:
    """Write a PNG: above the rows of the ablation, with the paper's values where it has them; below the scales."""
    metrics = [metric for metric in METRICS if metric in content["ablation"][0]["metrics"]]
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * len(metrics), 2 * height), layout="constrained", dpi=110)
    axes = figure.subplots(2, len(metrics), squeeze=False)
    for above, below, metric in zip(axes[0], axes[1], metrics, strict=True):
        _draw_ablation(above, content["ablation"], metric)
        _draw_guidance(below, content["guidance"], metric)
    with atomic_file(path) as part:
        figure.savefig(part, metadata={"Software": None})  # otherwise the bytes change with matplotlib's version


def _draw_ablation(axes: Axes, rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    _draw_estimates(axes, list(range(len(rows))), rows, metric, line=False)
    axes.set_xticks(range(len(rows)), [row["title"] for row in rows], rotation=30, ha="right", fontsize=8)
    known = [(i, row["paper"][metric]) for i, row in enumerate(rows) if row["paper"].get(metric) is not None]
    if known:
        paper = axes.twinx()
        paper.plot(*zip(*known, strict=True), "x--", color=_PAPER_COLOUR, linewidth=0.8)
        paper.tick_params(axis="y", labelsize=7, colors=_PAPER_COLOUR)
        paper.set_ylabel("paper (COCOEE)", fontsize=7, color=_PAPER_COLOUR)
    axes.set_title(_title(metric), fontsize=9)


def _draw_guidance(axes: Axes, rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    _draw_estimates(axes, [row["guidance"] for row in rows], rows, metric, line=True)
    axes.set_xlabel("guidance scale", fontsize=8)
    axes.set_title(_title(metric), fontsize=9)


def _draw_estimates(
    axes: Axes, places: Sequence[float], rows: Sequence[Mapping[str, Any]], metric: str, *, line: bool
) -> None:
    estimates = [row["metrics"][metric] for row in rows]
    values = [e["value"] for e in estimates]
    below = [max(0.0, e["value"] - e["low"]) for e in estimates]
    above = [max(0.0, e["high"] - e["value"]) for e in estimates]
    axes.errorbar(places, values, (below, above), fmt="o-" if line else "o", color=_COLOUR, capsize=3, markersize=4)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def _title(metric: str) -> str:
    return f"{spec(metric).title} ({'higher' if spec(metric).higher_is_better else 'lower'} is better)"
