"""The progress bar of the `pbe` commands, and lines that do not disturb it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pbe.types import Progress


@contextmanager
def progress_bar(title: str, total: int | None = None, unit: str = "it") -> Iterator["Progress"]:
    """Show the progress of one loop on stderr if it is a terminal; a `total` shows the bar before the first report."""
    from tqdm import tqdm

    with tqdm(total=total, desc=title, unit=unit, leave=False, disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int, note: str = "") -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def print_line(text: str) -> None:
    """Print a line on stdout; a bar that is shown is drawn again below it."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
