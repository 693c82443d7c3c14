"""Notes of the `pbe` commands: what the user should know, on stderr."""

import sys
from collections.abc import Iterable


def print_notes(notes: Iterable[str]) -> None:
    """Print notes on stderr, one a line."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
