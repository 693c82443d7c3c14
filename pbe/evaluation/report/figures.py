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

_MAX_ATTRIBUTES = 3  # more lines in one figure would be hard to read


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
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 4.2), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        window = max(1, len(losses.loss) // 30)
        upper.plot(losses.steps, losses.loss, color=_SERIES[0], linewidth=0.8, alpha=0.3)
        upper.plot(losses.steps, smooth(losses.loss, window), color=_SERIES[0], linewidth=2)
        if len(losses.loss) and losses.loss.min() > 0:
            upper.set_yscale("log")
            upper.yaxis.set_major_formatter("{x:g}")
            upper.yaxis.set_minor_formatter(NullFormatter())
        upper.set_title(f"loss of each step, and its mean over {window} steps")
        lower.plot(losses.steps, losses.lr, color=_SERIES[1], linewidth=2)
        lower.set_title("learning rate")
        lower.set_xlabel("step")
        return _svg(figure)


def guidance_figure(scales: Mapping[str, Mapping[str, float | None]], accuracies: Mapping[str, str]) -> str:
    """Return a figure of the CLIP score, and of the accuracies of the first attributes, over the guidance scale.

    `accuracies` maps their keys, such as "shape_accuracy", to their names.
    """
    x = [float(scale) for scale in scales]
    shown = [key for key in accuracies if all(row.get(key) is not None for row in scales.values())][:_MAX_ATTRIBUTES]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 3.2), layout="constrained")
        axes = figure.subplots(1, 2 if shown else 1, squeeze=False)[0]
        _line(axes[0], x, [row["clip_score"] for row in scales.values()], _SERIES[0])
        axes[0].set_title("CLIP score")
        for colour, key in zip(_SERIES, shown, strict=False):
            _line(axes[1], x, [row[key] for row in scales.values()], colour, accuracies[key])
        if shown:
            axes[1].set_title("found in the repainted box, %")
            axes[1].set_ylim(0, 100)
            axes[1].legend(frameon=False, loc="best", ncols=len(shown), handlelength=1.2, columnspacing=1.2)
        for each in axes:
            each.set_xlabel("guidance scale")
            each.set_xticks(x)
            each.margins(x=0.06)
        return _svg(figure)


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
