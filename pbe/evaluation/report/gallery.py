"""The gallery: cases side by side, chosen by a rule and not by their looks.

The rule takes the classes of the exemplars in turn, each in bench order. A second gallery shows the cases with the
lowest CLIP scores.
"""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from pbe.evaluation.bench import Bench, write_image
from pbe.evaluation.case_scores import Method
from pbe.types import Box, Image

_PAPER = (255, 255, 255)
_INK = (28, 30, 34)
_MUTED = (110, 114, 122)
_OUTLINE = (255, 255, 255)
_OUTLINE_EDGE = (20, 20, 24)


@dataclass(frozen=True)
class GalleryRow:
    """A case: its source and the box to repaint, its exemplar, and a result for each column (None: not painted)."""

    case_id: int
    caption: str
    source: Image
    box: Box
    exemplar: Image
    results: tuple[Image | None, ...]


def gallery_rows(bench: Bench, ids: Sequence[int], columns: Mapping[str, Method]) -> list[GalleryRow]:
    """Read the rows of the given cases; `columns` maps the caption of a column to the method it shows."""
    captions = dict(zip(bench.ids, case_captions(bench), strict=True))
    rows = []
    for case_id in ids:
        case = bench.case(case_id)
        number = bench.ids.index(case_id)
        results = tuple(
            method.result_of(case) if method.num_cases is None or number < method.num_cases else None
            for method in columns.values()
        )
        rows.append(GalleryRow(case_id, captions[case_id], case.source, case.box, case.exemplar, results))
    return rows


def case_captions(bench: Bench) -> list[str]:
    """Return a caption for each exemplar, in bench order."""
    captions = [o.exemplar_caption for o in bench.origins] if bench.origins else [""] * len(bench)
    return [caption or "an exemplar" for caption in captions]


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


def worst_cases(case_scores: Mapping[int, Mapping[str, str]], num_cases: int) -> list[int]:
    """Return the ids of the cases with the lowest CLIP scores, the lowest first."""
    return sorted(case_scores, key=lambda i: (float(case_scores[i]["clip_score"]), i))[:num_cases]


def write_gallery_png(rows: Sequence[GalleryRow], columns: Sequence[str], path: Path, scale: int = 3) -> None:
    """Write a labelled contact sheet: the source with its box outlined, the exemplar, and the results.

    `columns` are the captions of the results. Images are enlarged `scale` times by bicubic interpolation. Raises
    ValueError when there are no rows.
    """
    if not rows:
        raise ValueError(f"{path}: a gallery needs at least one row")
    side = max(max(row.source.shape[:2]) for row in rows) * scale
    gap, head, margin = max(4, side // 16), max(24, side // 7), max(10, side // 10)
    captions = ["source, box to repaint", "exemplar", *columns]
    width = 2 * margin + len(captions) * side + (len(captions) - 1) * gap
    height = 2 * margin + head + len(rows) * side + (len(rows) - 1) * gap
    sheet = PillowImage.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(max(10, side // 12))
    for column, caption in enumerate(captions):
        centre = margin + column * (side + gap) + side // 2
        draw.text((centre, margin + head // 2), caption, _INK, font, anchor="mm")
    for index, row in enumerate(rows):
        top = margin + head + index * (side + gap)
        for column, tile in enumerate(_tiles(row, side)):
            left = margin + column * (side + gap)
            if tile is None:
                draw.text((left + side // 2, top + side // 2), "not painted", _MUTED, font, anchor="mm")
            else:
                _paste_centred(sheet, tile, left, top, side)
    write_image(path, np.asarray(sheet))


def _tiles(row: GalleryRow, side: int) -> list[Image | None]:
    return [
        _outlined(row, side),
        _fit(row.exemplar, side),
        *(None if result is None else _fit(result, side) for result in row.results),
    ]


def _outlined(row: GalleryRow, side: int) -> Image:
    tile = _fit(row.source, side)
    scale = tile.shape[0] / row.source.shape[0]
    x0, y0, x1, y1 = (round(v * scale) for v in row.box)
    thin = max(1, side // 100)
    drawn = PillowImage.fromarray(tile)
    draw = ImageDraw.Draw(drawn)
    draw.rectangle((x0 - thin, y0 - thin, x1 - 1 + thin, y1 - 1 + thin), outline=_OUTLINE_EDGE, width=3 * thin)
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=_OUTLINE, width=thin)
    return np.asarray(drawn)


def _fit(image: Image, side: int) -> Image:
    """Resize so that the longer side is `side`, and keep the aspect ratio."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def _paste_centred(sheet: PillowImage.Image, tile: Image, left: int, top: int, side: int) -> None:
    height, width = tile.shape[:2]
    sheet.paste(PillowImage.fromarray(tile), (left + (side - width) // 2, top + (side - height) // 2))
