"""Tables of text: columns of equal width, for people."""

from collections.abc import Sequence


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """Return the rows below the names of their columns; those in `right` are aligned to the right."""
    lines = [list(columns), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    justify = [str.rjust if name in right else str.ljust for name in columns]
    aligned = ([pad(cell, width) for cell, pad, width in zip(line, justify, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in aligned)
