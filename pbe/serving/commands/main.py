"""The `pbe` command: edit pictures, manage and serve models, and review the curated data.

An error that the user can correct is one line on stderr, `error: ...`, and exit code 2; any other exception is a bug,
with its traceback and exit code 1. The module of a command is imported when the command runs, and large libraries are
imported where they are used, so that help and such errors come within a fraction of a second. The commands are an edge
of the program: they read the environment, and nothing below does.
"""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from pbe.errors import UserError, disk_errors_reported, one_line
from pbe.serving.commands.extras import missing_extras_reported
from pbe.serving.commands.parse_errors import reason

USER_ERROR_CODE, INTERRUPTED_CODE = 2, 130

_COMMANDS = (
    ("edit", "edit:app", "Paint the object of one picture into the masked part of another."),
    ("batch", "batch:app", "Paint many pictures with one model."),
    ("models", "models:app", "List, compare, promote, roll back and describe registered models."),
    ("serve", "service:serve_app", "Serve models over HTTP, as OpenAI's clients ask for edits."),
    ("app", "service:page_app", "Open a page on which people paint, beside the same service."),
    ("import", "exchange:import_app", "Convert the authors' model.ckpt or published folder to a model folder."),
    ("export", "exchange:export_app", "Convert a model to a format of other tools."),
    ("evaluate", "evaluate:app", "Score results that any tool has painted on a bench."),
    ("reference", "reference:app", "Make the statistics of real images that FID and QS need."),
    ("browse", "curation:browse_app", "Open the curated data in the FiftyOne App."),
    ("verdicts", "curation:verdicts_app", "Collect the reviewers' verdicts on the curated data."),
    ("attributions", "curation:attributions_app", "Write the author and licence of each curated image."),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `pbe` with these arguments, by default the process's, and return its exit code."""
    try:
        with disk_errors_reported():
            words = list(sys.argv[1:] if argv is None else argv)
            with missing_extras_reported(words[0] if words else ""):
                _run(words)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return USER_ERROR_CODE
    except KeyboardInterrupt:
        return INTERRUPTED_CODE
    return 0


def build_app() -> App:
    """Return the command line: its commands, and the flags --help, --version and --install-completion."""
    app = App(
        name="pbe",
        help="Paint by Example: edit pictures by example.",
        help_format="plaintext",
        help_epilogue="pbe COMMAND --help describes the flags of a command and has an example.",
        version=_version,
        default_parameter=Parameter(negative=(), allow_repeating=True),
        suppress_keyboard_interrupt=False,
    )
    for number, (name, place, text) in enumerate(_COMMANDS):
        app.command(f"pbe.serving.commands.{place}", name=name, help=text, sort_key=number)
    app.register_install_completion_command(
        sort_key=len(_COMMANDS), help="Install the completion of commands and flags for your shell."
    )
    return app


def _run(argv: list[str]) -> None:
    app = build_app()
    try:
        command, bound, _ = app.parse_args(argv, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise UserError(reason(error, argv)) from None
    if command == app.help_print and not {"--help", "-h"}.intersection(argv):
        raise UserError(f"the following arguments are required: COMMAND; see: {' '.join(['pbe', *argv])} --help")
    command(*bound.args, **bound.kwargs)


def _version() -> str:
    from importlib.metadata import version

    return version("paint-by-example")


if __name__ == "__main__":
    sys.exit(main())
