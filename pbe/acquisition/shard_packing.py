"""Fills shards with images that are downloaded, or copied from shards of earlier runs.

A shard whose images are all present and unchanged at the source is not written again. Any other shard is written beside
its place and renamed. Its images come from the shard itself, from shards of another selection, from an incomplete shard
of a killed run, and from the source.

Images of servers arrive in threads, which wait for them. Files are read, reduced and hashed in a process for each core.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby
from typing import NamedTuple

import polars as pl

from pbe.acquisition.downscaling import md5_of, shrink, source_md5
from pbe.acquisition.processes import map_in_order, num_processes, process_pool
from pbe.acquisition.shard_plan import Folders, Held, ShardTask
from pbe.acquisition.stores import FolderStore, LostError, Store
from pbe.dataset.image_shards import LOCATION, ImageShards, TarWriter
from pbe.dataset.images import RefusedImageError, encoded_size
from pbe.dataset.openimages import image_key
from pbe.errors import UserError
from pbe.settings import Acquire

RESULTS = {
    "image_id": pl.String,
    "split": pl.String,
    "outcome": pl.String,
    **LOCATION,
    "md5": pl.String,
    "width": pl.Int32,
    "height": pl.Int32,
}

MIN_IN_PROCESSES = 4000  # files; below, starting processes takes longer than they save
_IMAGES_A_JOB = 32  # of a process
_FETCHED_AHEAD = 8  # jobs per thread or process, while the next image to write is still being fetched


class Result(NamedTuple):
    """The outcome of one image: the columns of RESULTS, whether it was kept, and the reason of a loss."""

    image_id: str
    split: str
    outcome: str
    shard: str | None = None
    offset: int | None = None
    num_bytes: int | None = None
    md5: str | None = None
    width: int | None = None
    height: int | None = None
    is_kept: bool = False  # a complete copy was present
    detail: str = ""


class _Fetched(NamedTuple):
    """An image for its shard; `content` is None when it is lost, `kept_at` its offset if the shard holds it."""

    task: ShardTask
    result: Result
    content: bytes | None = None
    kept_at: int | None = None


class Packer:
    """Fetches the images of shards, with `settings.workers` threads or in processes, and writes the shards."""

    def __init__(self, store: Store, settings: Acquire, folders: Folders, num_images: int) -> None:
        self._fetcher, self._folders = Fetcher(store, settings, folders), folders
        self._num_processes = num_processes(num_images, MIN_IN_PROCESSES) if isinstance(store, FolderStore) else 1

    def pack(self, tasks: Iterable[ShardTask], shard_done: Callable[[str], None]) -> Generator[Result]:
        """Fill the shards in order and yield each image's result; call `shard_done` with each complete shard's name."""
        num_threads, size = self._fetcher.settings.workers, _IMAGES_A_JOB if self._num_processes > 1 else 1
        with ExitStack() as pools:
            threads = ThreadPoolExecutor(num_threads, thread_name_prefix="acquire")
            pools.callback(threads.shutdown, cancel_futures=True)
            processes = pools.enter_context(process_pool(self._num_processes)) if self._num_processes > 1 else None
            submit = _submitter(self._fetcher, threads, processes)
            jobs = (part for task in tasks for part in task.parts(size))
            num_workers = self._num_processes if processes else num_threads
            parts = map_in_order(submit, jobs, _FETCHED_AHEAD * num_workers)
            for name, of_shard in groupby(chain.from_iterable(parts), key=lambda image: image.task.name):
                yield from self._write(name, of_shard)
                shard_done(name)

    def _write(self, name: str, images: Iterator[_Fetched]) -> Iterator[Result]:
        results = []
        with TarWriter(self._folders.images / name, self._folders.new / name) as writer:
            for image in images:
                result = image.result
                if image.content is not None:
                    offset = writer.add(result.image_id, image.content, image.kept_at)
                    result = result._replace(shard=name, offset=offset, num_bytes=len(image.content))
                results.append(result[: len(RESULTS)])
                yield result
            writer.finish()
        rows = pl.DataFrame(results, schema=RESULTS, orient="row")
        rows.write_parquet(self._folders.results / f"{name}.parquet")


def _submitter(
    fetcher: "Fetcher", threads: ThreadPoolExecutor, processes: ProcessPoolExecutor | None
) -> Callable[[ShardTask], "Future[list[_Fetched]]"]:
    """Return a function that starts a part of a shard: in a process where its images are files, else in a thread."""

    def submit(task: ShardTask) -> "Future[list[_Fetched]]":
        store = fetcher.store
        if processes is not None and isinstance(store, FolderStore) and (sent := store.portable(task.keys)):
            return processes.submit(replace(fetcher, store=sent).fetch, task)
        return threads.submit(fetcher.fetch, task)

    return submit


@dataclass(frozen=True)
class Fetcher:
    """Fetches images from a store, unless a copy is present and the store still has the object it came from."""

    store: Store
    settings: Acquire
    folders: Folders

    @cached_property
    def _shards(self) -> dict[bool, ImageShards]:
        return {False: ImageShards(self.folders.images), True: ImageShards(self.folders.old)}

    def fetch(self, task: ShardTask) -> list[_Fetched]:
        """Fetch the images of a shard or of a part of one, in order."""
        return [self._fetch(task, place) for place in range(len(task.image_ids))]

    def _fetch(self, task: ShardTask, place: int) -> _Fetched:
        image_id, held = task.image_ids[place], task.held[place]
        key, side, quality = image_key(task.split, image_id), self.settings.short_side_px, self.settings.jpeg_quality
        try:
            old, known = self._read_copy(held)
            content, md5 = self._fetch_bytes(key, old, known)
            width, height = _read_size(content, self.store.locate(key))
        except LostError as lost:
            return _Fetched(task, Result(image_id, task.split, lost.outcome, detail=str(lost)))
        small = None if side is None else shrink(content, side, quality, md5)
        kept = content is old and small is None
        if small is not None:
            content = small
            width, height = encoded_size(content, key)
        if side is not None:
            md5 = md5_of(content)  # of the stored image, not of the object it came from
        result = Result(image_id, task.split, "ok", task.name, None, len(content), md5, width, height, kept)
        in_place = kept and held is not None and not held.is_old
        return _Fetched(task, result, content, held.ref.offset if held and in_place else None)

    def _read_copy(self, held: Held | None) -> tuple[bytes | None, str | None]:
        """Return the bytes of the copy that is present, if any, and the MD5 of the object they came from."""
        if held is None:
            return None, None
        content = self._shards[held.is_old].read_bytes(held.ref)
        return content, source_md5(content, self.settings.short_side_px, self.settings.jpeg_quality)

    def _fetch_bytes(self, key: str, old: bytes | None, known_md5: str | None) -> tuple[bytes, str]:
        """Return the object and its MD5; the object is `old` where its MD5 is the known one."""
        fetched, content = self.store.read(key, known_md5)
        content = old if content is None else content
        assert content is not None, key
        return content, fetched.md5


def _read_size(content: bytes, address: str) -> tuple[int, int]:
    """Return width and height from the header and EXIF; raises LostError when the file is not a supported image."""
    try:
        return encoded_size(content, address)
    except RefusedImageError as refused:
        raise LostError("refused", str(refused)) from None
    except UserError as error:
        raise LostError("corrupt", str(error)) from None
