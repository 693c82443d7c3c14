"""`python -m flows.services up|down|status`, which `make up`, `make down` and `make status` run."""

import argparse
import signal
import sys
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import NoReturn

from flows.services.plan import Ports
from pbe.errors import UserError, disk_errors_reported, one_line

USER_ERROR_CODE, INTERRUPTED_CODE = 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with disk_errors_reported():
            return _run(options)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return USER_ERROR_CODE
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED_CODE


def _run(options: argparse.Namespace) -> int:
    folder = Path().resolve()
    if options.command == "up":
        from flows.services.up import up

        given = {name: port for name in _names() if (port := getattr(options, f"{name}_port")) is not None}
        print(up(given, with_fiftyone=options.fiftyone))
        return 0
    if options.command == "down":
        from flows.services.down import down

        print("all services have ended" if down(folder) else "nothing runs")
        return 0
    from flows.services.status import status

    text, code = status(folder)
    print(text)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.services", description="The project's services together.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start them and wait until they answer")
    up.add_argument("--fiftyone", action="store_true", help="FiftyOne's App as well")
    for name in _names():
        usual = getattr(Ports(), name)
        up.add_argument(f"--{name}-port", type=int, metavar="N", help=f"a port of 127.0.0.1; by default {usual}")
    commands.add_parser("down", help="stop the runs and all services")
    commands.add_parser("status", help="say which of them answer: exit code 0 all, 1 not all, 3 nothing runs")
    return parser


def _names() -> list[str]:
    return [field.name for field in fields(Ports)]


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
