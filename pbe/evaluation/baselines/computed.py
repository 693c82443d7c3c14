"""Baselines that are computed while they are scored, as methods of the scoring."""

from collections.abc import Iterable
from functools import partial

from pbe.evaluation.baselines import baseline_result
from pbe.evaluation.scoring.case_scores import Method
from pbe.runtime.code_digest import digest_code


def baseline_methods(names: Iterable[str], seed: int) -> list[Method]:
    """Return those of BASELINES with the given names; their random numbers follow from `seed` and the case."""
    key = f"{digest_code('pbe.evaluation.baselines')} {seed}"
    return [Method(name, partial(baseline_result, name, seed), key) for name in names]
