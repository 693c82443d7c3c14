"""The report: one page that holds everything it shows, and the same bytes for the same results."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image as PillowImage

from pbe.errors import UserError
from pbe.evaluation.bench import Bench, Image
from pbe.evaluation.figures import guidance_figure, read_losses, training_figure
from pbe.evaluation.gallery import (
    GalleryRow,
    gallery_rows,
    read_case_scores,
    spread_cases,
    worst_cases,
    write_gallery_png,
)
from pbe.evaluation.results import results_folder, shown_scales
from pbe.method.exemplars import resize
from pbe.runtime.files import atomic_file
from pbe.settings import Evaluate

NUM_ROWS = 24
NUM_WORST = 8
_MAX_PICTURE_PX = 256
_METHODS = {
    "paint_by_example": "Paint by Example",
    "copy_paste": "copy and paste",
    "source": "untouched source",
}
_ACCURACIES = {
    "colour_accuracy": "main colour",
    "shape_accuracy": "shape",
    "pattern_accuracy": "pattern",
    "second_colour_accuracy": "second colour",
}
PAPER_TABLE: tuple[tuple[str, float, float, float | None], ...] = (
    ("Blended Diffusion, text", 7.52, 55.89, None),
    ("Blended Diffusion, image", 4.60, 67.14, 80.65),
    ("DCCF", 3.78, 71.49, 82.18),
    ("SD inpainting, text", 3.66, 73.20, 75.33),
    ("Paint by Example", 3.18, 77.80, 84.97),
)


@dataclass(frozen=True)
class Count:
    """A line of the data funnel; `share` is of the largest count in its table."""

    name: str
    number: int
    share: float


def write_report(
    path: Path,
    bench: Bench,
    out: Path,
    metrics: Mapping[str, Any],
    settings: Evaluate,
    *,
    losses: Path | None = None,
    counts: Sequence[Path] = (),
) -> None:
    """Write the page for an evaluation in `out`, with what else there is of training and data.

    `losses` is reports/losses.csv; `counts` are JSON files of counts by reason, such as reports/filter.json. Those that
    do not exist are left out of the page. Raises UserError when a file that exists cannot be read.
    """
    columns = _columns(out, settings, shown_scales(settings))
    whole = _columns(out, settings, sorted({1.0, settings.guidance_scale}))
    case_scores = read_case_scores(out / "case_scores.csv")
    chosen = spread_cases(bench.head(settings.sweep_cases), NUM_ROWS)
    worst = worst_cases(case_scores, NUM_WORST)
    scales = sorted(metrics["guidance_sweep"]["scales"].items(), key=lambda item: float(item[0]))
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            metrics=metrics,
            methods=_METHODS,
            accuracies={k: v for k, v in _ACCURACIES.items() if metrics["judge"].get(k) is not None},
            relative=relative_accuracies(metrics),
            paper=PAPER_TABLE,
            columns=list(columns),
            rows=gallery_rows(bench, chosen, columns),
            worst_columns=list(whole),
            worst=gallery_rows(bench, worst, whole),
            case_scores=case_scores,
            scales=scales,
            guidance=guidance_figure(dict(scales)),
            training=training_figure(read_losses(losses)) if losses and losses.is_file() else None,
            funnels={p.stem: read_counts(p) for p in counts if p.is_file()},
        )
    )
    with atomic_file(path) as part:
        part.write_text(page)


def _columns(out: Path, settings: Evaluate, scales: Sequence[float]) -> dict[str, Path]:
    return {f"guidance {scale:g}": results_folder(out, scale, settings) for scale in scales}


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": format_number, "picture": picture, "percent_box": percent_box}
    return environment


def write_gallery(path: Path, bench: Bench, out: Path, settings: Evaluate, num_rows: int = 8, scale: int = 3) -> None:
    """Write the contact sheet of the report's first rows."""
    columns = _columns(out, settings, shown_scales(settings))
    chosen = spread_cases(bench.head(settings.sweep_cases), num_rows)
    write_gallery_png(gallery_rows(bench, chosen, columns), list(columns), path, scale)


def relative_accuracies(metrics: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Each method's accuracies in percent of what the judge gets right on true crops."""
    judge = metrics["judge"]
    return {
        name: {
            key: None if not judge.get(key) or row.get(key) is None else 100 * row[key] / judge[key]
            for key in _ACCURACIES
        }
        for name, row in metrics["methods"].items()
    }


def read_counts(path: Path) -> list[Count]:
    """The counts in a JSON file that are not 0, nested names joined; raises UserError when it is not JSON."""
    try:
        flat = dict(_leaves(json.loads(path.read_text())))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    largest = max(flat.values(), default=1)
    counted = [(name.replace("_", " "), number) for name, number in flat.items() if number]
    return [Count(name, number, number / largest) for name, number in counted]


def _leaves(value: object, name: str = "") -> list[tuple[str, int]]:
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in _leaves(v, f"{name}: {k}" if name else str(k))]
    if isinstance(value, int) and not isinstance(value, bool) and not name.endswith("_bytes"):
        return [(name, value)]
    return []


def format_number(value: float | int | None, digits: int = 2) -> str:
    """A number for a table: whole numbers as they are, a dash where there is none."""
    if value is None:
        return "–"  # noqa: RUF001
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def picture(image: Image) -> str:
    """A picture as a data URI, no larger than a page needs."""
    height, width = image.shape[:2]
    scale = min(1.0, _MAX_PICTURE_PX / max(height, width))
    small = resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
    out = io.BytesIO()
    PillowImage.fromarray(small).save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def percent_box(row: GalleryRow) -> str:
    """CSS that lays the box to repaint over the source, at any size the page shows it."""
    height, width = row.source.shape[:2]
    x0, y0, x1, y1 = row.box
    return (
        f"left:{100 * x0 / width:.2f}%;top:{100 * y0 / height:.2f}%;"
        f"width:{100 * (x1 - x0) / width:.2f}%;height:{100 * (y1 - y0) / height:.2f}%"
    )
