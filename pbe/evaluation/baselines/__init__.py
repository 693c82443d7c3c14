"""Baselines: what is scored beside the painter, on the same cases (table 1 of the paper).

A baseline that needs no model is a function (source, mask, exemplar, rng) -> image, listed in BASELINES. It is computed
while its results are scored, and `rng` is the same for a case in every run. Baselines that paint with a model, in
batches and on a GPU if there is one, are listed in `pbe.evaluation.painting.methods`.
"""

from collections.abc import Callable, Mapping

import numpy as np

from pbe.evaluation.baselines import pasting
from pbe.evaluation.baselines.poisson import poisson
from pbe.evaluation.benches.bench import Case
from pbe.types import Image, Mask

Baseline = Callable[[Image, Mask, Image, np.random.Generator], Image]

BASELINES: Mapping[str, Baseline] = {"source": pasting.source, "copy_paste": pasting.copy_paste, "poisson": poisson}


def baseline_result(name: str, seed: int, case: Case) -> Image:
    """Return a baseline's result on a case, (H, W, 3) uint8."""
    return BASELINES[name](case.source, case.mask, case.exemplar, np.random.default_rng([seed, case.id]))
