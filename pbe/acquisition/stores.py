"""Where objects are read from: a folder, files, an S3 bucket or an HTTP server, behind one interface.

`fetch` copies one object to a file and `read` returns it. With the MD5 of a copy that exists already, both transfer the
object only if it differs. An object that cannot be read raises `LostError` with an outcome that is counted. The stores
of buckets and HTTP servers are in `pbe.acquisition.remote_stores`.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

MAX_READ_BYTES = 1 << 26

_BLOCK_BYTES = 1 << 18


class Fetched(NamedTuple):
    """A complete object; `unchanged` says that it has the known MD5, so that nothing was transferred or written."""

    num_bytes: int
    md5: str
    unchanged: bool = False


class LostError(Exception):
    """An object that cannot be read; `outcome` is "missing", "denied", "corrupt", "refused" or "failed"."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


class Store(Protocol):
    """A source of objects. Any number of threads may use it at the same time."""

    def fetch(self, key: str, target: Path, known_md5: str | None = None) -> Fetched:
        """Write the object to `target` unless its MD5 is `known_md5`; raises LostError when it cannot be read."""
        ...

    def read(self, key: str, known_md5: str | None = None) -> tuple[Fetched, bytes | None]:
        """Return the object, None if its MD5 is `known_md5`; raises LostError as `fetch`, and when it exceeds 64 MB."""
        ...

    def locate(self, key: str) -> str:
        """Return the object's full address, for messages."""
        ...


def hash_file(path: Path) -> tuple[int, str]:
    """Return a file's length in bytes and its MD5, reading it in blocks."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        return file.tell(), digest.hexdigest()


class FolderStore:
    """Files below `root`. They are copied, because a later write through a link would change the original."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path_of(self, key: str) -> Path:
        return self.root / key

    def portable(self, keys: Sequence[str]) -> "FolderStore | None":
        """Return a store of these objects that another process can use, None when there is none."""
        return self

    def locate(self, key: str) -> str:
        return str(self.path_of(key))

    def fetch(self, key: str, target: Path, known_md5: str | None = None) -> Fetched:
        with self._readable(key) as source:
            if known_md5 is not None:
                num_bytes, md5 = hash_file(source)
                if md5 == known_md5:
                    return Fetched(num_bytes, md5, unchanged=True)
            digest = hashlib.md5(usedforsecurity=False)
            with source.open("rb") as file, target.open("wb") as copy:
                while block := file.read(_BLOCK_BYTES):
                    copy.write(block)
                    digest.update(block)
                return Fetched(file.tell(), digest.hexdigest())

    def read(self, key: str, known_md5: str | None = None) -> tuple[Fetched, bytes | None]:
        with self._readable(key) as source:
            if source.stat().st_size > MAX_READ_BYTES:
                raise LostError("failed", f"{source}: larger than {MAX_READ_BYTES} bytes")
            return compare_md5(source.read_bytes(), known_md5)

    @contextmanager
    def _readable(self, key: str) -> Iterator[Path]:
        source = self.path_of(key)
        try:
            yield source
        except (FileNotFoundError, NotADirectoryError):
            raise LostError("missing", f"{source}: no such file") from None
        except PermissionError:
            raise LostError("denied", f"{source}: permission denied") from None


class FileStore(FolderStore):
    """Files anywhere, each under its own key; for an object inside another file, a function that reads it."""

    def __init__(self, files: Mapping[str, Path | Callable[[], bytes]]) -> None:
        self.files = files

    def path_of(self, key: str) -> Path:
        found = self.files[key]
        return found if isinstance(found, Path) else Path(key)

    def portable(self, keys: Sequence[str]) -> FolderStore | None:
        files = {key: self.files[key] for key in keys}
        return FileStore(files) if all(isinstance(found, Path) for found in files.values()) else None

    def fetch(self, key: str, target: Path, known_md5: str | None = None) -> Fetched:
        if isinstance(self.files[key], Path):
            return super().fetch(key, target, known_md5)
        fetched, content = self.read(key, known_md5)
        if content is not None:
            target.write_bytes(content)
        return fetched

    def read(self, key: str, known_md5: str | None = None) -> tuple[Fetched, bytes | None]:
        read = self.files[key]
        return super().read(key, known_md5) if isinstance(read, Path) else compare_md5(read(), known_md5)


def compare_md5(content: bytes, known_md5: str | None) -> tuple[Fetched, bytes | None]:
    """Return what `Store.read` returns for an object with this content."""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return (Fetched(len(content), md5, True), None) if md5 == known_md5 else (Fetched(len(content), md5), content)
