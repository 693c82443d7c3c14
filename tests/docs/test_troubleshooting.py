"""docs/troubleshooting.md quotes error lines that the code really prints."""

import ast
from collections.abc import Iterator

import pytest
from markdown_it import MarkdownIt

from tests.support.doc_blocks import ROOT

PAGE = ROOT / "docs/troubleshooting.md"
VALUE = "…"


def quoted() -> list[str]:
    """Return the code in the first cell of each row."""
    tokens = MarkdownIt("commonmark").enable("table").parse(PAGE.read_text())
    starts = [place for place, token in enumerate(tokens) if token.type == "tr_open"]
    cells = [tokens[place + 2] for place in starts if tokens[place + 1].type == "td_open"]
    return [each.content for cell in cells for each in (cell.children or ())[:1] if each.type == "code_inline"]


def messages() -> Iterator[list[str]]:
    """Yield every text of the code, without docstrings, divided at its values."""
    for path in [*(ROOT / "pbe").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(each.value) if isinstance(each, ast.Constant) else VALUE for each in node.values)
                yield text.split(VALUE)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield [node.value]
    for script in (ROOT / "flows").glob("*.sh"):
        yield [script.read_text()]


def contains(text: str, parts: list[str]) -> bool:
    """Return whether the parts occur in the text, in order."""
    place = 0
    for part in parts:
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True


MESSAGES = [parts for parts in messages() if len("".join(parts)) > 12 and " " in "".join(parts)]
TEXTS = [VALUE.join(parts) for parts in MESSAGES]


@pytest.mark.parametrize("line", quoted())
def test_the_code_prints_the_line(line: str) -> None:
    parts = line.split(VALUE)
    # the line may be a part of a message, or name one of its values
    assert any(contains(text, parts) for text in TEXTS) or any(contains(line, each) for each in MESSAGES)


def test_there_are_lines() -> None:
    assert len(quoted()) > 60
