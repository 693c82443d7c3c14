"""The page and the figures of `detector.py`, all numbers from its JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from detector_data import Example, Pasting
from detector_metrics import centre_is_in
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pbe.dataset.images import read_image
from pbe.runtime.files import atomic_file, write_text
from pbe.types import Box

TEMPLATE = "detector.md.j2"
PICTURES, FOUND, BARS = "detector_pictures.jpg", "detector_found.jpg", "detector.png"
_COLOURS = {"painted": "#d95f02"}


def write_page(path: Path, report: Mapping[str, Any]) -> None:
    """Write the page from the template beside this module."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "lead": lead, "verdict": verdict}
    page = environment.get_template(TEMPLATE).render(**report, pictures=PICTURES, found=FOUND, bars=BARS)
    write_text(path, page.rstrip() + "\n")


def percent(interval: Mapping[str, float]) -> str:
    """Return `52 (45 to 60)` for shares."""
    return f"{100 * interval['value']:.0f} ({100 * interval['low']:.0f} to {100 * interval['high']:.0f})"


def lead(interval: Mapping[str, float]) -> str:
    """Return `+7 (-1 to +12)`, in points."""
    return f"{100 * interval['value']:+.0f} ({100 * interval['low']:+.0f} to {100 * interval['high']:+.0f})"


def verdict(interval: Mapping[str, float]) -> str:
    """Return what the interval of a difference allows to say of the painted pictures."""
    if interval["low"] > 0:
        return "finds more"
    return "finds fewer" if interval["high"] < 0 else "does not differ significantly"


def write_figures(
    out: Path,
    report: Mapping[str, Any],
    pastings: Sequence[Pasting],
    painted: Path,
    pasted: Path,
    examples: Sequence[Mapping[str, Any]],
) -> None:
    """Write what was painted, what was found in six held-back pictures, and the bars with their intervals."""
    _save(_pictures(_one_of_each(pastings), painted, pasted), out / PICTURES)
    _save(_found(examples), out / FOUND)
    _save(_bars(report), out / BARS)


def _one_of_each(pastings: Sequence[Pasting]) -> list[Pasting]:
    """Return the first picture of each class, without choosing."""
    return list({each.frame.label: each for each in reversed(pastings)}.values())[::-1]


def _pictures(pastings: Sequence[Pasting], painted: Path, pasted: Path) -> plt.Figure:
    figure, axes = plt.subplots(4, len(pastings), figsize=(1.7 * len(pastings), 6.9))
    titles = ("real picture", "another one", "painted", "pasted")
    for column, each in enumerate(pastings):
        shown: list[tuple[Path, Box]] = [
            (each.frame.image, each.frame.box),
            (each.source.image, each.box),
            (painted / "images" / f"{each.name}.png", each.box),
            (pasted / f"{each.name}.png", each.box),
        ]
        for row, (path, box) in enumerate(shown):
            _show(axes[row, column], path)
            if row < 2:
                _frame(axes[row, column], box, "white")
        axes[0, column].set_title(each.frame.label, fontsize=9)
    for row, title in enumerate(titles):
        axes[row, 0].set_ylabel(title, fontsize=9)
    return figure


def _found(examples: Sequence[Mapping[str, Any]]) -> plt.Figure:
    figure, axes = plt.subplots(2, len(examples), figsize=(1.7 * len(examples), 4.2))
    for column, entry in enumerate(examples):
        example: Example = entry["example"]
        for axis, arm in ((axes[0, column], "longer"), (axes[1, column], "painted")):
            _show(axis, example.image)
            height, width = read_image(example.image).shape[:2]
            best = entry[arm]
            x0, y0, x1, y1 = best["box"]
            box = (round(x0 * width), round(y0 * height), round(x1 * width), round(y1 * height))
            is_right = best["label"] == example.label and centre_is_in(box, example.box)
            _frame(axis, example.box, "white", "--")
            _frame(axis, box, "lime" if is_right else "red")
            axis.set_xlabel(f"{best['label']} {100 * best['score']:.0f} %", fontsize=8)
        axes[0, column].set_title(example.label, fontsize=9)
    axes[0, 0].set_ylabel("real pictures", fontsize=9)
    axes[1, 0].set_ylabel("and painted ones", fontsize=9)
    return figure


def _bars(report: Mapping[str, Any]) -> plt.Figure:
    titles = {"unseen": "clips that the painter never saw", "held_back": "all held-back clips"}
    figure, axes = plt.subplots(1, 2, figsize=(10, 2.8), sharey=True)
    names = list(report["arms"])
    for axis, (group, title) in zip(axes, titles.items(), strict=True):
        for place, name in enumerate(names):
            value = report["results"][group][name]["found"]
            axis.barh(place, 100 * value["value"], color=_COLOURS.get(name, "#7f8fa6"))
            axis.plot([100 * value["low"], 100 * value["high"]], [place, place], color="black", linewidth=1.2)
        axis.set(xlim=(0, 100), xlabel="found, %", title=title)
        axis.title.set_fontsize(10)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    return figure


def _show(axis: Axes, path: Path) -> None:
    axis.imshow(read_image(path))
    axis.set(xticks=[], yticks=[])


def _frame(axis: Axes, box: Box, colour: str, style: str = "-") -> None:
    x0, y0, x1, y1 = box
    shape = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linestyle=style, linewidth=1.2)
    axis.add_patch(shape)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    with atomic_file(path) as part:
        options = {"quality": 85} if path.suffix == ".jpg" else {}
        figure.savefig(part, dpi=100, pil_kwargs=options, metadata=None if options else {"Software": None})
    plt.close(figure)
