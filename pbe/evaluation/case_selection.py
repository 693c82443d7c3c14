"""Our own bench where COCOEE is not given: boxes of validation images, exemplars of other validation images.

As in COCOEE the exemplar never comes from the image it is put into; it may show another kind of thing than it replaces.
"""

import csv
import logging
import shutil
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pbe.dataset.image_shards import LOCATION, ImageShards, ImageRef
from pbe.demo.scenes import Attributes
from pbe.errors import UserError
from pbe.evaluation.bench import Bench, Box, Case, Image, Origin, read_bench, write_case, write_index
from pbe.method.exemplars import resize
from pbe.method.windows import Window, box_in_window, box_mask, cut_window, square_window
from pbe.settings import Evaluate

logger = logging.getLogger(__name__)

_MIN_EXEMPLAR_SIDE_PX = 14
_MAX_WINDOW_DRAWS = 8
_STREAM = 0xBE7C  # the bench's own random stream beside those of other stages


@dataclass(frozen=True)
class _BoxRow:
    box_id: str
    image_id: str
    label: str
    xyxy: Box
    height: int
    width: int
    is_clear: bool  # neither truncated nor occluded, as far as the flags say
    image: ImageRef


@dataclass(frozen=True)
class _Plan:
    source: _BoxRow
    window: Window
    exemplar: _BoxRow


def make_bench(
    raw: Path, curated: Path, out: Path, settings: Evaluate, *, image_px: int, pad_frac: float, seed: int
) -> Bench:
    """Choose `num_cases` validation boxes with exemplars from other images, and write them as a bench into `out`.

    Sources are square windows resized to (image_px, image_px); a box covers min_area_frac .. max_area_frac of its
    window. Exemplars keep their own resolution, with a rim of `pad_frac`. Where there are fewer boxes than cases, a box
    is repainted again with another exemplar, in another window. The same arguments write the same bytes. Raises
    ValueError when the curated validation boxes allow no case, or when `out` holds something that is no bench.
    """
    boxes = _read_boxes(curated / "boxes.parquet")
    rng = np.random.default_rng([seed, _STREAM])
    plans = _plan_cases(boxes, settings, rng)
    if not plans:
        raise UserError(
            f"{curated / 'boxes.parquet'}: none of {len(boxes)} validation boxes makes a case: it takes boxes of "
            f"{settings.min_area_frac:g} to {settings.max_area_frac:g} of the window, on two images at least"
        )
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    truth = _read_truth(raw / "annotations" / "world-attributes.csv")
    shards = ImageShards(raw / "images")
    for case_id, plan in enumerate(plans):
        write_case(partial, _render(case_id, plan, shards, image_px, pad_frac))
    write_index(partial, [_origin(case_id, plan, truth) for case_id, plan in enumerate(plans)])
    _replace_bench(partial, out)
    bench = read_bench(out)
    if len(bench) < settings.num_cases or bench.num_reused_boxes:
        logger.warning(
            "%d cases of %d asked for; %d repaint a box again", len(bench), settings.num_cases, bench.num_reused_boxes
        )
    return bench


def _read_boxes(path: Path) -> list[_BoxRow]:
    """Validation boxes in box_id order; those that are neither truncated nor occluded, if there are any such."""
    frame = pl.read_parquet(path).filter(pl.col("split") == "validation").sort("box_id")
    rows = [
        _BoxRow(
            r["box_id"],
            r["image_id"],
            r["label"],
            (r["x0"], r["y0"], r["x1"], r["y1"]),
            r["height"],
            r["width"],
            not (r["is_truncated"] or r["is_occluded"]),
            ImageRef(*(r[name] for name in LOCATION)),
        )
        for r in frame.iter_rows(named=True)
    ]
    if not rows:
        raise UserError(f"{path}: no boxes of validation images, so there is nothing to evaluate on")
    return [r for r in rows if r.is_clear] or rows


def _plan_cases(boxes: Sequence[_BoxRow], settings: Evaluate, rng: np.random.Generator) -> list[_Plan]:
    """Pass over the boxes in random order, again and again, until there are enough cases or no new pair is left."""
    sources = [boxes[i] for i in rng.permutation(len(boxes))]
    exemplars = deque(boxes[i] for i in rng.permutation(len(boxes)) if _is_exemplar(boxes[i]))
    plans: list[_Plan] = []
    used: set[tuple[str, str]] = set()
    while sources and len(plans) < settings.num_cases:
        planned = len(plans)
        for source in sources:
            if len(plans) == settings.num_cases:
                return plans
            window = _fitting_window(source, settings, rng)
            exemplar = _next_exemplar(exemplars, source, used) if window else None
            if window and exemplar:
                used.add((source.box_id, exemplar.box_id))
                plans.append(_Plan(source, window, exemplar))
        sources = [p.source for p in plans[planned:]]  # those that worked, again
    return plans


def _is_exemplar(box: _BoxRow) -> bool:
    x0, y0, x1, y1 = box.xyxy
    return min(x1 - x0, y1 - y0) >= _MIN_EXEMPLAR_SIDE_PX


def _fitting_window(box: _BoxRow, settings: Evaluate, rng: np.random.Generator) -> Window | None:
    """A window of which the box covers an admitted share, or None when no draw finds one."""
    for _ in range(_MAX_WINDOW_DRAWS):
        window = square_window(box.height, box.width, box.xyxy, rng)
        x0, y0, x1, y1 = box_in_window(box.xyxy, window, window.side)
        area_frac = (x1 - x0) * (y1 - y0) / window.side**2
        if settings.min_area_frac <= area_frac <= settings.max_area_frac:
            return window
    return None


def _next_exemplar(queue: deque[_BoxRow], source: _BoxRow, used: set[tuple[str, str]]) -> _BoxRow | None:
    """The next in turn that is of another image and new to this source, so that all are used about equally often."""
    for _ in range(len(queue)):
        queue.rotate(-1)
        candidate = queue[-1]
        if candidate.image_id != source.image_id and (source.box_id, candidate.box_id) not in used:
            return candidate
    return None


def _render(case_id: int, plan: _Plan, shards: ImageShards, image_px: int, pad_frac: float) -> Case:
    source = cut_window(shards.read_image(plan.source.image), plan.window, image_px)
    mask = box_mask(box_in_window(plan.source.xyxy, plan.window, image_px), image_px)
    exemplar_image = shards.read_image(plan.exemplar.image)
    return Case(case_id, source, mask, _crop(exemplar_image, plan.exemplar.xyxy, pad_frac, image_px))


def _crop(image: Image, box_xyxy: Box, pad_frac: float, max_px: int) -> Image:
    """The box and its rim at their own resolution, or the working one where that is less."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box_xyxy
    pad = round(pad_frac * max(x1 - x0, y1 - y0))
    crop = image[max(0, y0 - pad) : min(height, y1 + pad), max(0, x0 - pad) : min(width, x1 + pad)]
    shrink = min(1.0, max_px / max(crop.shape[:2]))
    return resize(crop, max(1, round(crop.shape[0] * shrink)), max(1, round(crop.shape[1] * shrink)))


def _read_truth(path: Path) -> dict[str, Attributes]:
    """True attributes by box id; empty where the world did not write any."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {
            row["box_id"]: Attributes(row["Shape"], row["Colour"], row["Pattern"], row["SecondColour"])
            for row in csv.DictReader(file)
        }


def _origin(case_id: int, plan: _Plan, truth: dict[str, Attributes]) -> Origin:
    words: list[str] = []
    for box in (plan.exemplar, plan.source):
        t = truth.get(box.box_id)
        words += ["", "", "", ""] if t is None else [t.shape, t.colour, t.pattern, t.second_colour]
    return Origin(case_id, plan.source.image_id, plan.source.box_id, plan.exemplar.box_id, plan.exemplar.label, *words)


def _replace_bench(partial: Path, out: Path) -> None:
    if out.exists():
        if any(out.iterdir()) and not (out / "id_list.npy").is_file():
            raise UserError(f"{out}: holds files but no id_list.npy; a bench is not written over something else")
        shutil.rmtree(out)
    partial.replace(out)
