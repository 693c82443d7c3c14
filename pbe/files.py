"""Files that are there whole or not at all, and what made them."""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to: renamed to `path` when the block ends, removed when it raises.

    The name keeps the suffix, and is the same each time, so that what a killed writer left is overwritten by the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to write into: it takes `folder`'s place when the block ends, or goes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def digest_code(*parts: str) -> str:
    """A digest of the sources below `pbe/` named by `parts`, folders or files, 32 hex digits.

    What an interrupted run left is gone on with only where the same code made it.
    """
    digest = hashlib.blake2b(digest_size=16)
    root = Path(__file__).parent
    for part in parts:
        sources = [root / part] if part.endswith(".py") else sorted((root / part).rglob("*.py"))
        for source in sources:
            digest.update(f"{source.relative_to(root).as_posix()}\0".encode() + source.read_bytes())
    return digest.hexdigest()


def digest_files(paths: Iterable[Path]) -> str:
    """A digest of the contents of files, in the order given, 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
