"""Encoding on a Ray cluster of one worker: the bytes of the cache, what is kept, and how errors arrive."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.exceptions import RayTaskError

from pbe import settings
from pbe.dataset.curated_boxes import read_curated_boxes
from pbe.errors import UserError
from pbe.latents import encoding
from pbe.latents.frozen_encoders import FrozenEncoders
from pbe.latents.latent_cache import LatentCache, shard_name
from pbe.latents.samples import SampleDrawer
from pbe.runtime.ray_cluster import check_resources, ray_cluster, user_errors_of_tasks
from tests.support import parameters
from tests.support.tiny_data import write_boxes, write_images, write_scenes

pytestmark = pytest.mark.slow

METHOD = parameters.method(close_up_probability=0.0)
ENCODE = parameters.encode(variants=2, exemplar_variants=2, shard_rows=8, batch_size=4, num_workers=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_cluster(None, 2):
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("project"), 10)


def run(project: Path, backbone: Path, out: Path, encode: settings.Encode = ENCODE, seed: int = 0) -> dict[str, int]:
    return encoding.encode(project / "images", project, backbone, out, METHOD, encode, seed)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def latents(cluster: None, project: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("latents")
    assert run(project, backbone, out) == {"rows": 20, "shards": 3, "boxes": 10, "shard_rows": 8}
    return out


def test_a_row_is_the_encoding_of_its_sample(latents: Path, project: Path, backbone: Path) -> None:
    box = read_curated_boxes(project, "train")[6]
    sample = SampleDrawer(project / "images", METHOD, 32, 2, 0).draw(box, 1)
    expected = FrozenEncoders(backbone).encode([sample])
    rows = LatentCache(latents).rows([13, 0])
    for name, tensor in expected.items():
        torch.testing.assert_close(rows[name][0], tensor[0].float(), atol=2e-3, rtol=2e-3)


def test_only_missing_shards_are_written_and_with_the_same_bytes(latents: Path, project: Path, backbone: Path) -> None:
    before = contents(latents)
    written_at = (latents / shard_name(0)).stat().st_mtime_ns
    (latents / shard_name(1)).unlink()
    (latents / ".shard-00002.part.safetensors").write_bytes(b"left by a killed writer")
    run(project, backbone, latents)
    assert contents(latents) == before
    assert (latents / shard_name(0)).stat().st_mtime_ns == written_at


def test_samples_drawn_in_processes_give_the_same_bytes(
    latents: Path, project: Path, backbone: Path, tmp_path: Path
) -> None:
    job = encoding.EncodeJob(
        project / "images", project, backbone, tmp_path, METHOD, ENCODE.replace(draw_workers=2), seed=0
    )
    written = list(encoding.write_shards(job, [0, 1, 2], processes=True))
    assert sorted((row["shard"], row["rows"]) for row in written) == [(0, 8), (1, 8), (2, 4)]
    expected = contents(latents)
    assert contents(tmp_path) == {name: expected[name] for name in map(shard_name, range(3))}


@pytest.mark.usefixtures("cluster")
def test_a_damaged_image_in_a_process_that_draws_is_a_user_error_in_one_line(backbone: Path, tmp_path: Path) -> None:
    at = write_images(tmp_path, "train", {"a": np.zeros((70, 90, 3), np.uint8)})["a"]
    write_boxes(tmp_path, [("a_000", "a", "train", (5, 6, 40, 44), at._replace(num_bytes=at.num_bytes + 10**6))])
    job = encoding.EncodeJob(tmp_path / "images", tmp_path, backbone, tmp_path, METHOD, ENCODE, seed=0)
    with pytest.raises(UserError, match=r"train-00000\.tar") as raised, user_errors_of_tasks():
        list(encoding.write_shards(job, [0], processes=True))
    assert "\n" not in str(raised.value)


def test_the_key_has_the_precision_and_not_the_number_of_processes(project: Path, backbone: Path) -> None:
    def key(**changes: Any) -> str:
        return encoding.cache_key(project / "images", project, backbone, METHOD, ENCODE.replace(**changes), 0)

    assert key(draw_workers=3, num_workers=7) == key()
    assert len({key(), key(precision="bf16"), key(variants=3)}) == 3
    assert encoding.resolve_precision(ENCODE.replace(precision="auto")) in ("fp32", "bf16")
    assert encoding.resolve_precision(ENCODE.replace(precision="bf16")) == "bf16"


def test_a_cache_in_bf16_is_another_one(
    project: Path, backbone: Path, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = ENCODE.replace(precision="bf16")
    job = encoding.EncodeJob(project / "images", project, backbone, tmp_path, METHOD, encode, seed=0)
    shutil.copy(latents / "index.json", tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # of the process of all tests
    writer = encoding.ShardWriter(job, False)
    assert [writer({"shard": shard})["rows"] for shard in range(3)] == [8, 8, 4]
    one, other = LatentCache(latents).rows([0, 19]), LatentCache(tmp_path).rows([0, 19])
    for name in ("source_latents", "masked_latents", "class_tokens"):
        difference = (one[name] - other[name]).square().mean().sqrt() / one[name].square().mean().sqrt()
        assert 0 < difference < 0.02
    assert torch.equal(one["mask"], other["mask"])


def test_shards_of_another_seed_are_replaced(latents: Path, project: Path, backbone: Path, tmp_path: Path) -> None:
    for name, data in contents(latents).items():
        (tmp_path / name).write_bytes(data)
    run(project, backbone, tmp_path, seed=1)
    assert not any(contents(tmp_path)[n] == contents(latents)[n] for n in map(shard_name, range(3)))


@pytest.mark.usefixtures("cluster")
def test_a_damaged_image_is_a_user_error_in_one_line(backbone: Path, tmp_path: Path) -> None:
    at = write_images(tmp_path, "train", {"a": np.zeros((70, 90, 3), np.uint8)})["a"]
    write_boxes(tmp_path, [("a_000", "a", "train", (5, 6, 40, 44), at._replace(num_bytes=at.num_bytes + 10**6))])
    with pytest.raises(UserError, match=r"train-00000\.tar") as raised:
        run(tmp_path, backbone, tmp_path / "latents")
    assert "\n" not in str(raised.value)
    assert not isinstance(raised.value, RayTaskError)


@pytest.mark.usefixtures("cluster")
def test_a_bug_in_a_worker_keeps_its_traceback(backbone: Path, tmp_path: Path) -> None:
    at = write_images(tmp_path, "train", {"a": np.zeros((70, 90, 3), np.uint8)})
    write_boxes(tmp_path, [("a_000", "a", "train", (-500, 6, -400, 44), at["a"])])  # an impossible box: our own bug
    with pytest.raises(RayTaskError, match="ValueError: high <= 0") as raised:
        run(tmp_path, backbone, tmp_path / "latents")
    assert not isinstance(raised.value, UserError)
    assert "pbe/latents/samples.py" in str(raised.value)


@pytest.mark.usefixtures("cluster")
def test_missing_gpus_and_cpus_are_reported_before_ray_waits_for_them() -> None:
    with pytest.raises(UserError, match=r"encode\.use_gpu: .* 2 GPUs are needed and it has 0; set encode\.use_gpu to"):
        check_resources("encode", 1, 2, can_grow=False)
    with pytest.raises(UserError, match=r"train\.num_workers: .* 9 CPUs are needed and it has 2; lower train\.num"):
        check_resources("train", 9, 0, can_grow=False)
    check_resources("train", 2, 0, can_grow=False)


@pytest.mark.usefixtures("cluster")
def test_a_cluster_that_can_grow_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    check_resources("train", 9, 0, can_grow=True)
    assert "waiting for the Ray cluster to grow: 9 CPUs are needed and it has 2" in capsys.readouterr().err
