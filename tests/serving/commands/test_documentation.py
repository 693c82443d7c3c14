"""Every example of the help is accepted by `pbe`, and every command has one; tests/docs reads the documentation."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from pbe.serving.commands.main import build_app, main

ROOT = Path(__file__).parents[3]


def commands(app: App) -> Iterator[tuple[list[str], App]]:
    """Yield every command that runs, with its words after `pbe`."""
    for name in app:
        if name.startswith("-"):
            continue
        if app[name].default_command is None:
            yield from (([name, *words], found) for words, found in commands(app[name]))
        else:
            yield [name], app[name]


def examples(text: str) -> list[list[str]]:
    """Return the words of each command line `pbe ...`; a backslash continues a line."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("pbe ")]


def accepts(words: list[str]) -> bool:
    command, _, _ = build_app().parse_args(words, exit_on_error=False, print_error=False)
    return command is not None


COMMANDS = list(commands(build_app()))


@pytest.mark.parametrize(("words", "app"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS])
def test_the_help_of_a_command_has_an_example_that_it_accepts(
    words: list[str], app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [example for example in examples(app.help_epilogue or "") if example[: len(words)] == words]
    assert found
    assert all(accepts(example) for example in found)
    assert main([*words, "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"pbe {' '.join(words)}" in printed
    assert all(len(line) <= 80 for line in printed.splitlines())


def test_every_command_is_described() -> None:
    described = examples((ROOT / "docs/cli.md").read_text())
    for words, _ in COMMANDS:
        assert any(example[: len(words)] == words for example in described), words
