"""Fills shards with images that are downloaded, or copied from shards of earlier runs.

A shard whose images are all present and unchanged at the source is not written again. Any other shard is written beside
its place and renamed. Its images come from the shard itself, from shards of another selection, from an incomplete shard
of a killed run, and from the source.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import NamedTuple, TypeVar

import polars as pl

from pbe.acquisition.downscaling import md5_of, shrink, source_md5
from pbe.acquisition.shard_plan import Folders, Held, ShardTask
from pbe.acquisition.stores import LostError, Store
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

Job = TypeVar("Job")
Done = TypeVar("Done")

_FETCHED_AHEAD = 8  # images per thread, while the next one to write is still being fetched


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
    """Fetches the images of shards with `settings.workers` threads and writes the shards."""

    def __init__(self, store: Store, settings: Acquire, folders: Folders) -> None:
        self._store, self._settings, self._folders = store, settings, folders
        self._shards = {False: ImageShards(folders.images), True: ImageShards(folders.old)}

    def pack(self, tasks: Iterable[ShardTask], shard_done: Callable[[str], None]) -> Generator[Result]:
        """Fill the shards in order and yield each image's result; call `shard_done` with each complete shard's name."""
        jobs = ((task, place) for task in tasks for place in range(len(task.image_ids)))
        executor = ThreadPoolExecutor(self._settings.workers, thread_name_prefix="acquire")
        try:
            images = _map_in_order(executor, self._fetch, jobs, _FETCHED_AHEAD * self._settings.workers)
            for name, of_shard in groupby(images, key=lambda image: image.task.name):
                yield from self._write(name, of_shard)
                shard_done(name)
        finally:
            executor.shutdown(cancel_futures=True)

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

    def _fetch(self, job: tuple[ShardTask, int]) -> _Fetched:
        """Fetch one image, unless a copy is present and the source still holds the object it came from."""
        task, place = job
        image_id, held = task.image_ids[place], task.held[place]
        key, side, quality = image_key(task.split, image_id), self._settings.short_side_px, self._settings.jpeg_quality
        try:
            old, known = self._read_copy(held)
            content, md5 = self._fetch_bytes(key, old, known)
            width, height = _read_size(content, self._store.locate(key))
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
        return content, source_md5(content, self._settings.short_side_px, self._settings.jpeg_quality)

    def _fetch_bytes(self, key: str, old: bytes | None, known_md5: str | None) -> tuple[bytes, str]:
        """Return the object and its MD5; the object is `old` where its MD5 is the known one."""
        fetched, content = self._store.read(key, known_md5)
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


def _map_in_order(
    executor: ThreadPoolExecutor, work: Callable[[Job], Done], jobs: Iterable[Job], max_pending: int
) -> Iterator[Done]:
    """Yield `work(job)` for each job, in order; at most `max_pending` jobs are started and not yet yielded."""
    pending: deque[Future[Done]] = deque()
    for job in jobs:
        pending.append(executor.submit(work, job))
        if len(pending) == max_pending:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
