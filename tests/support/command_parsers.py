"""Commands of the documentation, parsed by the programs' own parsers, without running anything."""

import argparse
import importlib
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from pbe.serving.commands.main import build_app
from tests.support.doc_blocks import ROOT

HARMLESS = ("cd", "cp", "echo", "export", "git", "ls", "mkdir", "source")  # of the shell, and no other project's flags


class Parsed(BaseException):
    """Ends a program as soon as its arguments are parsed."""


def check(command: Sequence[str]) -> None:
    """Fail unless the command's program accepts its words; raise LookupError for a program without a parser."""
    program, words = Path(command[0]).name, list(command[1:])
    if program in HARMLESS:
        return
    PARSERS[program](words)


def is_ours(command: Sequence[str]) -> bool:
    """Return whether `check` knows the program."""
    program = Path(command[0]).name
    if program == "python" or program == "python3":
        return len(command) > 1 and (command[1] == "-m" or command[1].endswith(".py"))
    return program in HARMLESS or program in PARSERS


def parse_pbe(words: list[str]) -> None:
    command, _, _ = build_app().parse_args(words, exit_on_error=False, print_error=False)
    assert getattr(command, "__name__", "") != "help_print" or "--help" in words, f"{words}: the command is missing"


def parse_make(words: list[str]) -> None:
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def parse_python(words: list[str]) -> None:
    """Parse the arguments of a module or script of this project that uses argparse; a stage takes none."""
    module = words[1] if words[0] == "-m" else ""
    arguments = words[2:] if module else words[1:]
    if module and not module.startswith(("flows", "pbe", "benchmarks")):
        return
    place = ROOT.joinpath(*module.split(".")) if module else ROOT / words[0]
    files = list(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert all(file.is_file() for file in files), place
    if not any("argparse" in file.read_text() for file in files):
        assert not arguments, f"{place}: takes no arguments"
        return
    _parse_script(module, place, arguments)


def _parse_script(module: str, place: Path, arguments: list[str]) -> None:
    def stop(self: argparse.ArgumentParser, args: Sequence[str] | None = None, namespace: object = None) -> None:
        raise Parsed(parse_args(self, list(args if args is not None else arguments), namespace))

    parse_args = argparse.ArgumentParser.parse_args
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", [str(place), *arguments])
        patch.syspath_prepend(place.parent)
        with pytest.raises(Parsed):
            runpy.run_module(module, run_name="__main__") if module else runpy.run_path(str(place), run_name="__main__")


def parse_dvc(words: list[str]) -> None:
    """Parse with DVC's own parser; stages and parameters must exist."""
    from dvc.cli import parse_args

    options = parse_args(words)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for target in getattr(options, "targets", None) or ():
        assert target in (*stages, "dvc.yaml"), f"no stage {target}"
    for change in getattr(options, "set_param", None) or ():
        _look_up(change.partition("=")[0])


def _look_up(key: str) -> None:
    value = yaml.safe_load((ROOT / "params.yaml").read_text())
    for part in key.split("."):
        assert part in value, f"params.yaml has no {key}"
        value = value[part]


def parse_click(group: str) -> Callable[[list[str]], None]:
    """Return a parser of the words of a program that is built with click: `module:name` is its group of commands."""

    def parse(words: list[str]) -> None:
        import click

        module, _, name = group.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        context: click.Context | None = None
        while True:
            context = command.make_context(command.name, words, parent=context)
            if not isinstance(command, click.Group):
                return
            words = [*context._protected_args, *context.args]
            _, found, words = command.resolve_command(context, words)
            assert found is not None
            command = found

    return parse


def parse_pip(words: list[str]) -> None:
    """Check that the extras of this package exist."""
    from importlib import metadata

    from packaging.requirements import Requirement

    named = [f"paint-by-example{word[1:]}" if word.startswith(".[") else word for word in words]
    own = [Requirement(word) for word in named if word.startswith("paint-by-example")]
    extras = {extra for each in own for extra in each.extras}
    known = set(metadata.metadata("paint-by-example").get_all("Provides-Extra") or ())
    assert extras <= known, f"no extra {extras - known}"


PARSERS: dict[str, Callable[[list[str]], None]] = {
    "dvc": parse_dvc,
    "make": parse_make,
    "pbe": parse_pbe,
    "pip": parse_pip,
    "python": parse_python,
    "python3": parse_python,
    "ray": parse_click("ray.scripts.scripts:cli"),
    "serve": parse_click("ray.serve.scripts:cli"),
}
