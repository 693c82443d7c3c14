"""The gallery: cases side by side, chosen by rule and not by eye.

Rows are spread over the classes of the exemplars in bench order; the worst of the bench by CLIP score are shown too.
"""

import csv
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from pbe.dataset.images import read_image
from pbe.demo.scenes import Attributes
from pbe.errors import UserError
from pbe.evaluation.bench import Bench, Box, Image, result_path, write_image
from pbe.method.windows import mask_box

_PAPER = (255, 255, 255)
_INK = (28, 30, 34)
_MUTED = (110, 114, 122)
_OUTLINE = (255, 255, 255)
_OUTLINE_EDGE = (20, 20, 24)


@dataclass(frozen=True)
class GalleryRow:
    """One case: its source with the box to repaint, its exemplar, and the result in each column (None: not painted)."""

    case_id: int
    caption: str
    source: Image
    box: Box
    exemplar: Image
    results: tuple[Image | None, ...]


def gallery_rows(bench: Bench, ids: Sequence[int], columns: Mapping[str, Path]) -> list[GalleryRow]:
    """Read the rows of the given cases; `columns` maps a column's caption to its folder of results."""
    captions = dict(zip(bench.ids, case_captions(bench), strict=True))
    rows = []
    for case_id in ids:
        case = bench.case(case_id)
        paths = [result_path(folder, case_id) for folder in columns.values()]
        results = tuple(read_image(path) if path.is_file() else None for path in paths)
        rows.append(GalleryRow(case_id, captions[case_id], case.source, mask_box(case.mask), case.exemplar, results))
    return rows


def case_captions(bench: Bench) -> list[str]:
    """What each exemplar shows, as far as it is known."""
    truth: Sequence[Attributes | None] = bench.exemplar_truth or [None] * len(bench)
    labels = [o.exemplar_label for o in bench.origins] if bench.origins else [""] * len(bench)
    return [t.caption if t else label.lower() or "an exemplar" for t, label in zip(truth, labels, strict=True)]


def spread_cases(bench: Bench, num_cases: int) -> list[int]:
    """Choose cases class by class in turn, each class in bench order; in bench order where classes are not known."""
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


def read_case_scores(path: Path) -> dict[int, dict[str, str]]:
    """case_scores.csv by case id: clip_score, and the judge's readings where there was one."""
    with path.open(newline="") as file:
        return {int(row.pop("case_id")): row for row in csv.DictReader(file)}


def worst_cases(case_scores: Mapping[int, Mapping[str, str]], num_cases: int) -> list[int]:
    """The cases of lowest CLIP score, the worst first."""
    return sorted(case_scores, key=lambda i: (float(case_scores[i]["clip_score"]), i))[:num_cases]


def write_gallery_png(rows: Sequence[GalleryRow], columns: Sequence[str], path: Path, scale: int = 3) -> None:
    """Write a labelled contact sheet: the source with its box outlined, the exemplar, the results under their captions.

    `columns` are the captions of the results. Pictures are enlarged `scale` times, bicubically. Raises UserError for
    no rows.
    """
    if not rows:
        raise UserError(f"{path}: a gallery of no rows")
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
    """Resize so that the longer side is `side`; the shape of the picture is kept."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def _paste_centred(sheet: PillowImage.Image, tile: Image, left: int, top: int, side: int) -> None:
    height, width = tile.shape[:2]
    sheet.paste(PillowImage.fromarray(tile), (left + (side - width) // 2, top + (side - height) // 2))
