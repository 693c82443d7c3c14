"""The counts of the stages that led to an evaluation, as bars."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pbe.errors import UserError

MAX_COUNTS = 30  # lines of one stage; small counts beyond them are added up


@dataclass(frozen=True)
class Count:
    """A line of a funnel of counts; `share` is relative to the funnel's largest count."""

    name: str
    number: int
    share: float


def read_funnels(paths: Sequence[Path]) -> dict[str, list[Count]]:
    """Return the counts of each file that exists, by the file's stem."""
    return {path.stem: read_counts(path) for path in paths if path.is_file()}


def read_counts(path: Path) -> list[Count]:
    """Return the counts in a JSON file that are not 0, with nested names joined; raises UserError for invalid JSON."""
    try:
        found = dict(_leaves(json.loads(path.read_text())))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    counted = _largest({name.replace("_", " "): number for name, number in found.items() if number})
    largest = max(counted.values(), default=1)
    return [Count(name, number, number / largest) for name, number in counted.items()]


def _largest(counts: dict[str, int]) -> dict[str, int]:
    """Keep the largest counts in their order, and add up the others."""
    if len(counts) <= MAX_COUNTS:
        return counts
    kept = sorted(counts, key=lambda name: -counts[name])[: MAX_COUNTS - 1]
    others = {name: number for name, number in counts.items() if name not in kept}
    return {n: c for n, c in counts.items() if n in kept} | {f"{len(others)} smaller counts": sum(others.values())}


def _leaves(value: object, name: str = "") -> list[tuple[str, int]]:
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in _leaves(v, f"{name}: {k}" if name else str(k))]
    if isinstance(value, int) and not isinstance(value, bool) and not name.endswith("_bytes"):
        return [(name, value)]
    return []
