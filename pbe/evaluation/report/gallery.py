"""The pictures of single cases: examples chosen by a rule and not by their looks, and the worst cases by each metric.

The rule takes the classes of the exemplars in turn, each in bench order.
"""

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import polars as pl
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from pbe.evaluation.benches.bench import Bench, write_image
from pbe.evaluation.labels import words_of
from pbe.evaluation.report.pictures import fit
from pbe.evaluation.scoring.case_scores import Method
from pbe.evaluation.scoring.metric_table import metric_spec
from pbe.types import Box, Image

MAX_SHEET_PIXELS = 4_000_000
_SCALE = 3  # of small pictures in the sheet
_LEAST_SIDE = 16
_MAX_CAPTION = 80
_PAPER = (255, 255, 255)
_INK = (28, 30, 34)
_MUTED = (110, 114, 122)
_OUTLINE = (255, 255, 255)
_OUTLINE_EDGE = (20, 20, 24)


@dataclass(frozen=True)
class GalleryRow:
    """A case: its source and the box to repaint, its exemplar, and a result for each column (None: not painted).

    The images are reduced; `box` is in pixels of the reduced source.
    """

    case_id: int
    caption: str
    source: Image
    box: Box
    exemplar: Image
    results: tuple[Image | None, ...]


def gallery_rows(bench: Bench, ids: Sequence[int], columns: Sequence[Method], max_px: int) -> list[GalleryRow]:
    """Read the rows of the given cases, with a result for each of `columns`; no image has a side above `max_px`.

    A case is reduced before the next one is read.
    """
    captions = dict(zip(bench.ids, case_captions(bench), strict=True))
    numbers = {case_id: number for number, case_id in enumerate(bench.ids)}
    return [_row(bench, case_id, captions[case_id], numbers[case_id], columns, max_px) for case_id in ids]


def _row(bench: Bench, case_id: int, caption: str, number: int, columns: Sequence[Method], max_px: int) -> GalleryRow:
    case = bench.case(case_id)
    painted = [method.num_cases is None or number < method.num_cases for method in columns]
    results = tuple(
        fit(method.result_of(case), max_px) if is_painted else None
        for method, is_painted in zip(columns, painted, strict=True)
    )
    source = fit(case.source, max_px)
    scale = source.shape[1] / case.source.shape[1]
    x0, y0, x1, y1 = (round(v * scale) for v in case.box)
    box = (x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))
    return GalleryRow(case_id, caption, source, box, fit(case.exemplar, max_px), results)


def case_captions(bench: Bench) -> list[str]:
    """Return a caption for each exemplar, in bench order."""
    captions = [o.exemplar_caption or words_of(o.exemplar_label) for o in bench.origins or ()] or [""] * len(bench)
    return [caption[:_MAX_CAPTION] or "an exemplar" for caption in captions]


def spread_cases(bench: Bench, num_cases: int) -> list[int]:
    """Choose cases from each class in turn, in bench order; in bench order alone when the classes are unknown."""
    if bench.origins is None:
        return list(bench.ids[:num_cases])
    queues: dict[str, deque[int]] = defaultdict(deque)
    for origin in bench.origins:
        queues[origin.exemplar_label].append(origin.case_id)
    turns = deque(queues[label] for label in sorted(queues))
    chosen: list[int] = []
    while turns and len(chosen) < num_cases:
        queue = turns.popleft()
        chosen.append(queue.popleft())
        if queue:
            turns.append(queue)
    return chosen


def worst_cases(case_scores: pl.DataFrame, method: str, metric: str, num_cases: int) -> dict[int, float]:
    """Return the cases in which a method's metric is worst, the worst first: case id -> score.

    Cases without a score are left out. There is none when all have the same score.
    """
    scored = case_scores.filter(pl.col("method") == method, pl.col(metric).is_not_null() & pl.col(metric).is_not_nan())
    if scored[metric].n_unique() < 2:
        return {}
    order = scored.sort([metric, "case_id"], descending=[not metric_spec(metric).higher_is_better, False])
    return dict(order.select("case_id", metric).head(num_cases).iter_rows())


def write_gallery_png(
    rows: Sequence[GalleryRow], columns: Sequence[str], path: Path, max_pixels: int = MAX_SHEET_PIXELS
) -> None:
    """Write a labelled contact sheet: the source with its box outlined, the exemplar, and the results.

    `columns` are the captions of the results. The sheet has at most `max_pixels`; images are enlarged up to three times
    by bicubic interpolation, or reduced. Raises ValueError when there are no rows.
    """
    if not rows:
        raise ValueError(f"{path}: a gallery needs at least one row")
    captions = ["source, box to repaint", "exemplar", *columns]
    layout = _layout(len(rows), len(captions), max(max(row.source.shape[:2]) for row in rows), max_pixels)
    sheet = PillowImage.new("RGB", layout.size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, caption in enumerate(captions):
        centre = layout.left(column) + layout.side // 2, layout.margin + layout.head // 2
        draw.text(centre, caption, _INK, _font(draw, caption, layout.side), anchor="mm")
    for number, row in enumerate(rows):
        for column, tile in enumerate(_tiles(row, layout.side)):
            left, top = layout.left(column), layout.top(number)
            if tile is None:
                centre = left + layout.side // 2, top + layout.side // 2
                draw.text(centre, "not painted", _MUTED, _font(draw, "not painted", layout.side), anchor="mm")
            else:
                _paste_centred(sheet, tile, left, top, layout.side)
    write_image(path, np.asarray(sheet))


@dataclass(frozen=True)
class _Layout:
    """Sizes of a contact sheet in pixels; a tile is a square of `side`."""

    num_rows: int
    num_columns: int
    side: int

    @property
    def gap(self) -> int:
        return max(4, self.side // 16)

    @property
    def head(self) -> int:
        return max(24, self.side // 7)

    @property
    def margin(self) -> int:
        return max(10, self.side // 10)

    @property
    def size(self) -> tuple[int, int]:
        width = 2 * self.margin + self.num_columns * self.side + (self.num_columns - 1) * self.gap
        height = 2 * self.margin + self.head + self.num_rows * self.side + (self.num_rows - 1) * self.gap
        return width, height

    def left(self, column: int) -> int:
        return self.margin + column * (self.side + self.gap)

    def top(self, row: int) -> int:
        return self.margin + self.head + row * (self.side + self.gap)


def _layout(num_rows: int, num_columns: int, image_px: int, max_pixels: int) -> _Layout:
    """Return the largest layout, up to three times the images' size, that has at most `max_pixels`."""
    side = min(image_px * _SCALE, math.isqrt(max_pixels // (num_rows * num_columns)))
    layout = _Layout(num_rows, num_columns, side)
    while math.prod(layout.size) > max_pixels and layout.side > _LEAST_SIDE:
        layout = _Layout(num_rows, num_columns, layout.side - 1)
    return layout


def _font(draw: ImageDraw.ImageDraw, text: str, side: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the largest font, at most a twelfth of a tile's side, in which a text is no wider than its tile."""
    size = max(10, side // 12)
    while size > 6 and draw.textlength(text, ImageFont.load_default(size)) > side:
        size -= 1
    return ImageFont.load_default(size)


def _tiles(row: GalleryRow, side: int) -> list[Image | None]:
    return [
        _outlined(row, side),
        _enlarged(row.exemplar, side),
        *(None if result is None else _enlarged(result, side) for result in row.results),
    ]


def _outlined(row: GalleryRow, side: int) -> Image:
    tile = _enlarged(row.source, side)
    scale = tile.shape[0] / row.source.shape[0]
    x0, y0, x1, y1 = (round(v * scale) for v in row.box)
    thin = max(1, side // 100)
    drawn = PillowImage.fromarray(tile)
    draw = ImageDraw.Draw(drawn)
    draw.rectangle((x0 - thin, y0 - thin, x1 - 1 + thin, y1 - 1 + thin), outline=_OUTLINE_EDGE, width=3 * thin)
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=_OUTLINE, width=thin)
    return np.asarray(drawn)


def _enlarged(image: Image, side: int) -> Image:
    """Resize so that the longer side is `side`, and keep the aspect ratio."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def _paste_centred(sheet: PillowImage.Image, tile: Image, left: int, top: int, side: int) -> None:
    height, width = tile.shape[:2]
    sheet.paste(PillowImage.fromarray(tile), (left + (side - width) // 2, top + (side - height) // 2))
