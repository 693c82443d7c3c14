"""The page's single cases: before/after sliders, the worst cases by each metric, and strips over guidance scales."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.names import METHOD, SOURCE
from pbe.evaluation.report.gallery import GalleryRow, gallery_rows, spread_cases, worst_cases
from pbe.evaluation.report.numbers import format_number
from pbe.evaluation.report.pictures import MAX_PIXEL_RATIO, Picture, reduced
from pbe.evaluation.report.results import Results, method_title
from pbe.evaluation.scoring.case_scores import Method
from pbe.evaluation.scoring.metric_table import metric_spec

MAX_OTHERS = 7  # methods beside the subject below a slider
MAX_SCALES = 6
NUM_STRIPS = 4
FAILURES = ("identity", "clip_score", "seam_visibility", "copy_paste_score", "background_lpips", "background_psnr")
_SLIDER_PX, _TILE_PX, _STRIP_PX = 380, 176, 150  # widths at which the page shows pictures
_IN_CAPTION = ("identity", "clip_score", "copy_paste_score", "seam_visibility")


@dataclass(frozen=True)
class Slider:
    """A case whose source is drawn over its result, up to a movable line.

    The line starts at `start` percent of the width, which is the middle of the box; `box` is CSS that places the box.
    """

    case_id: int
    caption: str
    scores: str
    box: str
    start: int
    source: Picture
    exemplar: Picture
    result: Picture
    others: tuple[tuple[str, Picture], ...]

    def pictures(self) -> Iterator[Picture]:
        yield from (self.source, self.exemplar, self.result, *(picture for _, picture in self.others))


@dataclass(frozen=True)
class Strip:
    """A case as pictures in a row; `box` is CSS that places the box to repaint over the source."""

    case_id: int
    caption: str
    box: str
    source: Picture
    exemplar: Picture
    results: tuple[Picture | None, ...]

    def pictures(self) -> Iterator[Picture]:
        yield from (self.source, self.exemplar, *(picture for picture in self.results if picture))


@dataclass(frozen=True)
class Failures:
    """The subject's worst cases by one metric."""

    metric: str
    title: str
    order: str
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class Cases:
    """All single cases of a page; `scales` are the captions of `guidance`."""

    sliders: tuple[Slider, ...] = ()
    failures: tuple[Failures, ...] = ()
    scales: tuple[str, ...] = ()
    guidance: tuple[Strip, ...] = ()

    def head(self, num_sliders: int, num_failures: int) -> "Cases":
        """Return fewer cases."""
        failures = tuple(Failures(f.metric, f.title, f.order, f.strips[:num_failures]) for f in self.failures)
        return Cases(self.sliders[:num_sliders], failures, self.scales, self.guidance[:num_failures])

    def pictures(self) -> list[Picture]:
        """Return all pictures, in the order of the page."""
        shown: list[Slider | Strip] = [
            *self.sliders,
            *(strip for f in self.failures for strip in f.strips),
            *self.guidance,
        ]
        return [picture for case in shown for picture in case.pictures()]


def page_cases(bench: Bench, methods: Sequence[Method], results: Results, num_sliders: int, num_failures: int) -> Cases:
    """Choose and read the cases of a page."""
    named = {method.name: method for method in methods}
    if results.subject not in named:
        return Cases()
    scores = _by_case(results)
    scales = _guidance_methods(named, results.summary)
    return Cases(
        tuple(_sliders(bench, named, results, scores, num_sliders)),
        tuple(_failures(bench, named, results, num_failures)),
        tuple(scales),
        tuple(_strips(bench, scales, NUM_STRIPS)),
    )


def _by_case(results: Results) -> dict[int, dict[str, float]]:
    rows = results.case_scores.filter(pl.col("method") == results.subject)
    columns = ["case_id", *(c for c in _IN_CAPTION if c in rows.columns)]
    return {row.pop("case_id"): row for row in rows.select(columns).to_dicts()}


def _sliders(
    bench: Bench,
    named: Mapping[str, Method],
    results: Results,
    scores: Mapping[int, Mapping[str, float]],
    number: int,
) -> Iterator[Slider]:
    others = [named[name] for name in results.others if name in named and name != SOURCE][:MAX_OTHERS]
    columns = [named[results.subject], *others]
    chosen = spread_cases(bench.head(_num_common(bench, columns)), number)
    for row in gallery_rows(bench, chosen, columns, round(_SLIDER_PX * MAX_PIXEL_RATIO)):
        result, *beside = (r for r in row.results if r is not None)
        titles = [method_title(method.name) for method in others]
        yield Slider(
            row.case_id,
            row.caption,
            case_text(scores.get(row.case_id, {})),
            percent_box(row),
            round(50 * (row.box[0] + row.box[2]) / row.source.shape[1]),
            reduced(row.source, _SLIDER_PX, f"source of case {row.case_id}"),
            _exemplar(row, _STRIP_PX),
            reduced(result, _SLIDER_PX, _alt(row, results.subject)),
            tuple(
                (title, reduced(image, _SLIDER_PX // 2, f"case {row.case_id} with {row.caption}, {title}"))
                for title, image in zip(titles, beside, strict=True)
            ),
        )


def _failures(bench: Bench, named: Mapping[str, Method], results: Results, number: int) -> Iterator[Failures]:
    for metric in _failure_metrics(results):
        spec = metric_spec(metric)
        worst = worst_cases(results.case_scores, results.subject, metric, number)
        rows = gallery_rows(bench, list(worst), [named[results.subject]], round(_TILE_PX * MAX_PIXEL_RATIO))
        strips = [_strip(row, [results.subject], _TILE_PX) for row in rows]
        captioned = tuple(
            replace(s, caption=f"{s.caption} · {spec.title} {format_number(worst[s.case_id], spec.digits)}")
            for s in strips
        )
        if strips:
            yield Failures(metric, spec.title, "lowest" if spec.higher_is_better else "highest", captioned)


def _failure_metrics(results: Results) -> list[str]:
    """Return the metrics by which failures are shown: identity or else CLIP score, and one of the background."""
    found = [m for m in FAILURES if m in results.case_scores.columns]
    for better, instead in (("identity", "clip_score"), ("background_lpips", "background_psnr")):
        if better in found and results.case_scores[better].is_not_nan().any():
            found = [m for m in found if m != instead]
    return found


def _guidance_methods(named: Mapping[str, Method], summary: Mapping[str, object]) -> dict[str, Method]:
    """Return the painter's methods by caption, one for each guidance scale; empty without two of them."""
    scale = summary.get("guidance_scale")
    sweep = summary.get("guidance_sweep")
    if scale is None or not isinstance(sweep, Mapping):
        return {}
    scales = sorted(map(float, sweep["scales"]))[:MAX_SCALES]
    names = {s: METHOD if s == scale else f"{METHOD}_guidance_{s:g}" for s in scales}
    found = {f"guidance {s:g}": named[name] for s, name in names.items() if name in named}
    return found if len(found) > 1 else {}


def _strips(bench: Bench, columns: Mapping[str, Method], number: int) -> list[Strip]:
    methods = list(columns.values())
    if not methods:
        return []
    chosen = spread_cases(bench.head(_num_common(bench, methods)), number)
    rows = gallery_rows(bench, chosen, methods, round(_STRIP_PX * MAX_PIXEL_RATIO))
    return [_strip(row, [method.name for method in methods], _STRIP_PX) for row in rows]


def _strip(row: GalleryRow, names: Sequence[str], shown_px: int) -> Strip:
    pictures = [
        None if image is None else reduced(image, shown_px, _alt(row, name))
        for name, image in zip(names, row.results, strict=True)
    ]
    source = reduced(row.source, shown_px, f"source of case {row.case_id}")
    return Strip(row.case_id, row.caption, percent_box(row), source, _exemplar(row, shown_px), tuple(pictures))


def _num_common(bench: Bench, methods: Sequence[Method]) -> int:
    return min(len(bench) if method.num_cases is None else method.num_cases for method in methods)


def _exemplar(row: GalleryRow, shown_px: int) -> Picture:
    return reduced(row.exemplar, shown_px, f"exemplar of case {row.case_id}: {row.caption}")


def _alt(row: GalleryRow, method: str) -> str:
    return f"case {row.case_id} with {row.caption}, {method_title(method)}"


def case_text(scores: Mapping[str, float | None]) -> str:
    """Return the scores of a case as text; those that do not apply are left out."""
    known = {m: value for m, value in scores.items() if value is not None and value == value}
    return " · ".join(f"{metric_spec(m).title} {format_number(v, metric_spec(m).digits)}" for m, v in known.items())


def percent_box(row: GalleryRow) -> str:
    """Return CSS that places the box to repaint over the source, whatever the size at which the page shows it."""
    height, width = row.source.shape[:2]
    x0, y0, x1, y1 = row.box
    return (
        f"left:{100 * x0 / width:.2f}%;top:{100 * y0 / height:.2f}%;"
        f"width:{100 * (x1 - x0) / width:.2f}%;height:{100 * (y1 - y0) / height:.2f}%"
    )
