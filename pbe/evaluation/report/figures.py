"""The report's figures: SVG that takes its colours and fonts from the page. The same numbers give the same bytes."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from pbe.errors import UserError
from pbe.evaluation.scoring.metric_table import ACCURACY, metric_spec

Floats = NDArray[np.float64]

# Placeholders that `_svg` replaces by the page's CSS variables, so that figures follow its light and dark themes.
_INK, _MUTED, _GRID = "#0a0b0c", "#6a6b6c", "#dadbdc"
_SERIES = ("#a10001", "#a10002", "#a10003", "#a10004")
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--rule"} | {
    colour: f"--series-{i + 1}" for i, colour in enumerate(_SERIES)
}
_STYLE: Any = {
    "svg.hashsalt": "paint-by-example",
    "svg.fonttype": "none",
    "font.size": 10.5,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.titlecolor": _INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}

_MAX_ATTRIBUTES, _MAX_PANELS = 3, 3  # more in one figure would be hard to read
_PANELS = ("identity", "clip_score", "copy_paste_score", "fid", "seam_visibility")
_MAX_POINTS = 1500  # of a curve: more than a screen shows


@dataclass(frozen=True)
class Losses:
    """The training curves, (N,) each."""

    steps: Floats
    loss: Floats
    lr: Floats


def read_losses(path: Path) -> Losses:
    """Read losses.csv (step, loss, lr, ...); raises UserError naming the column that is missing."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = {"step", "loss", "lr"} - set(reader.fieldnames or ())
        if missing:
            raise UserError(f"{path}: column {min(missing)} is missing")
        rows = [(float(row["step"]), float(row["loss"]), float(row["lr"])) for row in reader]
    columns = np.array(rows, np.float64).reshape(-1, 3)
    return Losses(columns[:, 0], columns[:, 1], columns[:, 2])


def smooth(values: Floats, window: int) -> Floats:
    """Return the mean over up to `window` values around each, fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - window // 2, 0)
    high = np.minimum(np.arange(len(values)) + (window + 1) // 2, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def training_figure(losses: Losses) -> str:
    """Return a figure of the loss, raw and smoothed, above the learning rate."""
    window = max(1, len(losses.loss) // 30)
    every = max(1, -(-len(losses.loss) // _MAX_POINTS))
    steps = losses.steps[::every]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 4.2), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot(steps, losses.loss[::every], color=_SERIES[0], linewidth=0.8, alpha=0.3)
        upper.plot(steps, smooth(losses.loss, window)[::every], color=_SERIES[0], linewidth=2)
        if len(losses.loss) and losses.loss.min() > 0:
            upper.set_yscale("log")
            upper.yaxis.set_major_formatter("{x:g}")
            upper.yaxis.set_minor_formatter(NullFormatter())
        which = "each step" if every == 1 else f"one step in {every}"
        upper.set_title(f"loss of {which}, and its mean over {window} steps")
        lower.plot(steps, losses.lr[::every], color=_SERIES[1], linewidth=2)
        lower.set_title("learning rate")
        lower.set_xlabel("step")
        return _svg(figure)


def guidance_figure(scales: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a figure of metrics over the guidance scale: a panel for each of the first three, one for accuracies."""
    x = [float(scale) for scale in scales]
    measured = [m for m in next(iter(scales.values())) if all(_number(row, m) for row in scales.values())]
    attributes = [m for m in measured if m.endswith(ACCURACY)][:_MAX_ATTRIBUTES]
    panels = [m for m in _PANELS if m in measured][: _MAX_PANELS - bool(attributes)]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 3.2), layout="constrained")
        axes = figure.subplots(1, max(1, len(panels) + bool(attributes)), squeeze=False)[0]
        for each, metric in zip(axes, panels, strict=False):
            _draw_metric(each, x, scales, metric)
        if attributes:
            _draw_attributes(axes[-1], x, scales, attributes)
        for each in axes:
            each.set_xlabel("guidance scale")
            each.set_xticks(x)
            each.margins(x=0.06)
        return _svg(figure)


def _number(row: Mapping[str, Any], metric: str) -> bool:
    return isinstance(row.get(metric), int | float)


def _draw_metric(axes: Axes, x: Sequence[float], scales: Mapping[str, Mapping[str, Any]], metric: str) -> None:
    """Draw a metric, with its interval where every scale has one."""
    rows, colour = list(scales.values()), _SERIES[0]
    _line(axes, x, [row[metric] for row in rows], colour)
    if all(_number(row, f"{metric}_low") and _number(row, f"{metric}_high") for row in rows):
        low, high = ([row[f"{metric}_{end}"] for row in rows] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.set_title(metric_spec(metric).title)


def _draw_attributes(
    axes: Axes, x: Sequence[float], scales: Mapping[str, Mapping[str, Any]], attributes: Sequence[str]
) -> None:
    for colour, metric in zip(_SERIES, attributes, strict=False):
        name = metric.removesuffix(ACCURACY).replace("_", " ")
        _line(axes, x, [row[metric] for row in scales.values()], colour, name)
    axes.set_title("found in the box, %")
    axes.set_ylim(0, 105)
    axes.legend(frameon=False, loc="best", fontsize=9, handlelength=1.2)


def _line(axes: Axes, x: Sequence[float], y: Sequence[float | None], colour: str, label: str | None = None) -> None:
    values = [np.nan if v is None else v for v in y]
    axes.plot(x, values, color=colour, linewidth=2, marker="o", markersize=5, label=label)


def _svg(figure: Figure) -> str:
    """Return the figure as an <svg> element that fills its container."""
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"(font:[^;\"]*?px )[^;\"]*", r"\1var(--sans)", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text
