"""The report: one page without external files. The same results give the same bytes."""

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
from pbe.evaluation.bench import Bench
from pbe.evaluation.case_scores import Method, read_case_scores
from pbe.evaluation.paint_plan import COPY_PASTE, METHOD, SOURCE, UNGUIDED_SCALE
from pbe.evaluation.report.figures import guidance_figure, read_losses, training_figure
from pbe.evaluation.report.gallery import GalleryRow, gallery_rows, spread_cases, worst_cases, write_gallery_png
from pbe.method.exemplars import resize
from pbe.runtime.files import write_text
from pbe.types import Image

NUM_ROWS = 24
NUM_WORST = 8
_MAX_IMAGE_PX = 256
_METHODS = {METHOD: "Paint by Example", COPY_PASTE: "copy and paste", SOURCE: "unchanged source"}
PAPER_RESULTS: tuple[tuple[str, float, float, float | None], ...] = (
    ("Blended Diffusion, text", 7.52, 55.89, None),
    ("Blended Diffusion, image", 4.60, 67.14, 80.65),
    ("DCCF", 3.78, 71.49, 82.18),
    ("SD inpainting, text", 3.66, 73.20, 75.33),
    ("Paint by Example", 3.18, 77.80, 84.97),
)  # table 1: FID, QS, CLIP score


@dataclass(frozen=True)
class Count:
    """A line of a funnel of counts; `share` is relative to the funnel's largest count."""

    name: str
    number: int
    share: float


def write_report(
    path: Path,
    bench: Bench,
    methods: Sequence[Method],
    out: Path,
    metrics: Mapping[str, Any],
    *,
    losses: Path | None = None,
    counts: Sequence[Path] = (),
) -> None:
    """Write the page of an evaluation: of the painter beside baselines, or of any folders of results.

    `methods` are what was scored; the page shows some of their results. `out` is the folder with the scores
    of every case, `metrics` the content of metrics.json, `losses` reports/losses.csv, and `counts` are JSON files
    of counts by reason, such as reports/filter.json. Files that do not exist are left out. Raises UserError when one
    that exists cannot be read.
    """
    scale = metrics["guidance_scale"]
    named = {method.name: method for method in methods}
    columns = {f"guidance {s}": named[_scale_name(s, scale)] for s in metrics["guidance_sweep"]["scales"]}
    complete = {f"guidance {s:g}": named[_scale_name(s, scale)] for s in sorted({UNGUIDED_SCALE, scale})}
    case_scores = read_case_scores(out / "case_scores.csv")
    chosen = spread_cases(bench.head(metrics["guidance_sweep"]["num_cases"]), NUM_ROWS)
    worst = worst_cases(case_scores, NUM_WORST)
    scales = sorted(metrics["guidance_sweep"]["scales"].items(), key=lambda item: float(item[0]))
    accuracies = accuracy_names(metrics)
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            metrics=metrics,
            methods=_METHODS,
            accuracies=accuracies,
            relative=relative_accuracies(metrics),
            paper=PAPER_RESULTS,
            columns=list(columns),
            rows=gallery_rows(bench, chosen, columns),
            worst_columns=list(complete),
            worst=gallery_rows(bench, worst, complete),
            case_scores=case_scores,
            scales=scales,
            guidance=guidance_figure(dict(scales), accuracies),
            training=training_figure(read_losses(losses)) if losses and losses.is_file() else None,
            funnels={p.stem: read_counts(p) for p in counts if p.is_file()},
        )
    )
    write_text(path, page)


def write_gallery(path: Path, bench: Bench, methods: Sequence[Method], num_rows: int = 8, scale: int = 3) -> None:
    """Write the results of the first cases as one image."""
    num_cases = min(method.num_cases or len(bench) for method in methods)
    chosen = spread_cases(bench.head(num_cases), num_rows)
    columns = {method.name: method for method in methods}
    write_gallery_png(gallery_rows(bench, chosen, columns), list(columns), path, scale)


def _scale_name(scale: float | str, evaluated: float) -> str:
    return METHOD if float(scale) == evaluated else f"{METHOD}_guidance_{float(scale):g}"


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": format_number, "data_uri": data_uri, "percent_box": percent_box}
    return environment


def accuracy_names(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return key -> name of the accuracies that the classifier has on true crops, in the order of metrics.json."""
    known = [key for key, value in metrics["classifier_accuracy"].items() if value is not None]
    return {key: key.removesuffix("_accuracy").replace("_", " ") for key in known}


def relative_accuracies(metrics: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return each method's accuracies as percentages of the classifier's accuracies on true crops."""
    best = metrics["classifier_accuracy"]
    return {
        name: {
            key: None if not best[key] or row.get(key) is None else 100 * row[key] / best[key]
            for key in accuracy_names(metrics)
        }
        for name, row in metrics["methods"].items()
    }


def read_counts(path: Path) -> list[Count]:
    """Return the counts in a JSON file that are not 0, with nested names joined; raises UserError for invalid JSON."""
    try:
        flat = dict(_leaves(json.loads(path.read_text())))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
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
    """Format a number: integers without decimals, None as a dash."""
    if value is None:
        return "–"  # noqa: RUF001
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def data_uri(image: Image) -> str:
    """Return an image as a data URI of a PNG whose longer side has at most 256 px."""
    height, width = image.shape[:2]
    scale = min(1.0, _MAX_IMAGE_PX / max(height, width))
    small = resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
    out = io.BytesIO()
    PillowImage.fromarray(small).save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def percent_box(row: GalleryRow) -> str:
    """Return CSS that places the box to repaint over the source, whatever the size at which the page shows it."""
    height, width = row.source.shape[:2]
    x0, y0, x1, y1 = row.box
    return (
        f"left:{100 * x0 / width:.2f}%;top:{100 * y0 / height:.2f}%;"
        f"width:{100 * (x1 - x0) / width:.2f}%;height:{100 * (y1 - y0) / height:.2f}%"
    )
