"""Small benches in COCOEE's layout."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pbe.evaluation.benches.bench import Case, write_case


def make_case(case_id: int, side: int = 16) -> Case:
    """Return a case of random pixels; the mask is a box of 7 x 8 px and less than half of the source."""
    rng = np.random.default_rng(case_id)
    mask = np.zeros((side, side), np.uint8)
    mask[2:9, 3:11] = 1
    source = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Case(case_id, source, mask, rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))


def write_bench(folder: Path, ids: Iterable[int]) -> Path:
    """Write cases and id_list.npy into `folder`, and return it."""
    ids = tuple(ids)
    for case_id in ids:
        write_case(folder, make_case(case_id))
    np.save(folder / "id_list.npy", np.array(ids, np.int64))
    return folder
