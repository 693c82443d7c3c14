"""Scorers that compare pixels: the background, the seam, and copying."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pbe.evaluation.benches.bench import Case
from pbe.evaluation.metrics.copy_paste import copy_paste_score
from pbe.evaluation.metrics.lpips import Lpips, lpips_in
from pbe.evaluation.metrics.preservation import (
    PSNR_CAP_DB,
    Region,
    background_of,
    keep_background,
    psnr,
    ring_around,
    ssim_map,
)
from pbe.evaluation.metrics.seams import seam_visibility
from pbe.evaluation.scoring.case_scores import CaseBatch
from pbe.types import Image

Column = NDArray[np.float64]

_REGIONS = ("background", "ring")  # the names of columns begin with them


class BackgroundScorer:
    """PSNR, SSIM and, with `lpips`, LPIPS against the source: everywhere outside the mask, and in the ring around it.

    NaN for a mask of the whole picture.
    """

    def __init__(self, lpips: Lpips | None = None) -> None:
        self._lpips = lpips
        measures = ("psnr", "ssim", "lpips") if lpips else ("psnr", "ssim")
        self.columns = tuple(f"{region}_{measure}" for region in _REGIONS for measure in measures)
        self.key = f"{lpips.name} {lpips.digest}" if lpips else "PSNR and SSIM"

    def score(self, batch: CaseBatch, results: Sequence[Image]) -> Mapping[str, Column]:
        """Score results by how little they change outside the masks; see `CaseScorer`."""
        regions = batch.once("background and ring", lambda: [_regions(case) for case in batch.cases])
        rows = [self._row(*each) for each in zip(batch.cases, results, regions, strict=True)]
        return {column: np.array(values) for column, values in zip(self.columns, zip(*rows, strict=True), strict=True)}

    def _row(self, case: Case, result: Image, regions: Sequence[Region]) -> list[float]:
        """Return the values of all columns."""
        kept = keep_background(result, case.source, case.mask)
        if np.array_equal(kept, case.source):  # of most methods: nothing needs to be computed
            perfect = [PSNR_CAP_DB, 1.0, 0.0][: len(self.columns) // len(_REGIONS)]
            return [value if where.any() else float("nan") for where in regions for value in perfect]
        similarity = ssim_map(kept, case.source)
        row = []
        for where in regions:
            row += [psnr(kept, case.source, where), _mean(similarity, where)]
            if self._lpips:
                row.append(lpips_in(self._lpips, kept, case.source, where))
        return row


def _regions(case: Case) -> tuple[Region, Region]:
    return background_of(case.mask), ring_around(case.mask)


def _mean(values: Column, where: Region) -> float:
    return float(values[where].mean()) if where.any() else float("nan")


class SeamScorer:
    """How visible the mask's edge is."""

    columns = ("seam_visibility",)
    key = "pixels"

    def score(self, batch: CaseBatch, results: Sequence[Image]) -> Mapping[str, Column]:
        """Score results by `seam_visibility`; see `CaseScorer`."""
        pairs = zip(results, batch.cases, strict=True)
        return {"seam_visibility": np.array([seam_visibility(result, case.mask) for result, case in pairs])}


class CopyPasteScorer:
    """How much of the masked region is the exemplar itself."""

    columns = ("copy_paste_score",)
    key = "pixels"

    def score(self, batch: CaseBatch, results: Sequence[Image]) -> Mapping[str, Column]:
        """Score results by `copy_paste_score`; see `CaseScorer`."""
        pairs = zip(results, batch.cases, strict=True)
        scores = [copy_paste_score(result, case.mask, case.exemplar) for result, case in pairs]
        return {"copy_paste_score": np.array(scores)}
