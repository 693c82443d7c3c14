"""Shards of another key are moved aside when they took long to make, and come back with their key."""

import os
from pathlib import Path

import pytest

from pbe.latents.encoding import keep_shards
from pbe.latents.latent_cache import INDEX, KEY, shard_name

OLD, NEW = "0" * 32, "1" * 32


def write_cache(out: Path, key: str, seconds: float) -> None:
    """Write a cache of two shards that took `seconds` to encode."""
    keep_shards(out, key)
    for number in (0, 1):
        (out / shard_name(number)).write_text(f"{key} {number}")
        os.utime(out / shard_name(number), ((out / KEY).stat().st_mtime + seconds * (number + 1) / 2,) * 2)
    (out / INDEX).write_text("{}")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "latents").mkdir()
    return tmp_path / "latents"


def test_costly_shards_come_back_with_their_key(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cache(out, OLD, 7200)
    write_cache(out, NEW, 1)
    assert f"moved 2 files, which took 2.0 h to make, to {out}.aside/{OLD[:12]}; to delete them: rm -r" in (
        capsys.readouterr().err
    )
    assert (out / shard_name(0)).read_text() == f"{NEW} 0"
    (out / ".shard-00002.part.safetensors").touch()
    keep_shards(out, OLD)
    assert {path.name for path in out.iterdir()} == {KEY, shard_name(0), shard_name(1)}
    assert (out / shard_name(1)).read_text() == f"{OLD} 1"
    assert not (out.with_name("latents.aside") / NEW[:12]).exists()  # it took a second


def test_shards_come_back_after_a_kill_between_two_moves(out: Path) -> None:
    write_cache(out, OLD, 7200)
    keep_shards(out, NEW)
    aside = out.with_name("latents.aside") / OLD[:12]
    (out / KEY).write_text(OLD + "\n")
    (aside / shard_name(0)).rename(out / shard_name(0))
    keep_shards(out, OLD)
    assert {path.name for path in out.iterdir()} == {KEY, shard_name(0), shard_name(1)}


def test_the_same_key_keeps_its_shards(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cache(out, OLD, 7200)
    keep_shards(out, OLD)
    assert (out / shard_name(1)).read_text() == f"{OLD} 1"
    assert (out / INDEX).exists()
    assert capsys.readouterr().err == ""
