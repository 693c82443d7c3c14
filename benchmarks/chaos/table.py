"""The table of the cases: a row for each, printed while the suite runs and written to docs/chaos.md."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from pbe.runtime.files import write_text

PAGE = Path(__file__).parents[2] / "docs/chaos.md"
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
HEAD = (
    "| seed | case | moment | what happened | seconds until completed | same bits | left running |\n"
    "|---:|---|---|---|---:|---|---|"
)
NOT_POSSIBLE = "not possible here"
MAX_CHARACTERS = 150


@dataclass
class Row:
    """What a case did; `faults` is empty when it ended as it should."""

    case: str
    moment: str = ""
    happened: str = ""
    seconds: float | None = None
    same_bits: bool | None = None
    left: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def is_possible(self) -> bool:
        """Return whether the case could be tried here."""
        return self.happened != NOT_POSSIBLE

    def cells(self) -> list[str]:
        """Return the row's cells, without the seed."""
        same = {True: "yes", False: "**no**", None: ""}[self.same_bits]
        seconds = "" if self.seconds is None else f"{self.seconds:.0f}"
        happened = "; ".join([shortened(self.happened), *(f"**{shortened(fault)}**" for fault in self.faults)])
        left = ", ".join(self.left) or ("none" if self.is_possible else "")
        return [self.case, self.moment, happened, seconds, same, left]


def shortened(text: str) -> str:
    """Return a text on one line that a cell of a table can hold."""
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= MAX_CHARACTERS else f"{line[: MAX_CHARACTERS - 1]}…"


def line(seed: int, row: Row) -> str:
    """Return a row of the Markdown table."""
    return f"| {' | '.join([str(seed), *row.cells()])} |"


def summary(rows: Sequence[Row]) -> str:
    """Return the counts of a run in one sentence."""
    tried = [row for row in rows if row.is_possible]
    failed = sum(bool(row.faults) for row in tried)
    text = f"{len(tried) - failed} of {len(tried)} cases ended as they should"
    impossible = len(rows) - len(tried)
    return text + (f", {impossible} were not possible here" if impossible else "")


def write_rows(page: Path, rows: Sequence[tuple[int, Row]]) -> None:
    """Write rows, each with its seed, to the table between a page's marks; other seeds' rows stay.

    Raises ValueError when the page has not both marks once.
    """
    before, begin, rest = page.read_text().partition(f"{BEGIN}\n")
    table, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"{page}: expected the marks {BEGIN} and {END} once")
    seeds = {seed for seed, _ in rows}
    numbered = [(int(each.split("|")[1]), each) for each in table.splitlines() if re.match(r"\| *\d+ *\|", each)]
    kept = [each for each in numbered if each[0] not in seeds]
    ordered = sorted([*kept, *((seed, line(seed, row)) for seed, row in rows)], key=itemgetter(0))
    write_text(
        page, "".join([before, begin, "\n", HEAD, "\n", *(f"{text}\n" for _, text in ordered), "\n", END, after])
    )
