"""Example photographs. In a checkout their folders are links into docs/examples, and a wheel carries the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "example-pictures"
NAMES = ("can", "pliers", "label")


@dataclass(frozen=True)
class Example:
    """The files of an edit to try."""

    name: str
    source: Path
    mask: Path
    exemplar: Path


def find_examples(folder: Path = FOLDER, names: Sequence[str] = NAMES) -> dict[str, Example]:
    """Return the examples of a folder whose files are all there, by name."""
    found = {}
    for name in names:
        example = Example(
            name, folder / name / "source.jpg", folder / name / "mask.png", folder / name / "exemplar.png"
        )  # fmt: skip
        if all(file.is_file() for file in (example.source, example.mask, example.exemplar)):
            found[name] = example
    return found
