"""Curation on a Ray cluster: the results of threads, bit for bit and in order; and how errors arrive."""

import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pbe.curation import neighbours, ray_examination
from pbe.curation.examination import ExaminedBlock, Examiner, in_threads
from pbe.curation.ray_examination import BlockExaminer, Tower, num_actors, on_cluster, search_on_cluster, uses_gpu
from pbe.curation.thumbnails import thumbnail_path
from pbe.dataset.image_shards import ImageShards, write_tar
from pbe.demo.faults import encode_jpeg, spoil
from pbe.demo.scenes import draw_scene
from pbe.errors import UserError
from pbe.method.conditioner import Conditioner
from pbe.runtime.code_digest import digest_code
from pbe.runtime.ray_cluster import ray_cluster
from tests.support import parameters

FAULTS = {3: "truncated", 7: "dark", 20: "blurred"}
NUM_IMAGES, BLOCK = 30, 8
NAME = ray_examination.__name__

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_cluster(None, 3):
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "images").mkdir()
    scenes = [draw_scene(np.random.default_rng([9, i])).image for i in range(NUM_IMAGES)]
    files = [spoil(scene, FAULTS[i]) if i in FAULTS else encode_jpeg(scene) for i, scene in enumerate(scenes)]
    names = [f"{i:04d}" for i in range(NUM_IMAGES)]
    refs = write_tar(folder / "images/train-00000.tar", zip(names, files, strict=True))
    rows = [{"image_id": n, "split": "train", **refs[n]._asdict(), "size": None} for n in names]
    pl.DataFrame(rows, schema_overrides={"size": pl.List(pl.Int64)}).write_parquet(folder / "rows.parquet")
    return folder


def blocks_of(project: Path) -> list[pl.DataFrame]:
    return list(pl.read_parquet(project / "rows.parquet").iter_slices(BLOCK))


def examiner_of(project: Path, home: Path) -> Examiner:
    return Examiner(ImageShards(project / "images"), partial(thumbnail_path, home), parameters.curate(), 32)


def thumbnails(home: Path) -> dict[Path, bytes]:
    return {path.relative_to(home): path.read_bytes() for path in home.rglob("*.jpg")}


def assert_same(ours: ExaminedBlock, theirs: ExaminedBlock) -> None:
    assert ours.images.equals(theirs.images)
    assert np.array_equal(ours.thumbnails, theirs.thumbnails)
    assert np.array_equal(ours.embeddings, theirs.embeddings)


def test_the_cluster_gives_the_bits_of_threads_in_the_same_order(
    cluster: None, project: Path, backbone: Path, tmp_path: Path
) -> None:
    encoder, blocks = backbone / "image_encoder", blocks_of(project)
    embed = Conditioner.from_tower(encoder, context_dim=1).embed
    here, there = tmp_path / "here", tmp_path / "there"
    local = list(in_threads(embed, 2)(examiner_of(project, here), blocks))
    remote = list(on_cluster(Tower(encoder, "fp32", use_gpu=False), there)(examiner_of(project, here), blocks))
    assert [len(block.images) for block in remote] == [8, 8, 8, 6]
    for ours, theirs in zip(local, remote, strict=True):
        assert_same(ours, theirs)
    faults = pl.concat(block.images for block in remote)["fault"].to_list()
    assert [i for i, fault in enumerate(faults) if fault] == list(FAULTS)
    assert thumbnails(here) == thumbnails(there)
    assert len(thumbnails(there)) == NUM_IMAGES - 1


@pytest.mark.parametrize("num_groups", [0, 3])
def test_tasks_find_the_neighbours_that_this_process_finds(cluster: None, num_groups: int) -> None:
    rng = np.random.default_rng(4)
    vectors = np.repeat(rng.standard_normal((700, 24), np.float32), 3, axis=0)
    vectors += 0.1 * rng.standard_normal(vectors.shape, np.float32)
    neighbours.centre(vectors)
    groups = rng.integers(0, num_groups, len(vectors)) if num_groups else None
    here = list(neighbours.search(vectors, 0.1, groups))
    there = list(search_on_cluster(vectors, 0.1, groups))
    assert [block.rows for block in there] == [slice(0, 1024), slice(1024, 2048), slice(2048, 2100)]
    assert sum(len(block.pairs) for block in here) > 300
    for ours, theirs in zip(here, there, strict=True):
        assert np.array_equal(ours.pairs, theirs.pairs)
        assert np.array_equal(ours.nearest, theirs.nearest)


def in_this_process(project: Path, encoder: Path, home: Path, rows: pl.DataFrame) -> dict[str, Any]:
    actor = BlockExaminer(examiner_of(project, home), Tower(encoder, "fp32", use_gpu=False), digest_code(NAME))
    return actor({"rows": pickle.dumps(rows.rows())})


def test_a_shard_that_is_missing_is_one_line(project: Path, backbone: Path, tmp_path: Path) -> None:
    rows = blocks_of(project)[0].with_columns(shard=pl.lit("train-00009.tar"))
    with pytest.raises(UserError, match=r"images/train-00009\.tar: no such file; run the acquire stage again$"):
        in_this_process(project, backbone / "image_encoder", tmp_path, rows)


def test_a_node_with_other_code_is_named(
    project: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_examination, "digest_code", lambda name: "another")
    with pytest.raises(UserError, match="has another version of pbe than the driver"):
        in_this_process(project, backbone / "image_encoder", tmp_path, blocks_of(project)[0])


def test_a_cluster_without_gpus_examines_on_all_cpus_but_one(cluster: None) -> None:
    assert num_actors(use_gpu=False) == 2
    assert (uses_gpu("auto"), uses_gpu("cpu"), uses_gpu("cuda")) == (False, False, True)
