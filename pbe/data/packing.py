"""Filling shards: which images go into which, what is here already, and what is fetched into each.

The ids of a split, in order, are cut into groups of a fixed number: each shard depends on its own images alone. One
whose images are all here and unchanged at the source is not touched; else it is written beside its place, from the
images that are here (in it, in shards of another selection, in what a killed run left of one) and those that are
fetched, and renamed.
"""

import io
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, count, groupby
from pathlib import Path
from typing import NamedTuple, TypeVar

import polars as pl

from pbe.data.archive import LOCATION, ImageArchive, ImageRef, Member, TarWriter, scan_shard, shard_name
from pbe.data.images import RefusedImageError, image_size
from pbe.data.openimages import image_key
from pbe.data.shrink import md5_of, shrink, source_md5
from pbe.data.stores import LostError, Store
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

_IMAGES_PER_SHARD = 600  # at OpenImages' mean of 322 KB, 190 MB
_BYTES_PER_SQUARE = 0.45  # of an image made smaller, over the square of its shorter side
_IN_HAND = 8  # images per thread that are fetched ahead of the one that is next to be written


class Held(NamedTuple):
    """An image that is here, as its header tells, in a shard of `images`, or of `old`."""

    is_old: bool
    ref: ImageRef


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


@dataclass(frozen=True)
class ShardTask:
    """A shard to fill, and where each of its images is held, if it is."""

    split: str
    name: str
    image_ids: Sequence[str]
    held: Sequence[Held | None]


class Folders(NamedTuple):
    """`images` the shards' own, and beside data/raw: `new` for those in the making, `old` for what they are made of."""

    images: Path
    new: Path
    old: Path
    results: Path  # a parquet file of RESULTS for each shard

    @classmethod
    def within(cls, out: Path, parts: Path) -> "Folders":
        """Those of the output `out`, made where they are missing."""
        folders = cls(out / "images", parts / "new", parts / "old", parts / "results")
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        return folders


def images_per_shard(settings: Acquire) -> int:
    """`acquire.images_per_shard`, else as many as make 100 to 250 MB."""
    if settings.images_per_shard is not None:
        return settings.images_per_shard
    if settings.short_side_px is None:
        return _IMAGES_PER_SHARD
    smaller = 322_000 / (_BYTES_PER_SQUARE * settings.short_side_px**2)
    return max(_IMAGES_PER_SHARD, 100 * round(_IMAGES_PER_SHARD * smaller / 100))


class Plan:
    """The shards of a selection, and what of their images is here, found as it is made.

    Shards that hold images of other groups are set aside in `old` to be copied from, and go when nothing needs them.
    """

    def __init__(self, wanted: Mapping[str, Sequence[str]], size: int, folders: Folders) -> None:
        self.num_images = sum(len(ids) for ids in wanted.values())
        self._folders = folders
        self._groups = {
            shard_name(split, number): (split, ids[start : start + size])
            for split, ids in wanted.items()
            for number, start in enumerate(range(0, len(ids), size))
        }
        found = self._find_images()
        self._held = {
            split: pl.DataFrame({"image_id": ids}, schema={"image_id": pl.String})
            .join(found.filter(split=split).drop("split"), on="image_id", how="left", maintain_order="left")
            .with_columns(group=pl.int_range(pl.len()) // size)
            for split, ids in wanted.items()
        }
        old = pl.concat(self._held.values()).filter("is_old")
        self._num_users = Counter(old.select("shard", "group").unique()["shard"].to_list())
        for path in sorted(folders.old.iterdir()):
            if path.name not in self._num_users:
                path.unlink()

    @property
    def shards(self) -> list[str]:
        """The shards' names, in order."""
        return list(self._groups)

    def tasks(self) -> Iterator[ShardTask]:
        """The shards to fill, in order."""
        start = dict.fromkeys(self._held, 0)
        for name, (split, ids) in self._groups.items():
            rows = self._held[split][start[split] : start[split] + len(ids)].select("is_old", *LOCATION).iter_rows()
            held = [shard and Held(bool(is_old), ImageRef(shard, *place)) for is_old, shard, *place in rows]
            yield ShardTask(split, name, ids, held)
            start[split] += len(ids)

    def release(self, task: ShardTask) -> None:
        """Remove the old shards that only `task`, which is done, still needed."""
        for shard in {held.ref.shard for held in task.held if held and held.is_old}:
            self._num_users[shard] -= 1
            if not self._num_users[shard]:
                (self._folders.old / shard).unlink()

    def _find_images(self) -> pl.DataFrame:
        """Every image that is here, once: split, image_id, is_old and its place in images or old."""
        frames = []
        for path in sorted(self._folders.new.iterdir()):
            self._set_aside(path)
        for path in sorted(self._folders.images.iterdir()):
            if path.is_dir():
                shutil.rmtree(path)
                continue
            members = scan_shard(path)
            _, ids = self._groups.get(path.name, ("", ()))
            if ids and {member.image_id for member in members} <= set(ids):
                frames.append(_frame(path, members, is_old=False))
            else:
                self._set_aside(path)
        frames += [_frame(path, scan_shard(path), is_old=True) for path in sorted(self._folders.old.iterdir())]
        kinds = {"split": pl.String, "image_id": pl.String, "is_old": pl.Boolean, **LOCATION}
        found = pl.concat([pl.DataFrame(schema=kinds), *frames])
        return found.unique(["split", "image_id"], keep="first", maintain_order=True)

    def _set_aside(self, path: Path) -> None:
        places = (self._folders.old / f"{path.stem}.{number}{path.suffix}" for number in count())
        path.rename(next(place for place in places if not place.exists()))


def _frame(path: Path, members: Sequence[Member], is_old: bool) -> pl.DataFrame:
    kinds = {"image_id": pl.String, "offset": pl.Int64, "num_bytes": pl.Int64}
    frame = pl.DataFrame(members, schema=kinds, orient="row")
    split = path.name.rsplit("-", 1)[0]
    return frame.select(pl.lit(split).alias("split"), "image_id", pl.lit(is_old).alias("is_old"),
                        pl.lit(path.name).alias("shard"), "offset", "num_bytes")  # fmt: skip


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

    def pack(self, tasks: Iterable[ShardTask], done: Callable[[ShardTask], None]) -> Iterator[Result]:
        """Fill the shards, one after the other, and yield each image's result; `done` is told of each whole shard."""
        jobs = ((task, place) for task in tasks for place in range(len(task.image_ids)))
        executor = ThreadPoolExecutor(self._settings.workers, thread_name_prefix="acquire")
        try:
            images = _in_order(executor, self._fetch, jobs, _IN_HAND * self._settings.workers)
            for _, of_shard in groupby(images, key=lambda image: image.task.name):
                yield from self._write(of_shard, done)
        finally:
            executor.shutdown(cancel_futures=True)

    def _write(self, images: Iterator[_Fetched], done: Callable[[ShardTask], None]) -> Iterator[Result]:
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
        done(first.task)

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
    except ValueError as error:
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
