"""The libraries of the pipeline: one line says how to install them, where a person installed only what paints."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

NEEDED = ("dvc", "prefect", "psutil", "ray")  # one for each kind; the extra has them all


def exit_without_libraries(needed: Sequence[str] = NEEDED) -> None:
    """Exit with code 2 and one line of stderr when one of these modules is not installed."""
    missing = next((name for name in needed if find_spec(name) is None), None)
    if missing is not None:
        print(
            f'error: the pipeline needs {missing}, which is not installed: pip install "paint-by-example[train]"',
            file=sys.stderr,
        )
        raise SystemExit(2)
