"""The latent cache, written by a real Ray cluster of one worker."""

import numpy as np
import polars as pl
import pytest
import torch

from pbe.dataset.image_shards import LOCATION, write_tar
from pbe.demo import scenes
from pbe.demo.faults import encode_jpeg
from pbe.latents import latent_cache
from pbe.latents.frozen_encoders import FrozenEncoders
from pbe.latents.latent_cache import LatentShards
from pbe.latents.samples import SampleDrawer, read_boxes
from pbe.runtime.ray_cluster import ray_cluster
from tests.support import parameters

pytestmark = pytest.mark.slow

ENCODE = parameters.encode(variants=2, exemplar_variants=2, shard_rows=8, batch_size=4, num_workers=1)


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster(None, 2):
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    (root / "images").mkdir()
    scenes = {f"{i:016x}": scenes.draw_scene(np.random.default_rng([3, i]), 1) for i in range(10)}
    images = [(name, encode_jpeg(scene.image)) for name, scene in scenes.items()]
    at = write_tar(root / "images/train-00000.tar", images)
    rows = [(f"{n}_000", n, "train", *map(int, s.objects[0].box), *at[n]) for n, s in scenes.items()]
    columns = ["box_id", "image_id", "split", "x0", "y0", "x1", "y1", *LOCATION]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(root / "boxes.parquet")
    return root


def run(project, backbone, out, encode=ENCODE, seed=0):
    return latent_cache.encode(project / "images", project, backbone, out, parameters.method(), encode, seed)


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def cache(cluster, project, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("latents")
    return out, run(project, backbone, out)


def test_every_variant_of_every_box_is_there(cache):
    out, counts = cache
    assert counts == {"rows": 20, "shards": 3, "boxes": 10, "shard_rows": 8}
    assert len(LatentShards(out)) == 20


def test_rows_are_what_the_encoders_say_of_the_samples(cache, project, backbone):
    encoders = FrozenEncoders(backbone)
    sample = SampleDrawer(project / "images", parameters.method(), 32, 2, 0).draw(read_boxes(project, "train")[6], 1)
    expected = encoders.encode([sample])
    rows = LatentShards(cache[0]).rows([13, 0])
    for name, tensor in expected.items():
        torch.testing.assert_close(rows[name][0], tensor[0].float(), atol=2e-3, rtol=2e-3)


def test_what_is_there_is_not_made_again_and_what_is_lost_comes_back_to_the_bit(cache, project, backbone):
    out, _ = cache
    before = contents(out)
    stamp = (out / latent_cache.shard_name(0)).stat().st_mtime_ns
    (out / latent_cache.shard_name(1)).unlink()
    (out / "shard-00002.99.tmp").write_bytes(b"half")
    run(project, backbone, out)
    assert contents(out) == before
    assert (out / latent_cache.shard_name(0)).stat().st_mtime_ns == stamp


def test_shards_of_another_seed_are_not_mixed_in(cluster, project, backbone, cache, tmp_path):
    for name, data in contents(cache[0]).items():
        (tmp_path / name).write_bytes(data)
    run(project, backbone, tmp_path, seed=1)
    assert not any(contents(tmp_path)[n] == contents(cache[0])[n] for n in map(latent_cache.shard_name, range(3)))


def test_a_folder_without_latents_says_what_to_run(tmp_path):
    with pytest.raises(ValueError, match="run the encode stage"):
        LatentShards(tmp_path)
