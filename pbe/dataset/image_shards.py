"""Images in shards: tar files of some 200 MB each, written sequentially and read by offset.

`{split}-{number:05d}.tar` holds `{image_id}.jpg` in the order of the ids, uncompressed: WebDataset's convention, which
tar itself and many data loaders can read. A header holds only the name and the length, so the same images give the same
bytes. manifest.parquet, and from it boxes.parquet, say where the bytes of each image are: reading one is one `pread`.

The webdataset library is not used: it reads shards sequentially, and this project reads single images by offset.
"""

import io
import os
import tarfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from pbe.dataset.images import decode_image, image_size
from pbe.errors import UserError
from pbe.types import Image

LOCATION = {"shard": str, "offset": int, "num_bytes": int}  # the columns of an `ImageRef`
SUFFIX = ".tar"

_BLOCK_BYTES = 512
_END = bytes(2 * _BLOCK_BYTES)
_OPEN_SHARDS = 64
_COPY_BYTES = 1 << 20


class ImageRef(NamedTuple):
    """The place of an image's bytes; `shard` is the name of a file in data/raw/images."""

    shard: str
    offset: int
    num_bytes: int


class Member(NamedTuple):
    """One image of a shard; `offset` is where its bytes begin, after its header."""

    image_id: str
    offset: int
    num_bytes: int


class ImageShards:
    """The images in a folder of shards; several threads and processes may read them concurrently."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = lru_cache(maxsize=_OPEN_SHARDS)(_Descriptor)

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.folder,)  # each process opens the files itself

    def read_bytes(self, ref: ImageRef) -> bytes:
        """Return an image's bytes as acquired; raises UserError naming the shard when it is missing or too short."""
        path = self.folder / ref.shard
        try:
            opened = self._open(path)  # keeps the descriptor open during the read: the cache may drop it
            content = os.pread(opened.number, ref.num_bytes, ref.offset)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; run the acquire stage again") from None
        if len(content) != ref.num_bytes:
            raise UserError(
                f"{path}: only {len(content)} of {ref.num_bytes} bytes at {ref.offset}; run the acquire stage again"
            )
        return content

    def read_image(self, ref: ImageRef, reduction: int = 1) -> Image:
        """Decode an image as `pbe.dataset.images.read_image` does; its errors name the shard and the offset."""
        return decode_image(self.read_bytes(ref), self._locate(ref), reduction)

    def image_size(self, ref: ImageRef) -> tuple[int, int]:
        """Return the (width, height) of an image, from its header."""
        return image_size(io.BytesIO(self.read_bytes(ref)), self._locate(ref))

    def _locate(self, ref: ImageRef) -> str:
        return f"{self.folder / ref.shard} at {ref.offset}"


class _Descriptor:
    """A file open for reading; it is closed when the last reference to it goes."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class TarWriter:
    """Writes a shard to `part` and renames it to `path`.

    Images that an older `path` holds at the same offsets are not written again: when all are, `path` stays untouched.
    tarfile is not used for writing, because it cannot leave out the members that a file already has.
    """

    def __init__(self, path: Path, part: Path) -> None:
        self._path, self._part = path, part
        self._file: BinaryIO | None = None
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if self._file is not None:
                self._file.close()
        finally:
            if isinstance(error, OSError):  # on a full disk, an incomplete shard takes the space that is needed
                self._part.unlink(missing_ok=True)

    def add(self, image_id: str, content: bytes, kept_at: int | None = None) -> int:
        """Append an image and return the offset of its bytes; `kept_at` is their offset in `path` if it has them."""
        header = _header(image_id, len(content))
        offset = self._end + len(header)
        if self._file is None and kept_at != offset:
            self._begin()
        if self._file is not None:
            self._file.write(header + content + bytes(-len(content) % _BLOCK_BYTES))
        self._end = offset + len(content) + -len(content) % _BLOCK_BYTES
        return offset

    def finish(self) -> bool:
        """Complete the shard; return whether it had to be written."""
        if self._file is None and not self._ends_here():
            self._begin()
        if self._file is None:
            return False
        self._file.write(_END)
        self._file.close()
        self._part.replace(self._path)
        return True

    def _begin(self) -> None:
        """Create `part` with the images that `path` already holds."""
        self._file = self._part.open("wb")
        if self._end:
            with self._path.open("rb") as kept:
                for start in range(0, self._end, _COPY_BYTES):
                    self._file.write(kept.read(min(_COPY_BYTES, self._end - start)))

    def _ends_here(self) -> bool:
        """Return whether `path` holds the images that were added and nothing after them."""
        if not self._path.is_file():
            return False
        with self._path.open("rb") as file:
            file.seek(self._end)
            return file.read(len(_END) + 1) == _END


def shard_name(split: str, number: int) -> str:
    """Return the file name of a shard."""
    return f"{split}-{number:05d}{SUFFIX}"


def write_tar(path: Path, images: Iterable[tuple[str, bytes]]) -> dict[str, ImageRef]:
    """Write (image_id, bytes) in the given order as the shard `path`; return the place of each image."""
    with TarWriter(path, path.with_suffix(".part")) as writer:
        refs = {i: ImageRef(path.name, writer.add(i, content), len(content)) for i, content in images}
        writer.finish()
    return refs


def scan_shard(path: Path) -> list[Member]:
    """Return the complete images of a shard, which may be truncated, up to the first header not of `TarWriter`'s kind.

    Their bytes are not checked: compare their MD5.
    """
    members: list[Member] = []
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar, path.open("rb") as file:
            for info in tar:
                image_id = info.name.removesuffix(".jpg")
                header = os.pread(file.fileno(), info.offset_data - info.offset, info.offset)
                if info.offset_data + info.size > size or header != _header(image_id, info.size):
                    break
                members.append(Member(image_id, info.offset_data, info.size))
    except tarfile.ReadError:
        pass  # the file ends within a header
    return members


def _header(image_id: str, num_bytes: int) -> bytes:
    info = tarfile.TarInfo(f"{image_id}.jpg")
    info.size = num_bytes
    return info.tobuf(tarfile.GNU_FORMAT)
