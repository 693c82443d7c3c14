"""The errors that a user can correct, and how every error becomes one line.

Only `UserError` ends in one line and exit code 2. Any other exception is a bug: it keeps its traceback, and the process
exits with 1. Code that calls a library with a user's file or value catches that library's error there, and raises
`UserError` with the name of the file or key.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space and run the command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the command again",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EFBIG: "the file system cannot hold a file of this size",
}


class UserError(ValueError):
    """An error in a file, a parameter or an argument. The message names it and says what to do."""


class UnavailableError(UserError):
    """A server, a network or a disk failed; the same command may succeed later, so a scheduled run retries it."""


def one_line(error: BaseException) -> str:
    """Return an error's message on one line; a file error as `file: reason`."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return " ".join(str(error).split()) or type(error).__name__


def disk_error(error: OSError, default_path: object = "") -> UserError | None:
    """Return a `UserError` for a full, read-only or protected disk, and None for any other `OSError`.

    These come from the user's machine, whichever library meets them. `default_path` is named where the error names no
    file.
    """
    reason = _DISK_ERRORS.get(error.errno or 0)
    path = error.filename or default_path
    return UserError(f"{path}: {reason}" if path else reason) if reason else None


@contextmanager
def disk_errors_reported(default_path: object = "") -> Iterator[None]:
    """Raise `disk_error` in place of an `OSError` that it converts; any other exception passes."""
    try:
        yield
    except OSError as error:
        if (user_error := disk_error(error, default_path)) is None:
            raise
        raise user_error from None
