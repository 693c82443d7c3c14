"""A run's storage in a bucket over S3: another node can load checkpoints, and damaged ones are skipped."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pbe.demo.endpoint import serve_bucket
from pbe.errors import UnavailableError, UserError
from pbe.training.best import BestWeights
from pbe.training.checkpoints import load_checkpoint
from pbe.training.journal import StepRecord
from pbe.training.storage import Bucket, RunStorage


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("s3")
    (folder / "runs").mkdir()
    with serve_bucket(folder) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield "s3://runs"


def state(step: int) -> dict[str, Any]:
    return {"step": step, "model": {"w": torch.arange(1000.0) + step}}


def test_another_node_loads_the_newest_checkpoint(s3: str, tmp_path: Path) -> None:
    bucket = Bucket(f"{s3}/newest")
    first = RunStorage(tmp_path / "a", bucket)
    for step in (2, 4, 6):
        first.save(step, state(step), keep=2)
    assert bucket.checkpoints() == ["step-00000004", "step-00000006"]
    other = RunStorage(tmp_path / "b", bucket)
    newest = other.newest()
    assert newest is not None
    loaded = load_checkpoint(other.fetch(newest))
    assert torch.equal(loaded["model"]["w"], state(6)["model"]["w"])
    first.remove_local_copies()
    assert not list((tmp_path / "a").iterdir())


def test_another_node_delivers_the_best_weights_and_the_run_resumes_from_its_own(s3: str, tmp_path: Path) -> None:
    run = RunStorage(tmp_path / "a", Bucket(f"{s3}/best"))
    records = [StepRecord(i, 1.0, None, None, None, None, 1e-3, 1.0, loss) for i, loss in enumerate((0.5, 0.3, 0.4))]
    for record in records:
        loss, step = record.validation_loss, record.step + 1
        assert loss is not None
        BestWeights(run).offer(step, loss, records[:step], {"w": torch.full((2,), float(step))})
        run.save(step, state(step), keep=1)
    other = RunStorage(tmp_path / "b", Bucket(f"{s3}/best"))
    assert other.newest() == "step-00000003"
    chosen = BestWeights(other).choose("best", records)
    weights = {"w": torch.zeros(2)}
    BestWeights(other).copy_to(chosen.step, weights)
    assert weights["w"].tolist() == [2, 2]


def test_a_damaged_checkpoint_in_the_bucket_is_skipped_with_a_warning(
    s3: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = Bucket(f"{s3}/damaged")
    RunStorage(tmp_path / "a", bucket).save(2, state(2), keep=2)
    RunStorage(tmp_path / "a", bucket).save(4, state(4), keep=2)
    cut = tmp_path / "cut"
    cut.write_bytes((tmp_path / "a/step-00000004/state.pt").read_bytes()[:-9])
    bucket.put(cut, "step-00000004/state.pt")
    with caplog.at_level(logging.WARNING):
        assert RunStorage(tmp_path / "b", bucket).newest() == "step-00000002"
    assert f"{s3}/damaged/step-00000004: damaged" in caplog.text


def test_a_checkpoint_without_a_checksum_does_not_count(s3: str, tmp_path: Path) -> None:
    bucket = Bucket(f"{s3}/part")
    assert RunStorage(tmp_path, bucket).newest() is None
    (tmp_path / "half").write_bytes(b"half")
    bucket.put(tmp_path / "half", "step-00000008/state.pt")
    assert bucket.checkpoints() == []


def test_folders_and_published_files_can_be_downloaded(s3: str, tmp_path: Path) -> None:
    bucket = Bucket(f"{s3}/files")
    (tmp_path / "model/unet").mkdir(parents=True)
    (tmp_path / "model/unet/config.json").write_text("{}")
    bucket.put_folder(tmp_path / "model", "model")
    bucket.get_folder("model", tmp_path / "again")
    assert (tmp_path / "again/unet/config.json").read_text() == "{}"
    storage = RunStorage(tmp_path / "a", bucket)
    (storage.folder / "journal.jsonl").write_text("{}\n")
    storage.publish(storage.folder / "journal.jsonl")
    assert list(bucket.list_objects()) == ["journal.jsonl"]


def test_an_unknown_kind_of_address_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"train\.storage: gopher://x"):
        Bucket("gopher://x")


def test_a_missing_object_or_bucket_is_a_user_error_with_the_address(s3: str, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=rf"train\.storage: {s3}/x: "):
        Bucket(f"{s3}/x").get("missing", tmp_path / "missing")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match=r"train\.storage: s3://none/x: "):
        Bucket("s3://none/x").put(tmp_path / "file", "file")


def test_a_shared_folder_needs_no_bucket(tmp_path: Path) -> None:
    storage = RunStorage(tmp_path)
    storage.save(3, state(3), keep=1)
    assert storage.newest() == "step-00000003"
    assert storage.fetch("step-00000003") == tmp_path / "step-00000003"
