"""Plans which images each shard holds, and finds the images that are already present.

The sorted ids of a split are cut into groups of a fixed size, so that each shard depends on its own images alone. The
plan is a file with a row group for each shard, and only one of them is in memory at a time.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow.parquet as pq

from pbe.dataset.image_shards import LOCATION, ImageRef, Member, scan_shard, shard_name
from pbe.dataset.openimages import image_key
from pbe.runtime.set_aside import aside_of, discard
from pbe.settings import Acquire

_IMAGES_PER_SHARD = 600  # at OpenImages' mean of 322 KB, 190 MB
_BYTES_PER_SQUARE = 0.45  # of a reduced image, divided by the square of its shorter side
_FOUND = {"split": pl.String, "image_id": pl.String, "is_old": pl.Boolean, **LOCATION}
_PLANNED = {"target": pl.String, **_FOUND}


class Held(NamedTuple):
    """An image that is present, according to its header, in a shard of the folder `images` or `old`."""

    is_old: bool
    ref: ImageRef


@dataclass(frozen=True)
class ShardTask:
    """A shard to fill, and where each of its images is present, if it is."""

    split: str
    name: str
    image_ids: Sequence[str]
    held: Sequence[Held | None]

    @property
    def keys(self) -> list[str]:
        """The images' keys in the source."""
        return [image_key(self.split, image_id) for image_id in self.image_ids]

    def parts(self, size: int) -> "Iterator[ShardTask]":
        """Yield the shard in parts of `size` images."""
        for start in range(0, len(self.image_ids), size):
            part = slice(start, start + size)
            yield replace(self, image_ids=self.image_ids[part], held=self.held[part])


class Folders(NamedTuple):
    """The folders of shards. All but `images` are beside the output."""

    images: Path
    new: Path  # shards that are being written
    old: Path  # shards of other selections, to copy images from
    results: Path  # a parquet file of RESULTS for each shard
    plan: Path  # a file

    @classmethod
    def within(cls, out: Path, parts: Path) -> "Folders":
        """Create the folders of the output `out`, with the folder `parts` beside it."""
        folders = cls(out / "images", parts / "new", parts / "old", parts / "results", parts / "plan.parquet")
        for folder in folders[:-1]:
            folder.mkdir(parents=True, exist_ok=True)
        return folders


def images_per_shard(settings: Acquire) -> int:
    """Return `acquire.images_per_shard`, or as many images as make 100 to 250 MB."""
    if settings.images_per_shard is not None:
        return settings.images_per_shard
    if settings.short_side_px is None:
        return _IMAGES_PER_SHARD
    smaller = 322_000 / (_BYTES_PER_SQUARE * settings.short_side_px**2)
    return max(_IMAGES_PER_SHARD, 100 * round(_IMAGES_PER_SHARD * smaller / 100))


class Plan:
    """The shards of a selection of image ids by split.

    The constructor finds the images that are present and writes the plan's file. Shards that hold images of other
    groups are moved to `old`, to be copied from, and removed when no shard needs them any more. Those with images that
    are not wanted stay there until `discard_unwanted`.
    """

    def __init__(self, wanted: Mapping[str, pl.Series], size: int, folders: Folders) -> None:
        self._old, self._images = folders.old, folders.images
        self.num_images = sum(len(ids) for ids in wanted.values())
        groups = {
            shard_name(split, number): (split, ids[start : start + size])
            for split, ids in wanted.items()
            for number, start in enumerate(range(0, len(ids), size))
        }
        self.shards = list(groups)
        found = _find_images(groups, folders)
        self._unwanted = _shards_with_unwanted(found, wanted)
        self._needs = _write_plan(groups, found, folders.plan)
        self._num_users = Counter(shard for needed in self._needs.values() for shard in needed)
        for path in sorted(folders.old.iterdir()):
            if path.name not in self._num_users:
                self._remove(path)

    def release(self, name: str) -> None:
        """Remove the old shards that only the shard `name`, which is complete, still needed."""
        for shard in self._needs.pop(name, ()):
            self._num_users[shard] -= 1
            if not self._num_users[shard]:
                self._remove(self._old / shard)

    def discard_unwanted(self) -> None:
        """Remove the old shards with images that are not wanted, or move them beside the output (`set_aside`)."""
        out = self._images.parent
        places = {path: unused_name(path, aside_of(out)) for path in sorted(self._old.iterdir())}
        discard(places, f"acquire: {out.name} had images that are not selected now")

    def _remove(self, path: Path) -> None:
        if path.name not in self._unwanted:
            path.unlink()


def read_tasks(folders: Folders) -> Iterator[ShardTask]:
    """Yield the shards of the plan, in order."""
    with pq.ParquetFile(folders.plan) as plan:
        for number in range(plan.num_row_groups):
            rows = pl.DataFrame(plan.read_row_group(number))
            held = [
                Held(is_old, ImageRef(*place)) if is_old is not None else None
                for is_old, *place in rows.select("is_old", *LOCATION).iter_rows()
            ]
            yield ShardTask(rows["split"][0], rows["target"][0], rows["image_id"].to_list(), held)


def _write_plan(groups: Mapping[str, tuple[str, pl.Series]], found: pl.DataFrame, path: Path) -> dict[str, set[str]]:
    """Write each group's images with their present locations; return the old shards that a shard needs, if any."""
    needs = {}
    by_split = {str(split): rows.sort("image_id") for (split,), rows in found.group_by("split")}
    with pq.ParquetWriter(path, pl.DataFrame(schema=_PLANNED).to_arrow().schema) as writer:
        for name, (split, ids) in groups.items():
            held = by_split.get(split, found.clear())
            first, last = (
                held["image_id"].search_sorted(ids[0], "left"),
                held["image_id"].search_sorted(ids[-1], "right"),
            )
            group = pl.DataFrame({"image_id": ids}, schema={"image_id": pl.String}).join(
                held[first:last].drop("split"), on="image_id", how="left", maintain_order="left"
            )
            planned = group.with_columns(pl.lit(name).alias("target"), pl.lit(split).alias("split"))
            writer.write_table(planned.select(*_PLANNED).to_arrow())
            old = set(group.filter("is_old")["shard"])
            if old:
                needs[name] = old
    return needs


def _find_images(groups: Mapping[str, tuple[str, pl.Series]], folders: Folders) -> pl.DataFrame:
    """Return each image that is present once: split, image_id, is_old and its location in `images` or `old`."""
    frames = [pl.DataFrame(schema=_FOUND)]
    for path in sorted(folders.new.iterdir()):
        _move_to(path, folders.old)
    for path in sorted(folders.images.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
            continue
        members = scan_shard(path)
        if path.name in groups and {member.image_id for member in members} <= set(groups[path.name][1]):
            frames.append(_locate(path, members, is_old=False))
        else:
            _move_to(path, folders.old)
    frames += [_locate(path, scan_shard(path), is_old=True) for path in sorted(folders.old.iterdir())]
    return pl.concat(frames).unique(["split", "image_id"], keep="first", maintain_order=True)


def _shards_with_unwanted(found: pl.DataFrame, wanted: Mapping[str, pl.Series]) -> set[str]:
    """Return the old shards that hold images which are not wanted."""
    names = {"split": pl.String, "image_id": pl.String}
    frames = [pl.DataFrame({"split": split, "image_id": ids}, schema=names) for split, ids in wanted.items()]
    old = found.filter(pl.col("is_old"))
    return set(old.join(pl.concat([pl.DataFrame(schema=names), *frames]), on=list(names), how="anti")["shard"])


def _move_to(path: Path, old: Path) -> None:
    path.rename(unused_name(path, old))


def unused_name(path: Path, folder: Path) -> Path:
    """Return a place for a file in `folder`: its name with the first number that no file there has."""
    places = (folder / f"{path.stem}.{number}{path.suffix}" for number in count())
    return next(place for place in places if not place.exists())


def _locate(path: Path, members: Sequence[Member], is_old: bool) -> pl.DataFrame:
    kinds = {"image_id": pl.String, "offset": pl.Int64, "num_bytes": pl.Int64}
    same = {"split": path.name.rsplit("-", 1)[0], "is_old": is_old, "shard": path.name}
    rows = pl.DataFrame(members, schema=kinds, orient="row")
    return rows.with_columns(pl.lit(value).alias(name) for name, value in same.items()).select(*_FOUND)
