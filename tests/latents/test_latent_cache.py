"""The files of the latent cache: rows across shards, and an error for each state that the user can correct."""

import json
from pathlib import Path

import pytest
import torch

from pbe.errors import UserError
from pbe.latents.latent_cache import INDEX, TENSORS, LatentCache, shard_name, write_shard


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Five rows in shards of two; every tensor of row r is filled with r."""
    for shard, rows in enumerate(([0, 1], [2, 3], [4])):
        values = torch.tensor(rows, dtype=torch.float16).view(-1, 1, 1, 1)
        write_shard(tmp_path / shard_name(shard), {name: values.expand(len(rows), 1, 2, 2) for name in TENSORS})
    (tmp_path / INDEX).write_text(json.dumps({"rows": 5, "shards": 3, "boxes": 5, "shard_rows": 2}))
    return tmp_path


def test_rows_come_from_their_shards_in_the_given_order_in_float32(cache: Path) -> None:
    rows = LatentCache(cache).rows([4, 0, 3, 0])
    assert set(rows) == set(TENSORS)
    for tensor in rows.values():
        assert tensor.dtype == torch.float32
        assert tensor[:, 0, 0, 0].tolist() == [4, 0, 3, 0]
    assert len(LatentCache(cache)) == 5


def test_a_folder_without_latents_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"index\.json: no such file; run the encode stage"):
        LatentCache(tmp_path)


def test_a_missing_shard_is_named(cache: Path) -> None:
    (cache / shard_name(1)).unlink()
    with pytest.raises(UserError, match=r"shard-00001\.safetensors: no such file; run the encode stage"):
        LatentCache(cache)


def test_a_damaged_shard_is_named(cache: Path) -> None:
    path = cache / shard_name(2)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"shard-00002\.safetensors: damaged .*; delete it and run the encode stage"):
        LatentCache(cache)
