"""Checks of the files that a command will write: before the work, not after it."""

import os
from pathlib import Path

from pbe.errors import UserError

LONGEST_NAME_BYTES = 240  # file systems allow 255, and a temporary name is longer


def check_image_file(option: str, out: Path) -> None:
    """Raise UserError unless `out` names an image file that can be written; a link or a read-only file is kept."""
    from pbe.serving.pictures import FORMATS

    if len(os.fsencode(out.name)) > LONGEST_NAME_BYTES:
        raise UserError(f"{option}: the name of {len(os.fsencode(out.name))} bytes is too long; use a shorter one")
    if out.is_symlink():
        raise UserError(f"{option} {out}: is a link, which would be replaced; name the file {out.resolve()} itself")
    if out.is_dir():
        raise UserError(f"{option} {out}: is a folder; name a file in it, such as {out / 'result.png'}")
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"{option} {out}: name it .png; {', '.join(FORMATS)} can be written")
    if out.exists() and not (out.is_file() and out.stat().st_mode & 0o222 and os.access(out, os.W_OK)):
        raise UserError(f"{option} {out}: is read-only; remove it, or name another file")
    check_folder_of(out, option)


def check_folder_of(out: Path, option: str = "--out") -> None:
    """Raise UserError unless the folder of `out` exists and can be written to."""
    if not out.parent.is_dir():
        raise UserError(f"{option} {out}: there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"{option} {out}: no permission to write to the folder {out.parent}")


def check_new(out: Path) -> None:
    """Raise UserError when `out` exists, or its folder cannot be written to."""
    check_folder_of(out)
    if out.exists() or out.is_symlink():
        raise UserError(f"--out {out}: already exists; name another, or remove it")
