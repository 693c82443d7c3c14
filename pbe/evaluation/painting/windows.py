"""Painting cases as `pbe edit` does: each region of a mask through its own window (`pbe.method.regions`).

This module decides pixels: its code, and that of the modules it imports, is part of the key of every painted picture.
It therefore imports nothing that finds files or runs processes.

On a CPU the kernels of convolutions and matrix products depend on the number of rows, and so do the last bits of their
results. The model is therefore always called with the same number of squares, the last call filled up with copies of
its last row: the pixels of a case are the same in any company.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pbe.method.exemplars import resize
from pbe.method.regions import cut_regions, find_regions, put_back_regions, region_seeds
from pbe.types import Image

if TYPE_CHECKING:
    from pathlib import Path

    from pbe.evaluation.benches.bench import Case
    from pbe.method.painter import Painter

Squares = NDArray[np.uint8]  # (B, S, S, 3)
Rows = NDArray[Any]  # (B, ...), of squares or of what belongs to each
# (sources, masks, the condition of each square, seeds) => painted squares
PaintSquares = Callable[[Squares, NDArray[np.uint8], Rows, NDArray[np.int64]], Squares]


class Request(NamedTuple):
    """A case to be painted from the noise of a seed; `text` describes the exemplar to models that take no image."""

    case: "Case"
    seed: int
    text: str = ""


@dataclass(frozen=True)
class PaintSettings:
    """How a model paints: placed on a device in a precision, and called with `call_size` squares at a time."""

    device: str
    precision: str
    sampler: str
    num_steps: int
    guidance_interval: tuple[float, float] | None  # see pbe.method.guidance
    max_magnification: float  # see pbe.method.close_up
    call_size: int

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampler's arguments of `Painter.paint`."""
        return {
            "sampler": self.sampler,
            "num_steps": self.num_steps,
            "guidance_interval": self.guidance_interval,
        }


class CasePainter(Protocol):
    """A loaded model that paints batches of cases."""

    def __call__(self, requests: Sequence[Request], guidance_scale: float) -> list[Image]:
        """Return a picture of its source's size for each request; a request's company does not change its pixels."""


class ExemplarPainter:
    """The project's own painter."""

    def __init__(self, painter: "Painter", settings: PaintSettings) -> None:
        self._painter = painter
        self._settings = settings

    @classmethod
    def load(cls, folder: "Path", settings: PaintSettings) -> "ExemplarPainter":
        """Load the painter in `folder`; raises what `Painter.from_pretrained` raises."""
        import torch

        from pbe.method.painter import Painter
        from pbe.runtime.devices import DTYPES

        painter = Painter.from_pretrained(folder)
        return cls(painter.place(torch.device(settings.device), DTYPES[settings.precision]), settings)

    def __call__(self, requests: Sequence[Request], guidance_scale: float) -> list[Image]:
        side, settings = self._painter.exemplar_px, self._settings
        exemplars = np.stack([resize(request.case.exemplar, side, side) for request in requests])

        def paint(sources: Squares, masks: Squares, exemplars: Squares, seeds: NDArray[np.int64]) -> Squares:
            return self._painter.paint(
                sources, masks, exemplars, guidance_scale=guidance_scale, seeds=seeds.tolist(), **settings.sampling
            )

        return paint_windows(requests, exemplars, self._painter.image_px, settings, paint)


def paint_windows(
    requests: Sequence[Request], conditions: Rows, image_px: int, settings: PaintSettings, paint: PaintSquares
) -> list[Image]:
    """Cut the windows of every request's regions, paint them as squares of `image_px`, and put the regions back.

    `conditions` has a row for each request, which all of its windows are painted with.
    """
    regions = [find_regions(request.case.mask, image_px, settings.max_magnification) for request in requests]
    cuts = [cut_regions(r.case.source, each, image_px) for r, each in zip(requests, regions, strict=True)]
    counts = [len(each) for each in cuts]
    seeds = [seed for r, each in zip(requests, regions, strict=True) for seed in region_seeds(r.seed, each)]
    squares = in_calls(
        paint,
        settings.call_size,
        np.stack([cut.source for each in cuts for cut in each]),
        np.stack([cut.mask for each in cuts for cut in each]),
        np.repeat(conditions, counts, axis=0),
        np.array(seeds, np.int64),
    )
    painted = np.split(squares, np.cumsum(counts)[:-1])
    return [
        put_back_regions(request.case.source, each, list(own))
        for request, each, own in zip(requests, regions, painted, strict=True)
    ]


def in_calls(paint: Callable[..., Squares], size: int, *rows: Rows) -> Squares:
    """Return `paint` of the rows (B, ...) of each array, in calls of exactly `size` rows; copies fill up the last."""
    count = len(rows[0])
    index = np.minimum(np.arange(-(-count // size) * size), count - 1).reshape(-1, size)
    return np.concatenate([paint(*(each[call] for each in rows)) for call in index])[:count]
