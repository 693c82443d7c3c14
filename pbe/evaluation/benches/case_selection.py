"""The project's own bench, where COCOEE is not given: boxes of validation images, exemplars of other validation images.

As in COCOEE, the exemplar never comes from the image that it is painted into, and may be of another class than the
object that it replaces. It never comes from another image of the same group (`acquire.group_file`) either: another
frame of the clip shows the same object, on the same ground.
"""

import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe.dataset.image_shards import LOCATION, ImageRef, ImageShards
from pbe.dataset.object_masks import unpack_mask
from pbe.errors import UserError
from pbe.evaluation.attributes import BoxTruth
from pbe.evaluation.benches.bench import Bench, Case, Origin, write_case, write_index
from pbe.evaluation.labels import words_of
from pbe.method.exemplars import resize
from pbe.method.windows import Window, box_in_window, box_mask, cut_window, square_window
from pbe.runtime.files import atomic_folder
from pbe.types import Box, Image, Mask

logger = logging.getLogger(__name__)

_MIN_EXEMPLAR_SIDE_PX = 14
_MAX_WINDOW_DRAWS = 8
_STREAM = 0xBE7C  # separates the bench's random numbers from those of other stages


@dataclass(frozen=True)
class CaseRules:
    """How many cases to make, and of which boxes."""

    num_cases: int
    min_area_frac: float  # share of the window that a box covers
    max_area_frac: float
    image_px: int  # side of the square sources
    pad_frac: float  # margin around an exemplar's box, as a share of its longer side


@dataclass(frozen=True)
class _BoxRow:
    box_id: str
    image_id: str
    label: str
    xyxy: Box
    height: int
    width: int
    is_clear: bool  # neither truncated nor occluded according to its flags
    image: ImageRef
    object_mask: bytes | None  # see `pbe.dataset.object_masks`
    group: str | None  # such as the clip of a frame; None when it is not known


@dataclass(frozen=True)
class _Plan:
    source: _BoxRow
    window: Window
    exemplar: _BoxRow


def make_bench(
    raw: Path, curated: Path, out: Path, rules: CaseRules, *, seed: int, truth: Mapping[str, BoxTruth]
) -> Bench:
    """Choose validation boxes with exemplars from other images and groups, and write them into `out` as a bench.

    Sources are square windows resized to (image_px, image_px). Exemplars keep their resolution, up to image_px, and
    have a margin of pad_frac. When there are fewer boxes than cases, a box is repainted again with another exemplar, in
    another window. `truth` maps box ids to the true attributes, where they are known. The same arguments write the
    same bytes. With 0 cases, no box is read, and the bench is empty. Raises UserError when the curated validation boxes
    allow no case, or when `out` is a folder of other files.
    """
    if rules.num_cases == 0:
        return _write_bench(out, [], [])
    boxes = _read_boxes(curated / "boxes.parquet")
    plans = _plan_cases(boxes, rules, np.random.default_rng([seed, _STREAM]))
    if not plans:
        raise UserError(
            f"{curated / 'boxes.parquet'}: none of {len(boxes)} validation boxes can be used; a case needs a box that "
            f"covers {rules.min_area_frac:g} to {rules.max_area_frac:g} of its window, and an exemplar of another "
            "image and another group"
        )
    shards = ImageShards(raw / "images")
    cases = (_render(case_id, plan, shards, rules) for case_id, plan in enumerate(plans))
    bench = _write_bench(out, cases, [_origin(case_id, plan, truth) for case_id, plan in enumerate(plans)])
    if len(bench) < rules.num_cases or bench.num_reused_boxes:
        logger.warning(
            "the bench has %d of %d cases; %d cases repaint the box of an earlier case",
            len(bench),
            rules.num_cases,
            bench.num_reused_boxes,
        )
    return bench


def _read_boxes(path: Path) -> list[_BoxRow]:
    """Return the validation boxes in box_id order: those neither truncated nor occluded, or all when none is clear."""
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
            r.get("object_mask"),
            r.get("group"),
        )
        for r in frame.iter_rows(named=True)
    ]
    if not rows:
        raise UserError(f"{path}: no boxes of validation images; the evaluation needs some")
    return [r for r in rows if r.is_clear] or rows


def _plan_cases(boxes: Sequence[_BoxRow], rules: CaseRules, rng: np.random.Generator) -> list[_Plan]:
    """Pass over the boxes in random order until there are enough cases, or a pass finds no new pair."""
    sources = [boxes[i] for i in rng.permutation(len(boxes))]
    exemplars = deque(boxes[i] for i in rng.permutation(len(boxes)) if _is_exemplar(boxes[i]))
    plans: list[_Plan] = []
    used: set[tuple[str, str]] = set()
    while sources and len(plans) < rules.num_cases:
        num_before = len(plans)
        for source in sources:
            if len(plans) == rules.num_cases:
                return plans
            window = _fitting_window(source, rules, rng)
            exemplar = _next_exemplar(exemplars, source, used) if window else None
            if window and exemplar:
                used.add((source.box_id, exemplar.box_id))
                plans.append(_Plan(source, window, exemplar))
        sources = [plan.source for plan in plans[num_before:]]  # the next pass tries those that succeeded
    return plans


def _is_exemplar(box: _BoxRow) -> bool:
    x0, y0, x1, y1 = box.xyxy
    return min(x1 - x0, y1 - y0) >= _MIN_EXEMPLAR_SIDE_PX


def _fitting_window(box: _BoxRow, rules: CaseRules, rng: np.random.Generator) -> Window | None:
    """Draw a window of which the box covers an allowed share; return None when no draw has one."""
    for _ in range(_MAX_WINDOW_DRAWS):
        window = square_window(box.height, box.width, box.xyxy, rng)
        x0, y0, x1, y1 = box_in_window(box.xyxy, window, window.side)
        area_frac = (x1 - x0) * (y1 - y0) / window.side**2
        if rules.min_area_frac <= area_frac <= rules.max_area_frac:
            return window
    return None


def _next_exemplar(queue: deque[_BoxRow], source: _BoxRow, used: set[tuple[str, str]]) -> _BoxRow | None:
    """Return the next exemplar in turn that is from another image and group and new to this source.

    Taking turns uses all exemplars about equally often.
    """
    for _ in range(len(queue)):
        queue.rotate(-1)
        candidate = queue[-1]
        if _are_apart(candidate, source) and (source.box_id, candidate.box_id) not in used:
            return candidate
    return None


def _are_apart(first: _BoxRow, second: _BoxRow) -> bool:
    """Return whether two boxes are of different images, and of different groups unless either group is unknown."""
    is_same_group = first.group is not None and first.group == second.group
    return first.image_id != second.image_id and not is_same_group


def _render(case_id: int, plan: _Plan, shards: ImageShards, rules: CaseRules) -> Case:
    source = cut_window(shards.read_image(plan.source.image), plan.window, rules.image_px)
    mask = box_mask(box_in_window(plan.source.xyxy, plan.window, rules.image_px), rules.image_px)
    box, image = plan.exemplar, shards.read_image(plan.exemplar.image)
    exemplar = _crop(image, box.xyxy, rules.pad_frac, rules.image_px)
    return Case(case_id, source, mask, exemplar, _exemplar_mask(box, image.shape[:2], exemplar.shape[:2], rules))


def _exemplar_mask(
    box: _BoxRow, image_size: tuple[int, int], exemplar_size: tuple[int, int], rules: CaseRules
) -> Mask | None:
    """Return where the exemplar shows its object, from the data's own mask of it."""
    if box.object_mask is None:
        return None
    x0, y0, x1, y1 = box.xyxy
    whole = np.zeros(image_size, np.uint8)
    whole[y0:y1, x0:x1] = cv2.resize(unpack_mask(box.object_mask), (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)
    cut = _cut(whole, box.xyxy, rules.pad_frac)
    return np.asarray(cv2.resize(cut, exemplar_size[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


def _crop(image: Image, box_xyxy: Box, pad_frac: float, max_px: int) -> Image:
    """Crop the box and its margin, and shrink the crop when its longer side exceeds `max_px`."""
    crop = _cut(image, box_xyxy, pad_frac)
    shrink = min(1.0, max_px / max(crop.shape[:2]))
    return resize(crop, max(1, round(crop.shape[0] * shrink)), max(1, round(crop.shape[1] * shrink)))


def _cut(pixels: NDArray[np.uint8], box_xyxy: Box, pad_frac: float) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = box_xyxy
    pad = round(pad_frac * max(x1 - x0, y1 - y0))
    return pixels[max(0, y0 - pad) : min(height, y1 + pad), max(0, x0 - pad) : min(width, x1 + pad)]


def _origin(case_id: int, plan: _Plan, truth: Mapping[str, BoxTruth]) -> Origin:
    source, exemplar = plan.source, plan.exemplar
    exemplar_truth = truth.get(exemplar.box_id, BoxTruth({}, words_of(exemplar.label)))
    source_truth = truth.get(source.box_id, BoxTruth({}, ""))
    return Origin(
        case_id,
        source.image_id,
        source.box_id,
        exemplar.box_id,
        exemplar.label,
        exemplar_truth.caption,
        exemplar_truth.values,
        source_truth.values,
    )


def _write_bench(out: Path, cases: Iterable[Case], origins: Sequence[Origin]) -> Bench:
    _check_replaceable(out)
    with atomic_folder(out) as part:
        for case in cases:
            write_case(part, case)
        write_index(part, origins)
    return Bench(out, tuple(origin.case_id for origin in origins), tuple(origins))


def _check_replaceable(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / "id_list.npy").is_file():
        raise UserError(
            f"{out}: has files but no id_list.npy, so it is not a bench and is not overwritten; move it away"
        )
