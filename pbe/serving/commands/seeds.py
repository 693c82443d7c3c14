"""Seeds of `pbe edit`: one, a range or a list; each gives a variant of the picture."""

import re
from collections.abc import Sequence
from typing import Any

from cyclopts import Token

MAX_VARIANTS = 1000


def seeds_of(_: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    """Return the different seeds of `7`, `0..7` or `1,5,9`; raises ValueError for any other text."""
    parts = [part for token in tokens for part in token.value.split(",")]
    seeds = dict.fromkeys(seed for part in parts for seed in _seeds_of_part(part.strip()))
    if len(seeds) > MAX_VARIANTS:
        raise ValueError(_too_many(",".join(token.value for token in tokens)))
    return tuple(seeds)


def _seeds_of_part(part: str) -> Sequence[int]:
    found = re.fullmatch(r"(-?\d+)(?:\.\.(-?\d+))?", part, re.ASCII)
    if found is None:
        raise ValueError(
            f"invalid seed: {part!r}; give a number such as 7, a range such as 0..7, or a list such as 1,5,9"
        )
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise ValueError(f"invalid range: {part!r}; give the lower seed first")
    if last - first >= MAX_VARIANTS:
        raise ValueError(_too_many(part))
    return range(first, last + 1)


def _too_many(text: str) -> str:
    return f"{text!r} are more than {MAX_VARIANTS} seeds"
