"""Where a run's checkpoints, journal and pictures live: a folder that every node sees, or a bucket.

With a bucket the workers write to a scratch folder of their node, and each whole file follows to the bucket; what is
gone on from is what the bucket holds, so that any node may be lost. The driver keeps a copy of all but the checkpoints.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

from pyarrow import fs

from pbe.errors import UserError
from pbe.training.checkpoints import (
    CHECKSUM,
    STATE,
    find_newest,
    is_whole,
    list_checkpoints,
    remove_leftovers,
    save_checkpoint,
)

log = logging.getLogger(__name__)


class Bucket:
    """A prefix of an object store, `s3://bucket/prefix`; objects appear whole or not at all.

    Credentials, region and endpoint are the machine's own, as AWS's tools take them (AWS_ENDPOINT_URL and so on).
    Raises UserError for an address that cannot be understood.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        try:
            self._fs, self._root = fs.FileSystem.from_uri(self.address)
        except (ValueError, OSError) as error:
            raise UserError(f"train.storage: {address}: {error}") from error

    def put(self, path: Path, name: str) -> None:
        with path.open("rb") as source, self._fs.open_output_stream(f"{self._root}/{name}") as target:
            shutil.copyfileobj(source, target, 1 << 22)

    def get(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        with self._fs.open_input_stream(f"{self._root}/{name}") as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 22)
        part.replace(path)

    def put_folder(self, folder: Path, name: str) -> None:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            self.put(path, f"{name}/{path.relative_to(folder).as_posix()}")

    def get_folder(self, name: str, folder: Path) -> None:
        for key in self.names(name, recursive=True):
            self.get(key, folder / Path(key).relative_to(name))

    def names(self, prefix: str = "", recursive: bool = False) -> dict[str, tuple[int, int]]:
        """The objects below a prefix: name => (size in bytes, time changed in ns)."""
        at = f"{self._root}/{prefix}" if prefix else self._root
        found = self._fs.get_file_info(fs.FileSelector(at, allow_not_found=True, recursive=recursive))
        return {
            info.path.removeprefix(self._root).lstrip("/"): (info.size, info.mtime_ns)
            for info in sorted(found, key=lambda info: str(info.path))
            if info.type == fs.FileType.File
        }

    def checkpoints(self) -> list[str]:
        """The names of the checkpoints that are there with their checksum, which is put last; the oldest first."""
        ends = [Path(name) for name in self.names(recursive=True) if name.endswith("/" + CHECKSUM)]
        return sorted(end.parent.name for end in ends if len(end.parts) == 2 and end.parent.name.startswith("step-"))

    def put_checkpoint(self, checkpoint: Path, keep: int) -> None:
        """Put a checkpoint, its checksum last, then remove all but the newest `keep`."""
        self.put(checkpoint / STATE, f"{checkpoint.name}/{STATE}")
        self.put(checkpoint / CHECKSUM, f"{checkpoint.name}/{CHECKSUM}")
        for old in self.checkpoints()[:-keep]:
            self._fs.delete_file(f"{self._root}/{old}/{CHECKSUM}")
            self._fs.delete_file(f"{self._root}/{old}/{STATE}")

    def get_checkpoint(self, name: str, folder: Path) -> Path:
        for part in (STATE, CHECKSUM):
            self.get(f"{name}/{part}", folder / name / part)
        return folder / name


class RunStorage:
    """One run's storage as a worker uses it: `folder`, and `bucket` where the folder is this node's alone."""

    def __init__(self, folder: Path, bucket: Bucket | None = None) -> None:
        self.folder, self.bucket = folder, bucket
        folder.mkdir(parents=True, exist_ok=True)

    def newest(self) -> str | None:
        """The name of the newest undamaged checkpoint; for the first worker, as it removes what killed writers left."""
        remove_leftovers(self.folder)
        if self.bucket is None:
            found = find_newest(self.folder)
            return found.name if found else None
        for name in reversed(self.bucket.checkpoints()):
            if is_whole(self.bring(name)):
                return name
            log.warning("%s/%s: damaged; the checkpoint before it is used", self.bucket.address, name)
        return None

    def bring(self, name: str) -> Path:
        """The checkpoint of that name, on this node."""
        here = self.folder / name
        if self.bucket is None or is_whole(here):
            return here
        return self.bucket.get_checkpoint(name, self.folder)

    def save(self, step: int, state: dict[str, Any], keep: int) -> None:
        """Save a checkpoint; all but the newest `keep` are removed."""
        checkpoint = save_checkpoint(self.folder, step, state, keep)
        if self.bucket:
            self.bucket.put_checkpoint(checkpoint, keep)

    def share(self, path: Path) -> None:
        """Let the driver see a file of the run's folder."""
        if self.bucket:
            self.bucket.put(path, path.name)

    def forget(self) -> None:
        """Remove this node's copies of what the bucket holds."""
        if self.bucket:
            for checkpoint in list_checkpoints(self.folder):
                shutil.rmtree(checkpoint)
