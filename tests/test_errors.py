"""Errors become one line; only a disk's error becomes the user's."""

import errno
import os
from pathlib import Path

import pytest

from pbe.errors import UnavailableError, UserError, disk_error, one_line


def test_a_file_error_names_the_file() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Path("nowhere/x.csv").read_text()
    assert one_line(caught.value) == "nowhere/x.csv: no such file or directory"


def test_a_message_of_several_lines_becomes_one() -> None:
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line(AssertionError()) == "AssertionError"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG])
def test_an_error_of_the_disk_is_the_users_to_correct(code: int) -> None:
    with_name = disk_error(OSError(code, os.strerror(code), "data/raw/x"))
    assert str(with_name).startswith("data/raw/x: ")
    assert str(disk_error(OSError(code, os.strerror(code)), "models")).startswith("models: ")
    assert "None" not in str(disk_error(OSError(code, os.strerror(code))))


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EINVAL, errno.ECONNRESET, errno.EBADF])
def test_any_other_operating_system_error_stays_a_bug(code: int) -> None:
    assert disk_error(OSError(code, os.strerror(code), "x")) is None
    assert disk_error(OSError("no code")) is None


def test_an_unavailable_server_is_a_user_error_and_so_is_no_library_error() -> None:
    assert issubclass(UnavailableError, UserError)
    assert issubclass(UserError, ValueError)
    assert not isinstance(ValueError(), UserError)
