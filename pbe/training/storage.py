"""The storage of a run's checkpoints, journal and pictures: a folder that every node sees, or a bucket.

With a bucket, the workers write to a scratch folder of their node and then upload each complete file. A run resumes
from what the bucket holds, so that any node may be lost. The driver keeps a copy of everything but the checkpoints.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import fs

from pbe.errors import UnavailableError, UserError, disk_error, one_line
from pbe.runtime.files import atomic_file
from pbe.training.checkpoints import (
    CHECKSUM,
    STATE,
    find_newest,
    is_complete,
    list_checkpoints,
    remove_leftovers,
    save_checkpoint,
)

logger = logging.getLogger(__name__)

_COPY_BYTES = 1 << 22


class Bucket:
    """A prefix of an object store, `s3://bucket/prefix`. Objects appear complete or not at all.

    Credentials, region and endpoint come from the environment, as for AWS's tools (AWS_ENDPOINT_URL and so on). Raises
    UserError for an address that pyarrow does not understand, UnavailableError when the store answers with an error.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        try:
            self._fs, self._root = fs.FileSystem.from_uri(self.address)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise UserError(f"train.storage: {address}: {one_line(error)}") from error

    def put(self, path: Path, name: str) -> None:
        """Upload a file as the object `name`."""
        with (
            path.open("rb") as source,
            self._store_errors(),
            self._fs.open_output_stream(f"{self._root}/{name}") as target,
        ):
            shutil.copyfileobj(source, target, _COPY_BYTES)

    def get(self, name: str, path: Path) -> None:
        """Download the object `name` to a file, atomically."""
        with (
            atomic_file(path) as part,
            part.open("wb") as target,
            self._store_errors(),
            self._fs.open_input_stream(f"{self._root}/{name}") as source,
        ):
            shutil.copyfileobj(source, target, _COPY_BYTES)

    def put_folder(self, folder: Path, name: str) -> None:
        """Upload all files below a folder."""
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            self.put(path, f"{name}/{path.relative_to(folder).as_posix()}")

    def get_folder(self, name: str, folder: Path) -> None:
        """Download all objects below the prefix `name`."""
        for key in self.list_objects(name, recursive=True):
            self.get(key, folder / Path(key).relative_to(name))

    def list_objects(self, prefix: str = "", recursive: bool = False) -> dict[str, tuple[int, int]]:
        """Return the objects below a prefix: name => (size in bytes, time of the last change in ns)."""
        below = f"{self._root}/{prefix}" if prefix else self._root
        with self._store_errors():
            found = self._fs.get_file_info(fs.FileSelector(below, allow_not_found=True, recursive=recursive))
        return {
            info.path.removeprefix(self._root).lstrip("/"): (info.size, info.mtime_ns)
            for info in sorted(found, key=lambda info: str(info.path))
            if info.type == fs.FileType.File
        }

    def checkpoints(self) -> list[str]:
        """Return the names of the checkpoints, the oldest first: those with a checksum, which is uploaded last."""
        checksums = [Path(name) for name in self.list_objects(recursive=True) if name.endswith("/" + CHECKSUM)]
        return sorted(
            path.parent.name for path in checksums if len(path.parts) == 2 and path.parent.name.startswith("step-")
        )

    def put_checkpoint(self, checkpoint: Path, keep: int) -> None:
        """Upload a checkpoint, its checksum last, then remove all but the newest `keep`."""
        self.put(checkpoint / STATE, f"{checkpoint.name}/{STATE}")
        self.put(checkpoint / CHECKSUM, f"{checkpoint.name}/{CHECKSUM}")
        for old in self.checkpoints()[:-keep]:
            with self._store_errors():
                self._fs.delete_file(f"{self._root}/{old}/{CHECKSUM}")
                self._fs.delete_file(f"{self._root}/{old}/{STATE}")

    def get_checkpoint(self, name: str, folder: Path) -> Path:
        """Download a checkpoint into a folder; return its path."""
        for part in (STATE, CHECKSUM):
            self.get(f"{name}/{part}", folder / name / part)
        return folder / name

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise disk_error(error) or UnavailableError(f"train.storage: {self.address}: {one_line(error)}") from error


class RunStorage:
    """The storage of one run as a worker uses it: a folder, and a bucket if the folder is only this node's."""

    def __init__(self, folder: Path, bucket: Bucket | None = None) -> None:
        self.folder, self.bucket = folder, bucket
        folder.mkdir(parents=True, exist_ok=True)

    def newest(self) -> str | None:
        """Return the name of the newest checkpoint that is not damaged.

        Only the first worker may call it: it removes what killed writers left.
        """
        remove_leftovers(self.folder)
        if self.bucket is None:
            found = find_newest(self.folder)
            return found.name if found else None
        for name in reversed(self.bucket.checkpoints()):
            if is_complete(self.fetch(name)):
                return name
            logger.warning("%s/%s: damaged; using the checkpoint before it", self.bucket.address, name)
        return None

    def fetch(self, name: str) -> Path:
        """Return the path of a checkpoint on this node; download it from the bucket if needed."""
        local = self.folder / name
        if self.bucket is None or is_complete(local):
            return local
        return self.bucket.get_checkpoint(name, self.folder)

    def save(self, step: int, state: dict[str, Any], keep: int) -> None:
        """Save a checkpoint, then remove all but the newest `keep`."""
        checkpoint = save_checkpoint(self.folder, step, state, keep)
        if self.bucket:
            self.bucket.put_checkpoint(checkpoint, keep)

    def publish(self, path: Path) -> None:
        """Make a file of the run's folder visible to the driver."""
        if self.bucket:
            self.bucket.put(path, path.name)

    def remove_local_copies(self) -> None:
        """Remove this node's copies of the checkpoints in the bucket."""
        if self.bucket:
            for checkpoint in list_checkpoints(self.folder):
                shutil.rmtree(checkpoint)
