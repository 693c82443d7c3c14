"""Every case of a bench is decoded and checked before anything is painted.

Faults (`case_checks.Fault`), in the order in which a case is counted:

    missing      the source, the mask or the exemplar does not exist
    misnamed     it has another name than in COCOEE: no leading zeros, a JPEG
    unreadable   truncated, damaged or not an image
    mask_size    mask and source differ in size
    greyscale    a source or exemplar of one channel; the official code converts it to RGB, as ours does
    transparent  a source or exemplar with transparent pixels; official code drops the opacity, ours fills with white
    empty_mask   no pixel is above half of the mask's scale
    soft_mask    more pixels between black and white than a resized edge has, which is noted alone
    inverted     the whole border and more than half of the mask are marked; all masks above one half, where the mean
                 over the bench is above one half
    tiny         a box of the mask below 2 px, an exemplar below 4 px or a source below 16 px
"""

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pbe.dataset.images import decode_image
from pbe.dataset.mask_images import decode_mask
from pbe.dataset.opened_images import opened_image
from pbe.errors import UserError
from pbe.evaluation.benches.bench import Bench, exemplar_mask_path, exemplar_path, mask_path, source_path
from pbe.evaluation.benches.bench_folder import BenchListing, list_bench
from pbe.evaluation.benches.case_checks import CheckReport, Fault, Finding, Policy, Verdict, check_files, report_cases
from pbe.method.windows import mask_box
from pbe.types import Image, Mask, Progress, no_progress

MIN_SOURCE_PX = 16
MIN_EXEMPLAR_PX = 4
MIN_MASK_BOX_PX = 2  # the official crop leaves out the last row and column
_VERSION = "2"  # of the checks: a changed check gets another
_MAX_SHARE = 0.5
_EDGE_PX, _MAX_EDGE_SHARE = 2, 0.25  # a resized box has grey pixels along its edge, but they are no large part of it
_GREY_MODES = frozenset(("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N"))


@dataclass(frozen=True)
class CheckedBench:
    """The usable cases of a bench, and what the check found."""

    bench: Bench
    report: CheckReport

    @property
    def digest(self) -> str:
        """A digest, 64 hex digits, of the ids and bytes of the usable cases."""
        return digest_bytes([f"{case_id} {digest}".encode() for case_id, digest in self.report.digests.items()])


def open_bench(
    folder: Path,
    policy: Policy,
    *,
    num_cases: int | None = None,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> CheckedBench:
    """Find the bench at `folder`, decode the first `num_cases` cases (None: all), and keep those that can be used.

    Verdicts on unchanged files come from the file `cache`. Raises UserError when there is no bench, no case is left, or
    a case cannot be used and the policy is to refuse.
    """
    listing = list_bench(folder)
    bench = listing.bench if num_cases is None else listing.bench.head(num_cases)
    verdicts = check_files(
        {i: (*bench.files(i), exemplar_mask_path(bench.folder, i)) for i in bench.ids},
        partial(check_case, bench),
        cache=cache,
        version=_VERSION,
        num_threads=len(os.sched_getaffinity(0)),
        progress=progress,
    )
    shares = {i: verdict.measures["share"] for i, verdict in verdicts.items() if "share" in verdict.measures}
    inverted = _inverted(bench, shares)
    findings = {i: [*verdict.findings, *inverted.get(i, ())] for i, verdict in verdicts.items()}
    digests = {i: verdict.digest for i, verdict in verdicts.items()}
    notes = _notes(listing, verdicts)
    report = report_cases(str(folder), findings, policy, notes=notes, digests=digests)
    return CheckedBench(bench.only(report.usable), report)


def _inverted(bench: Bench, shares: Mapping[int, float]) -> dict[int, list[Finding]]:
    """Return a finding for each large mask of a bench whose masks mark more than half of the pictures on average."""
    if not shares or np.mean(list(shares.values())) <= _MAX_SHARE:
        return {}
    mean = 100 * float(np.mean(list(shares.values())))
    text = "{}: the masks mark {:.0f} % of the pictures on average: white is what is repainted; invert them"
    large = (i for i, share in shares.items() if share > _MAX_SHARE)
    return {i: [Finding("inverted", text.format(bench.files(i).mask, mean))] for i in large}


def _notes(listing: BenchListing, verdicts: Mapping[int, Verdict]) -> dict[str, int]:
    notes = {
        "ids_from_files": len(verdicts) if listing.ids_from_files else 0,
        "other_files": len(listing.other_files),
        "zero_one_masks": sum("zero_one_mask" in verdict.measures for verdict in verdicts.values()),
        "soft_edges": sum("soft_edge" in verdict.measures for verdict in verdicts.values()),
    }
    return {name: number for name, number in notes.items() if number}


def check_case(bench: Bench, case_id: int) -> Verdict:
    """Decode the files of a case and return what is wrong with them."""
    files = bench.files(case_id)
    missing = [Finding("missing", f"{path}: no such file") for path in files if not path.is_file()]
    if missing:
        return Verdict(tuple(missing), "", {})
    data = [path.read_bytes() for path in files]
    source, of_source = examine_picture(data[0], files.source, MIN_SOURCE_PX)
    mask, of_mask, measures = _examine_mask(data[1], files.mask)
    _, of_exemplar = examine_picture(data[2], files.exemplar, MIN_EXEMPLAR_PX)
    of_object = _examine_object(exemplar_mask_path(bench.folder, case_id), data)
    findings = [*_other_names(bench, case_id), *of_source, *of_mask, *of_exemplar, *of_object]
    if source is not None and mask is not None and source.shape[:2] != mask.shape:
        findings.append(Finding("mask_size", f"{files.mask}: {_size(mask)}, but its source is {_size(source)}"))
    order = get_args(Fault)
    return Verdict(tuple(sorted(findings, key=lambda f: order.index(f.fault))), digest_bytes(data), measures)


def _examine_object(path: Path, data: list[bytes]) -> list[Finding]:
    """Check the mask of the exemplar's object, which a case need not have, and append its bytes to `data`."""
    if not path.is_file():
        return []
    data.append(path.read_bytes())
    try:
        decode_mask(data[-1], path)
    except UserError as error:
        return [Finding("unreadable", str(error))]
    return []


def digest_bytes(contents: Sequence[bytes]) -> str:
    """Return the SHA-256, 64 hex digits, of several files' bytes and lengths."""
    digest = hashlib.sha256()
    for data in contents:
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def examine_picture(data: bytes, path: Path, min_px: int) -> tuple[Image | None, list[Finding]]:
    """Decode the bytes of a source, an exemplar or a result, and return what is wrong with it."""
    try:
        image = decode_image(data, path)
        with opened_image(io.BytesIO(data), str(path)) as opened:
            mode = opened.mode
            is_transparent = opened.has_transparency_data and _has_transparent_pixels(opened)
    except UserError as error:
        return None, [Finding("unreadable", str(error))]
    findings = []
    if mode in _GREY_MODES:
        findings.append(Finding("greyscale", f"{path}: greyscale (mode {mode}), not RGB"))
    if is_transparent:
        findings.append(Finding("transparent", f"{path}: has transparent pixels; they become white"))
    if min(image.shape[:2]) < min_px:
        findings.append(Finding("tiny", f"{path}: {_size(image)} is below {min_px} px"))
    return image, findings


def _has_transparent_pixels(opened: PillowImage.Image) -> bool:
    return int(np.asarray(opened.convert("RGBA").getchannel("A")).min()) < 255


def _examine_mask(data: bytes, path: Path) -> tuple[Mask | None, list[Finding], dict[str, float]]:
    try:
        mask = decode_mask(data, path)
        levels = _count_levels(data, path)
    except UserError as error:
        return None, [Finding("unreadable", str(error))], {}
    measures = {"share": float(mask.mean())}
    if not mask.any():
        highest = "" if levels is None else f"; its highest level is {np.flatnonzero(levels)[-1]} of 255"
        return mask, [Finding("empty_mask", f"{path}: no pixel is marked for repainting{highest}")], measures
    x0, y0, x1, y1 = mask_box(mask)
    findings = []
    num_grey = 0 if levels is None else int(levels[1:255].sum())
    if levels is not None and not levels[2:].any():
        measures["zero_one_mask"] = 1.0
    elif 0 < num_grey <= min(_EDGE_PX * 2 * (x1 - x0 + y1 - y0), _MAX_EDGE_SHARE * (x1 - x0) * (y1 - y0)):
        measures["soft_edge"] = 1.0
    elif num_grey:
        findings.append(Finding("soft_mask", f"{path}: {num_grey} pixels are neither black nor white"))
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if _MAX_SHARE < measures["share"] < 1 and border.all():
        detail = f"{path}: {100 * measures['share']:.0f} % is marked, with the whole border; white is what is repainted"
        findings.append(Finding("inverted", detail))
    if min(x1 - x0, y1 - y0) < MIN_MASK_BOX_PX:
        findings.append(Finding("tiny", f"{path}: the marked box is {x1 - x0} x {y1 - y0} px"))
    return mask, findings, measures


def _count_levels(data: bytes, path: Path) -> NDArray[np.int64] | None:
    """Return the number of pixels of each grey level (256,); None for files whose pixels are no grey levels."""
    with opened_image(io.BytesIO(data), str(path), ("I", "F")) as opened:
        if opened.mode not in ("L", "RGB"):
            return None
        return np.bincount(np.asarray(opened.convert("L")).ravel(), minlength=256)


def _other_names(bench: Bench, case_id: int) -> list[Finding]:
    expected = (path_of(bench.folder, case_id) for path_of in (source_path, mask_path, exemplar_path))
    return [
        Finding("misnamed", f"{found}: has this name instead of {name.name}")
        for name, found in zip(expected, bench.files(case_id), strict=True)
        if name != found
    ]


def _size(image: Image | Mask) -> str:
    return f"{image.shape[1]} x {image.shape[0]} px"
