"""Files that a stage needs no longer: what took long to make is moved aside and not removed, and either is said."""

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

EXPENSIVE_S = 600.0


def aside_of(folder: Path) -> Path:
    """Return the folder beside `folder` for what is moved out of it."""
    return folder.with_name(f"{folder.name}.aside")


def discard(files: Mapping[Path, Path], what: str, *, started: Path | None = None) -> None:
    """Remove files, or move each to its place among the values when they took more than EXPENSIVE_S to make.

    The time is that between the oldest and the newest file; `started` is a file that was written before them. DVC's
    checkout writes all files within seconds, so that a folder that is also in its cache counts as quickly made. `what`
    says which files these are, in the line that is printed to stderr.
    """
    if not files:
        return
    seconds = seconds_to_make([*files, *([started] if started else [])])
    if seconds <= EXPENSIVE_S:
        for file in files:
            file.unlink()
        print(f"{what}: removed {len(files)} files", file=sys.stderr, flush=True)
        return
    for file, place in files.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, place)
    folder = os.path.commonpath([place.parent for place in files.values()])
    print(
        f"{what}: moved {len(files)} files, which took {duration(seconds)} to make, to {folder}; "
        f"to delete them: rm -r {folder}",
        file=sys.stderr,
        flush=True,
    )


def seconds_to_make(files: Iterable[Path]) -> float:
    """Return the time between the modification of the oldest file and that of the newest."""
    times = [file.stat().st_mtime for file in files]
    return max(times) - min(times)


def duration(seconds: float) -> str:
    """Return a duration in minutes, hours or days, such as `3.5 h`."""
    for unit, length in (("days", 86400.0), ("h", 3600.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 60:.0f} min"
