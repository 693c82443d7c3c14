"""The code blocks of README.md and docs/, and the commands in them.

A comment before a block says how it is covered: `<!-- not run: REASON -->` excuses it, and its commands of this project
are still parsed; `<!-- run by: tests/... -->` names the test that runs it, and `<!-- all run by: tests/... -->` that of
all blocks of the page. Every other block is run, parsed or validated by tests/docs.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
SHELL = ("bash", "console")
_NOTE = re.compile(r"<!--\s*(not run|run by):\s*(.+?)\s*-->", re.DOTALL)
_PAGE_NOTE = re.compile(r"<!--\s*all run by:\s*(\S+)\s*-->")
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
_SEPARATORS = (";", "&&", "||", "|", "&")
_ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=")


@dataclass(frozen=True)
class Block:
    """A code block of a page, the language that it names, and the note before it."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str = ""
    run_by: str = ""
    of_page: bool = False  # whether the note is that of the whole page

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[list[str]]:
        """Return the words of each command of a shell block."""
        return list(_commands(self.text if self.language == "bash" else _after_prompts(self.text)))


def pages() -> list[Path]:
    """Return README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page; an indented one has the language "indented"."""
    found = []
    text = page.read_text()
    of_page = _PAGE_NOTE.search(text)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type in ("fence", "code_block"):
            note = _NOTE.search(before.content) if before is not None and before.type == "html_block" else None
            assert token.map is not None
            language = token.info.strip() if token.type == "fence" else "indented"
            block = Block(page, token.map[0] + 1, language, token.content)
            if note and note[1] == "not run":
                block = replace(block, not_run=" ".join(note[2].split()))
            elif note or of_page:
                test = note[2].split()[0] if note else of_page[1] if of_page else ""
                block = replace(block, run_by=test.rstrip(",;"), of_page=not note)
            found.append(block)
    return found


def _after_prompts(text: str) -> str:
    """Return the lines after a `$`, without the output between them."""
    return "\n".join(line[2:] for line in text.replace("\\\n", " ").splitlines() if line.startswith("$ "))


def _commands(text: str) -> Iterator[list[str]]:
    lines = iter(text.replace("\\\n", " ").splitlines())
    for line in lines:
        if heredoc := _HEREDOC.search(line):
            for inner in lines:
                if inner.strip() == heredoc[2]:
                    break
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        yield from _divided(list(lexer))


def _divided(words: list[str]) -> Iterator[list[str]]:
    """Yield the commands of a line, without variables that are set before them and without redirections."""
    command: list[str] = []
    for word in [*words, ";"]:
        if word in _SEPARATORS:
            if command:
                yield _without_redirection(command)
            command = []
        elif command or not _ASSIGNMENT.match(word):
            command.append(word)


def _without_redirection(command: list[str]) -> list[str]:
    places = [place for place, word in enumerate(command) if re.match(r"\d?(>|<)", word)]
    return command[: places[0]] if places else command
