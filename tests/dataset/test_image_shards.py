"""Shards of images: a tar file that other programs read, the same bytes for the same images, read by offset."""

import pickle
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbe.dataset.image_shards import ImageRef, ImageShards, TarWriter, scan_shard, shard_name, write_tar
from pbe.errors import UserError

IMAGES = [("a", b"first" * 300), ("b" * 120, b"an id of 120 characters"), ("c", b""), ("d.e", b"x" * 512)]


def content_of(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    assert file is not None
    return file.read()


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return tmp_path / shard_name("train", 7)


def test_a_shard_is_a_tar_file_that_holds_only_names_and_bytes(shard: Path) -> None:
    refs = write_tar(shard, IMAGES)
    assert shard.name == "train-00007.tar"
    with tarfile.open(shard) as tar:
        assert [(info.name, content_of(tar, info)) for info in tar] == [(f"{i}.jpg", c) for i, c in IMAGES]
        assert {(info.mtime, info.uid, info.uname, info.mode) for info in tar} == {(0, 0, "", 0o644)}
        assert [info.offset_data for info in tar] == [ref.offset for ref in refs.values()]
    assert [(m.image_id, m.offset) for m in scan_shard(shard)] == [(i, ref.offset) for i, ref in refs.items()]


def test_images_are_read_by_their_reference_and_after_pickling(shard: Path) -> None:
    refs = write_tar(shard, IMAGES)
    shards = pickle.loads(pickle.dumps(ImageShards(shard.parent)))
    assert [shards.read_bytes(refs[image_id]) for image_id, _ in IMAGES] == [content for _, content in IMAGES]
    with pytest.raises(UserError, match=r"train-00008\.tar: no such file; run the acquire stage again"):
        shards.read_bytes(ImageRef("train-00008.tar", 0, 1))
    with pytest.raises(UserError, match=r"train-00007\.tar: only 1024 of 9999 bytes at \d+; run the acquire"):
        shards.read_bytes(ImageRef(shard.name, shard.stat().st_size - 1024, 9999))


@pytest.mark.parametrize(("size", "whole"), [(0, 0), (300, 0), (1000, 0), (512 + 1500, 1), (3000, 1), (4608, 3)])
def test_a_truncated_shard_gives_its_complete_images(shard: Path, size: int, whole: int) -> None:
    write_tar(shard, IMAGES)
    with shard.open("r+b") as file:
        file.truncate(size)
    assert [member.image_id for member in scan_shard(shard)] == [image_id for image_id, _ in IMAGES[:whole]]


IMAGE_IDS = st.text("abcdef0123456789._-", min_size=1, max_size=130)
CONTENTS = st.integers(0, 1500).map(lambda num_bytes: (b"image" * 300)[:num_bytes])  # st.binary is mostly short


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(IMAGE_IDS, CONTENTS, max_size=5), st.data())
def test_a_shard_cut_at_any_byte_gives_only_its_first_complete_images(
    tmp_path_factory: pytest.TempPathFactory, images: dict[str, bytes], data: st.DataObject
) -> None:
    shard = tmp_path_factory.getbasetemp() / shard_name("train", 8)
    refs = write_tar(shard, images.items())
    kept_bytes = data.draw(st.integers(0, shard.stat().st_size))
    with shard.open("r+b") as file:
        file.truncate(kept_bytes)
    members, shards = scan_shard(shard), ImageShards(shard.parent)
    assert [(member.image_id, member.offset, member.num_bytes) for member in members] == [
        (image_id, ref.offset, ref.num_bytes)
        for image_id, ref in refs.items()
        if ref.offset + ref.num_bytes <= kept_bytes
    ]
    for image_id, offset, num_bytes in members:
        assert shards.read_bytes(ImageRef(shard.name, offset, num_bytes)) == images[image_id]


def test_members_of_another_program_are_not_taken_for_images(shard: Path) -> None:
    with tarfile.open(shard, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
        other = tarfile.TarInfo("b.jpg")
        other.mtime = 1
        tar.addfile(other)
    assert [member.image_id for member in scan_shard(shard)] == ["a"]


@pytest.mark.parametrize("changed", [None, 0, 2, 3])
def test_images_are_kept_up_to_the_first_change(shard: Path, changed: int | None) -> None:
    refs = write_tar(shard, IMAGES)
    now = [(i, c + b"new" if place == changed else c) for place, (i, c) in enumerate(IMAGES)]
    with TarWriter(shard, shard.with_suffix(".part")) as writer:
        for place, (image_id, content) in enumerate(now):
            writer.add(image_id, content, None if place == changed else refs[image_id].offset)
        assert writer.finish() == (changed is not None)
    write_tar(shard.with_name("fresh.tar"), now)
    assert shard.read_bytes() == shard.with_name("fresh.tar").read_bytes()


def test_images_that_are_not_added_are_removed(shard: Path) -> None:
    refs = write_tar(shard, IMAGES)
    with TarWriter(shard, shard.with_suffix(".part")) as writer:
        writer.add("a", IMAGES[0][1], refs["a"].offset)
        assert writer.finish()
    assert [member.image_id for member in scan_shard(shard)] == ["a"]
