"""The same cases with irregular masks: the project's own bench has boxes, as COCOEE."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pbe import settings
from pbe.evaluation.benches.bench import Bench, Case, write_case, write_index
from pbe.method.masks import extend_box, irregular_mask
from pbe.runtime.files import atomic_folder

_STREAM = 0x1BBE6  # separates these random numbers from those of the bench


def write_irregular_bench(bench: Bench, out: Path, mask: settings.Mask, seed: int) -> None:
    """Write the cases of a bench with the irregular masks of section 3.2 around their boxes.

    The masks are those that half of the training samples have where `mask.shape` is arbitrary. `bench` must have
    origins.
    """
    assert bench.origins is not None, bench.folder
    with atomic_folder(out) as part:
        for case in _irregular_cases(bench, mask, seed):
            write_case(part, case)
        write_index(part, bench.origins)


def _irregular_cases(bench: Bench, mask: settings.Mask, seed: int) -> Iterator[Case]:
    for case_id in bench.ids:
        case = bench.case(case_id)
        height, width = case.mask.shape
        assert height == width, "the project's own sources are square"
        rng = np.random.default_rng([seed, _STREAM, case_id])
        extended = extend_box(case.box, height, mask.max_extension_frac, rng)
        yield Case(case.id, case.source, irregular_mask(case.box, extended, height, mask, rng), case.exemplar)
