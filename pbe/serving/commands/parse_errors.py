"""One line for each mistake on the command line, in the words that Python's own programs use."""

from collections.abc import Sequence
from difflib import get_close_matches

from cyclopts import (
    App,
    Argument,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)


def reason(error: CycloptsError, argv: Sequence[str]) -> str:
    """Return what is wrong with the command line `argv`."""
    if isinstance(error, MissingArgumentError):
        return _missing(error, argv)
    if isinstance(error, CoercionError):
        return _invalid_value(error)
    if isinstance(error, UnknownOptionError):
        return _unknown_flag(error, argv)
    if isinstance(error, UnknownCommandError):
        return _unknown_command(error)
    if isinstance(error, UnusedCliTokensError):
        return f"unrecognized arguments: {' '.join(error.unused_tokens or [])}"
    return str(error)


def commands_of(app: App) -> list[str]:
    """Return the names of an app's commands."""
    return [name for name in app if not name.startswith("-")]


def _missing(error: MissingArgumentError, argv: Sequence[str]) -> str:
    given = {word.partition("=")[0] for word in argv}
    if error.argument and given.intersection(error.argument.names):
        return f"argument {error.argument.name}: expected one argument"
    assert error.app is not None
    assert error.argument is not None
    required = [each for each in error.app.assemble_argument_collection() if each.required and not each.children]
    places = () if error.argument.name.startswith("-") else (error.argument.name,)  # the first that is missing
    names = [name for each in required if (name := each.name) in places or _is_missing_flag(each, given)]
    return f"the following arguments are required: {', '.join(names)}"


def _is_missing_flag(argument: Argument, given: set[str]) -> bool:
    return argument.name.startswith("-") and not given.intersection(argument.names)


def _invalid_value(error: CoercionError) -> str:
    name = error.argument.name if error.argument else ""
    value = error.token.value if error.token else ""
    if error.msg is not None:
        return f"argument {name}: {error.msg}"
    if choices := error.argument and _choices(error.argument):
        return f"argument {name}: invalid choice: {value!r} (choose from {', '.join(map(repr, choices))})"
    kind = getattr(error.target_type, "__name__", "")
    return f"argument {name}: invalid {kind} value: {value!r}"


def _choices(argument: Argument) -> tuple[str, ...]:
    return tuple(argument.get_choices() or ())


def _unknown_flag(error: UnknownOptionError, argv: Sequence[str]) -> str:
    flag = error.token.keyword or error.token.value
    word = next((word for word in argv if word.partition("=")[0] == flag), flag)
    known = [name for each in error.argument_collection if each.parse for name in each.names]
    close = get_close_matches(flag, known, n=1, cutoff=0.7)
    return f"unrecognized arguments: {word}" + (f"; did you mean {close[0]}?" if close else "")


def _unknown_command(error: UnknownCommandError) -> str:
    assert error.app is not None
    assert error.unused_tokens is not None
    names = ", ".join(map(repr, commands_of(error.app)))
    return f"argument COMMAND: invalid choice: {error.unused_tokens[0]!r} (choose from {names})"
