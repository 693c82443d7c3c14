"""The report: one page without external files, below 5 MB. The same results give the same bytes.

The page's size does not depend on the size of the pictures, the number of cases or of methods: pictures are encoded
until they fit (`pictures`), then rows are left out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.report.cases import Cases, page_cases
from pbe.evaluation.report.cautions import cautions
from pbe.evaluation.report.conditions import condition_rows
from pbe.evaluation.report.csv_tables import write_csv_tables
from pbe.evaluation.report.data_counts import read_funnels
from pbe.evaluation.report.figures import guidance_figure, read_losses, training_figure
from pbe.evaluation.report.gallery import gallery_rows, spread_cases, write_gallery_png
from pbe.evaluation.report.numbers import format_number, names
from pbe.evaluation.report.pictures import Picture, encode_pictures
from pbe.evaluation.report.results import Results, is_shown, method_title, order_metrics, read_results
from pbe.evaluation.report.slices import slice_tables
from pbe.evaluation.report.summary import summarise
from pbe.evaluation.report.sweep import sweep_rows
from pbe.evaluation.report.tables import difference_charts, metric_tables
from pbe.evaluation.scoring.case_scores import Method
from pbe.evaluation.scoring.metric_table import ACCURACY, metric_spec
from pbe.runtime.files import write_text

MAX_BYTES = 4_800_000
PAPER_RESULTS: tuple[tuple[str, float, float, float | None], ...] = (
    ("Blended Diffusion, text", 7.52, 55.89, None),
    ("Blended Diffusion, image", 4.60, 67.14, 80.65),
    ("DCCF", 3.78, 71.49, 82.18),
    ("SD inpainting, text", 3.66, 73.20, 75.33),
    ("Paint by Example", 3.18, 77.80, 84.97),
)  # table 1: FID, QS, CLIP score
_NUM_CASES = ((12, 6), (8, 4), (4, 2), (1, 1), (0, 0))  # sliders, and failures by each metric: the first that fit
_MAX_SHEET_COLUMNS, _SHEET_PX = 8, 256


def write_report(
    path: Path,
    bench: Bench,
    methods: Sequence[Method],
    out: Path,
    metrics: Mapping[str, Any],
    *,
    losses: Path | None = None,
    counts: Sequence[Path] = (),
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write the page of an evaluation, of the painter beside baselines or of any folders of results; and CSVs in `out`.

    `methods` are what was scored; the page shows some of their results. `out` is the folder with the files that scoring
    writes (see `results`), `metrics` the content of metrics.json, `losses` reports/losses.csv, and `counts` are JSON
    files of counts by reason, such as reports/filter.json. `losses` and `counts` that do not exist are left out. Raises
    UserError when a file cannot be read, and ValueError when even the page without pictures exceeds `max_bytes`.
    """
    results = read_results(metrics, out)
    write_csv_tables(out, results, sweep_rows(results))
    content = _content(results, losses, counts)
    cases = page_cases(bench, methods, results, *_NUM_CASES[0])
    for number in _NUM_CASES:
        page = _fitting_page(content, cases.head(*number), max_bytes)
        if page is not None:
            write_text(path, page)
            return
    raise ValueError(f"{path}: the page does not fit into {max_bytes} bytes, even without pictures")


def write_gallery(path: Path, bench: Bench, methods: Sequence[Method], num_rows: int = 8) -> None:
    """Write the results of some cases as one image of at most four megapixels."""
    shown = methods[:_MAX_SHEET_COLUMNS]
    num_cases = min(len(bench) if method.num_cases is None else method.num_cases for method in shown)
    chosen = spread_cases(bench.head(num_cases), num_rows)
    rows = gallery_rows(bench, chosen, shown, _SHEET_PX)
    write_gallery_png(rows, [method_title(method.name) for method in shown], path)


def _fitting_page(content: Mapping[str, Any], cases: Cases, max_bytes: int) -> str | None:
    """Return the page with pictures in the highest quality that fits; None when none does."""
    pictures = cases.pictures()
    bare = _render(content, cases, dict.fromkeys(pictures, ""))
    uris = encode_pictures(pictures, max_bytes - len(bare.encode()))
    return None if uris is None else _render(content, cases, dict(zip(pictures, uris, strict=True)))


def _render(content: Mapping[str, Any], cases: Cases, uris: Mapping[Picture, str]) -> str:
    return _environment().get_template("page.html.j2").render(content, cases=cases, uris=uris)


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": format_number, "spec": metric_spec, "title_of": method_title}
    return environment


def _content(results: Results, losses: Path | None, counts: Sequence[Path]) -> dict[str, Any]:
    """Return everything that the template shows, apart from the cases."""
    summary = results.summary
    first, further = difference_charts(results)
    sweep = sweep_rows(results)
    return {
        "results": results,
        "title": page_title(results),
        "subject": method_title(results.subject),
        "others": names([method_title(name) for name in results.others]),
        "summary": summarise(results),
        "cautions": cautions(results),
        "tables": metric_tables(results, extra=_unguided(summary)),
        "charts": first,
        "further_charts": further,
        "slices": slice_tables(results),
        "scales": list(sweep.items()),
        "sweep_metrics": order_metrics({m for row in sweep.values() for m in row if is_shown(m)}),
        "guidance": guidance_figure(sweep) if len(sweep) > 1 else None,
        "training": training_figure(read_losses(losses)) if losses and losses.is_file() else None,
        "funnels": read_funnels(counts),
        "conditions": condition_rows(results),
        "accuracies": classifier_accuracies(summary),
        "paper": PAPER_RESULTS,
    }


def page_title(results: Results) -> str:
    """Return the page's title: the painter's name, or the folders of results."""
    if results.is_painter:
        return method_title(results.subject)
    tools = [name for name in results.methods if method_title(name) == name]
    return names(tools[:3]) or method_title(results.subject)


def _unguided(summary: Mapping[str, Any]) -> dict[str, Mapping[str, float | None]]:
    """Return the row without guidance, where the painter was evaluated with guidance."""
    if "unguided" not in summary or summary.get("guidance_scale") == 1:
        return {}
    return {"Paint by Example, guidance 1": summary["unguided"]}


def classifier_accuracies(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return attribute -> the classifier's accuracy on true crops in percent, where it is known."""
    found = summary.get("classifier_accuracy") or {}
    return {key.removesuffix(ACCURACY).replace("_", " "): value for key, value in found.items() if value is not None}
