"""Filling shards: what is fetched, what is taken from what is here, and what came of each image.

A shard whose images are all here and unchanged at the source is not touched; else it is written beside its place, from
the images that are here (in it, in shards of another selection, in what a killed run left of one) and those that are
fetched, and renamed.
"""

import io
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, groupby
from typing import NamedTuple, TypeVar

import polars as pl

from pbe.acquisition.downscaling import md5_of, shrink, source_md5
from pbe.acquisition.shard_plan import Folders, Held, ShardTask
from pbe.acquisition.stores import LostError, Store
from pbe.dataset.image_shards import LOCATION, ImageArchive, TarWriter
from pbe.dataset.images import RefusedImageError, image_size
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

_IN_HAND = 8  # images per thread that are fetched ahead of the one that is next to be written


class Result(NamedTuple):
    """What came of one image; the columns of RESULTS, and what is told of it."""

    image_id: str
    split: str
    outcome: str
    shard: str | None = None
    offset: int | None = None
    num_bytes: int | None = None
    md5: str | None = None
    width: int | None = None
    height: int | None = None
    is_kept: bool = False  # its whole copy was here
    detail: str = ""


class _Fetched(NamedTuple):
    """An image as it goes into its shard; `content` is None when it is lost, `kept_at` where the shard holds it."""

    task: ShardTask
    result: Result
    content: bytes | None = None
    kept_at: int | None = None


class Packer:
    """Fetches the images of shards with `settings.workers` threads and writes the shards."""

    def __init__(self, store: Store, settings: Acquire, folders: Folders) -> None:
        self._store, self._settings, self._folders = store, settings, folders
        self._archives = {False: ImageArchive(folders.images), True: ImageArchive(folders.old)}

    def pack(self, tasks: Iterable[ShardTask], done: Callable[[str], None]) -> Generator[Result]:
        """Fill the shards, one after the other, and yield each image's result; `done` is told of each whole shard."""
        jobs = ((task, place) for task in tasks for place in range(len(task.image_ids)))
        executor = ThreadPoolExecutor(self._settings.workers, thread_name_prefix="acquire")
        try:
            images = _in_order(executor, self._fetch, jobs, _IN_HAND * self._settings.workers)
            for _, of_shard in groupby(images, key=lambda image: image.task.name):
                yield from self._write(of_shard, done)
        finally:
            executor.shutdown(cancel_futures=True)

    def _write(self, images: Iterator[_Fetched], done: Callable[[str], None]) -> Iterator[Result]:
        first = next(images)
        name, results = first.task.name, []
        with TarWriter(self._folders.images / name, self._folders.new / name) as writer:
            for image in chain([first], images):
                result = image.result
                if image.content is not None:
                    offset = writer.add(result.image_id, image.content, image.kept_at)
                    result = result._replace(shard=name, offset=offset, num_bytes=len(image.content))
                results.append(result[: len(RESULTS)])
                yield result
            writer.finish()
        table = pl.DataFrame(results, schema=RESULTS, orient="row")
        table.write_parquet(self._folders.results / f"{name}.parquet")
        done(name)

    def _fetch(self, job: tuple[ShardTask, int]) -> _Fetched:
        """Fetch one image, unless what its whole copy became is here."""
        task, place = job
        image_id, held = task.image_ids[place], task.held[place]
        key, side, quality = image_key(task.split, image_id), self._settings.short_side_px, self._settings.jpeg_quality
        try:
            old, known = self._read(held)
            content, md5 = self._fetch_bytes(key, old, known)
            width, height = _read_size(content, self._store.locate(key))
        except LostError as lost:
            return _Fetched(task, Result(image_id, task.split, lost.outcome, detail=str(lost)))
        small = None if side is None else shrink(content, side, quality, md5)
        kept = content is old and small is None
        if small is not None:
            content = small
            width, height = image_size(io.BytesIO(content), key)
        if side is not None:
            md5 = md5_of(content)  # not that of the object it came from
        result = Result(image_id, task.split, "ok", task.name, None, len(content), md5, width, height, kept)
        in_place = kept and held is not None and not held.is_old
        return _Fetched(task, result, content, held.ref.offset if held and in_place else None)

    def _read(self, held: Held | None) -> tuple[bytes | None, str | None]:
        """The bytes that are here and the MD5 of the object they came from."""
        if held is None:
            return None, None
        content = self._archives[held.is_old].read_bytes(held.ref)
        return content, source_md5(content, self._settings.short_side_px, self._settings.jpeg_quality)

    def _fetch_bytes(self, key: str, old: bytes | None, known_md5: str | None) -> tuple[bytes, str]:
        """The object, which is `old` where its MD5 is the one known, and its MD5."""
        fetched, content = self._store.read(key, known_md5)
        content = old if content is None else content
        assert content is not None, key
        return content, fetched.md5


def _read_size(content: bytes, address: str) -> tuple[int, int]:
    """Width and height as the header and EXIF say, without decoding; raises LostError where they do not."""
    try:
        return image_size(io.BytesIO(content), address)
    except RefusedImageError as refused:
        raise LostError("refused", str(refused)) from None
    except UserError as error:
        raise LostError("corrupt", str(error)) from None


def _in_order(
    executor: ThreadPoolExecutor, work: Callable[[Job], Done], jobs: Iterable[Job], in_hand: int
) -> Iterator[Done]:
    """Yield `work(job)` of every job, in their order; no more than `in_hand` are begun and not yet yielded."""
    pending: deque[Future[Done]] = deque()
    for job in jobs:
        pending.append(executor.submit(work, job))
        if len(pending) == in_hand:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
