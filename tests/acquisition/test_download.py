"""Acquisition end to end: every source, resuming, selections, losses and errors."""

import csv
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pbe.acquisition import download
from pbe.acquisition.download import MANIFEST_SCHEMA
from pbe.dataset.image_shards import LOCATION, ImageRef, ImageShards, scan_shard
from pbe.demo.bucket import ATTRIBUTES_FILE
from pbe.demo.endpoint import serve_bucket
from pbe.demo.faulty_endpoint import FAULTS, serve_faulty
from pbe.errors import UnavailableError, UserError
from pbe.settings import Acquire
from tests.support import parameters

acquire = partial(download.acquire, optional_files=[ATTRIBUTES_FILE])
acquire_demo = partial(download.acquire, required_files=[ATTRIBUTES_FILE])
DEMO = parameters.acquire(workers=4, images_per_shard=20)
BOXES = "annotations/train-annotations-bbox.csv"


@pytest.fixture(scope="module")
def raw(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "raw"
    acquire_demo(DEMO, 0, folder, endpoint_url=endpoint)
    return folder


@pytest.fixture
def own(bucket: Path, tmp_path: Path) -> Path:
    """A small folder in OpenImages' layout."""
    folder = tmp_path / "own"
    shutil.copytree(bucket / "open-images-dataset", folder)
    (folder / "annotations").mkdir()
    for path in bucket.glob("openimages/v?/*.csv"):
        shutil.copy(path, folder / "annotations")
    return folder


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def images_of(raw: Path) -> dict[tuple[str, str], bytes]:
    """Return the bytes of each image, read at the location in the manifest."""
    shards = ImageShards(raw / "images")
    rows = pl.read_parquet(raw / "manifest.parquet").filter(outcome="ok").iter_rows(named=True)
    return {(row["split"], row["image_id"]): shards.read_bytes(ImageRef(*(row[k] for k in LOCATION))) for row in rows}


def ids(raw: Path, split: str) -> set[str]:
    return {image_id for of, image_id in images_of(raw) if of == split}


def from_folder(root: Path, **changes: Any) -> Acquire:
    return parameters.acquire(source="folder", root=str(root), workers=4, **changes)


def test_the_demo_world_arrives_complete(bucket: Path, raw: Path) -> None:
    manifest = pl.read_parquet(raw / "manifest.parquet")
    assert manifest.schema == pl.Schema(MANIFEST_SCHEMA)
    assert manifest.height == 120
    assert manifest["outcome"].unique().to_list() == ["ok"]
    assert manifest.equals(manifest.sort("split", "image_id"))
    images = images_of(raw)
    for row in manifest.iter_rows(named=True):
        content = images[row["split"], row["image_id"]]
        assert content == (bucket / "open-images-dataset" / row["split"] / f"{row['image_id']}.jpg").read_bytes()
        assert (row["num_bytes"], row["md5"]) == (len(content), hashlib.md5(content).hexdigest())
        assert min(row["width"], row["height"]) == 64  # truncated ones included: the header is whole
    assert sorted(path.name for path in (raw / "annotations").iterdir()) == [
        "class-descriptions-boxable.csv",
        "train-annotations-bbox.csv",
        "train-images.csv",
        "validation-annotations-bbox.csv",
        "validation-images.csv",
        "world-attributes.csv",
    ]
    assert sorted(path.name for path in raw.parent.iterdir()) == [".raw.lock", "raw"]


def test_only_damaged_and_missing_images_are_fetched_again(raw: Path, endpoint: str) -> None:
    before = digest(raw)
    shards = sorted((raw / "images").iterdir())
    assert [path.name for path in shards] == [*(f"train-0000{n}.tar" for n in range(4)), "validation-00000.tar",
                                              "validation-00001.tar"]  # fmt: skip
    stamps = [path.stat().st_mtime_ns for path in shards]
    damaged, cut, gone = shards[1:4]
    with damaged.open("r+b") as file:
        file.seek(1000)
        file.write(b"not what was here")
    with cut.open("r+b") as file:
        file.truncate(scan_shard(cut)[15].offset + 100)
    num_gone = len(scan_shard(gone))
    gone.unlink()
    (raw / "images/train-00009.tar").write_bytes(b"of another selection")
    calls: list[tuple[int, int]] = []
    report = acquire_demo(
        DEMO, 0, raw, endpoint_url=endpoint, progress=lambda done, total, note="": calls.append((done, total))
    )
    assert report.num_fetched == 1 + 5 + num_gone
    assert calls == [(done, 120) for done in range(1, 121)]
    assert digest(raw) == before
    assert [path.stat().st_mtime_ns == stamp for path, stamp in zip(shards, stamps, strict=True)] == [
        True, False, False, False, True, True,
    ]  # fmt: skip
    assert report.as_dict()["outcomes"] == {"train": {"ok": 80}, "validation": {"ok": 40}}


def test_another_selection_and_shard_size_reuse_the_present_images(raw: Path, endpoint: str, tmp_path: Path) -> None:
    few = DEMO.replace(train_images=30, images_per_shard=7)
    shutil.copytree(raw, tmp_path / "raw")
    assert acquire_demo(few, 0, tmp_path / "raw", endpoint_url=endpoint).num_fetched == 0
    acquire_demo(few, 0, tmp_path / "fresh", endpoint_url=endpoint)
    assert digest(tmp_path / "raw") == digest(tmp_path / "fresh")
    report = acquire_demo(DEMO, 0, tmp_path / "raw", endpoint_url=endpoint)
    assert (report.num_fetched, report.num_present) == (50, 70)
    assert digest(tmp_path / "raw") == digest(raw)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fresh.lock", ".raw.lock", "fresh", "raw"]


SCRIPT = """
import sys, time
from pathlib import Path
from pbe.acquisition.download import acquire
from pbe.demo.bucket import ATTRIBUTES_FILE
from pbe.settings import Acquire

def progress(done, total, note=""):
    print(done, flush=True)
    time.sleep(float(sys.argv[4]))

settings = Acquire.model_validate_json(sys.argv[1])
out, url = Path(sys.argv[2]), sys.argv[3]
acquire(settings, 0, out, endpoint_url=url, required_files=[ATTRIBUTES_FILE], progress=progress)
"""


def start(settings: Acquire, out: Path, url: str, pause_s: float = 0.0) -> subprocess.Popen[str]:
    """Start acquire in another process, which prints a line for each image."""
    command = [sys.executable, "-c", SCRIPT, settings.model_dump_json(), str(out), url, str(pause_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_run_after_a_kill_ends_with_the_same_files(raw: Path, endpoint: str, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    process = start(DEMO, folder, endpoint, pause_s=0.05)
    part = tmp_path / ".raw.parts/new/train-00001.tar"
    while not part.exists() or part.stat().st_size < 30_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "manifest.parquet").exists()
    assert len(scan_shard(part)) >= 2
    shards = [*folder.glob("images/*.tar"), *tmp_path.glob(".raw.parts/new/*.tar")]
    in_shards = sum(len(scan_shard(shard)) for shard in shards)
    report = acquire_demo(DEMO, 0, folder, endpoint_url=endpoint)
    assert report.num_present == in_shards
    assert digest(folder) == digest(raw)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".raw.lock", "raw"]


def test_a_second_run_on_the_folder_is_refused(endpoint: str, tmp_path: Path) -> None:
    def while_running(done: int, total: int, note: str = "") -> None:
        with pytest.raises(UserError, match=rf"\.raw\.lock: locked by process {os.getpid()}; wait until it ends"):
            acquire_demo(DEMO, 0, tmp_path / "raw", endpoint_url=endpoint)

    one = parameters.acquire(workers=4, train_images=1, validation_images=1)
    acquire_demo(one, 0, tmp_path / "raw", endpoint_url=endpoint, progress=while_running)


@pytest.mark.long
def test_faults_and_kills_change_no_byte(bucket: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    settings = DEMO.replace(max_attempts=8)
    out = tmp_path / "faulty" / "raw"
    with serve_faulty(bucket, 0.3, seed=0, slow_s=0.1) as server:
        for number in (signal.SIGKILL, signal.SIGTERM):
            run = start(settings, out, server.url)
            assert run.stdout is not None
            for _ in range(rng.randrange(5, 60)):
                assert run.stdout.readline()
            run.send_signal(number)
            assert run.communicate()[1] == ""
            assert run.returncode == -number
            assert not (out / "manifest.parquet").exists()
        report = acquire_demo(settings, 0, out, endpoint_url=server.url)
    assert report.num_present >= 20
    assert server.faults.keys() == FAULTS.keys()
    with serve_faulty(bucket, 0.0, seed=0) as server:
        acquire_demo(settings, 0, tmp_path / "quiet" / "raw", endpoint_url=server.url)
    assert digest(out) == digest(tmp_path / "quiet" / "raw")
    assert sorted(path.name for path in out.parent.iterdir()) == [".raw.lock", "raw"]


def test_a_bucket_without_the_images_stops_the_run_early(bucket: Path, tmp_path: Path) -> None:
    shutil.copytree(bucket, tmp_path / "bucket", ignore=shutil.ignore_patterns("*.jpg"))
    with (
        serve_faulty(tmp_path / "bucket", 0.0, seed=0) as server,
        pytest.raises(UserError, match=r"lost 3 of 120 images \(3 missing\).*max_lost_frac"),
    ):
        acquire_demo(DEMO, 0, tmp_path / "raw", endpoint_url=server.url)
    assert server.num_requests < 60


def test_a_server_that_fails_is_unavailable(bucket: Path, tmp_path: Path) -> None:
    settings = DEMO.replace(max_attempts=1)
    with serve_faulty(bucket, 0.0, seed=0) as server:

        def fail_from_now_on(done: int, total: int, note: str = "") -> None:
            server.share, server.kinds = 1.0, ["500"]

        with pytest.raises(UnavailableError, match=r"images \(3 failed\).*HTTP 500 InternalError"):
            acquire_demo(settings, 0, tmp_path / "raw", endpoint_url=server.url, progress=fail_from_now_on)


def test_a_bug_is_not_reported_as_the_users_error(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        np.ones(2) + np.ones(3)

    monkeypatch.setattr("pbe.acquisition.shard_packing.encoded_size", broken)
    with pytest.raises(ValueError, match="operands could not be broadcast") as caught:
        acquire(from_folder(own), 0, tmp_path / "raw")
    assert not isinstance(caught.value, UserError)


def test_limits_and_classes_select_images(raw: Path, endpoint: str, tmp_path: Path) -> None:
    few = parameters.acquire(workers=4, train_images=5, validation_images=3, classes=("circle",))
    report = acquire_demo(few, 0, tmp_path / "raw", endpoint_url=endpoint)
    assert report.outcomes == {"train": {"ok": 5}, "validation": {"ok": 3}}
    with (tmp_path / "raw" / BOXES).open() as file:
        circles = {row["ImageID"] for row in csv.DictReader(file) if row["LabelName"] == "/m/0pbe01"}
    assert ids(tmp_path / "raw", "train") <= circles
    acquire_demo(
        parameters.acquire(workers=4, train_images=2, validation_images=1), 0, tmp_path / "raw", endpoint_url=endpoint
    )
    assert len(ids(tmp_path / "raw", "train")) == 2


def test_the_public_bucket_is_read_by_the_same_code(raw: Path, endpoint: str, tmp_path: Path) -> None:
    settings = parameters.acquire(
        source="openimages", endpoint_url=endpoint, annotations_url=f"{endpoint}/openimages", workers=4, train_images=8
    )
    report = download.acquire(settings, 0, tmp_path / "raw")
    assert report.outcomes == {"train": {"ok": 8}, "validation": {"ok": 40}}
    assert (tmp_path / "raw" / BOXES).read_bytes() == (raw / BOXES).read_bytes()
    assert not (tmp_path / "raw/annotations/world-attributes.csv").exists()


def test_a_folder_and_a_private_bucket_give_the_same(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    acquire(from_folder(own), 0, tmp_path / "a/raw")
    shutil.copytree(own, tmp_path / "served/mine/some/prefix")
    with serve_bucket(tmp_path / "served") as url:
        settings = parameters.acquire(source="s3", root="s3://mine/some/prefix", endpoint_url=url, workers=4)
        acquire(settings, 0, tmp_path / "b/raw")
    assert digest(tmp_path / "a/raw") == digest(tmp_path / "b/raw")


def test_an_acquired_folder_is_itself_a_source(raw: Path, tmp_path: Path) -> None:
    acquire(from_folder(raw, images_per_shard=20), 0, tmp_path / "raw")
    assert digest(tmp_path / "raw") == digest(raw)


def test_lost_images_are_counted_and_left_out(own: Path, tmp_path: Path) -> None:
    missing, corrupt = sorted((own / "train").iterdir())[:2]
    acquire(from_folder(own), 0, tmp_path / "raw")
    missing.unlink()
    corrupt.write_bytes(b"no picture")
    report = acquire(from_folder(own), 0, tmp_path / "raw")
    assert report.outcomes["train"] == {"corrupt": 1, "missing": 1, "ok": 78}
    manifest = pl.read_parquet(tmp_path / "raw/manifest.parquet").filter(pl.col("outcome") != "ok")
    assert dict(manifest.select("image_id", "outcome").iter_rows()) == {
        missing.stem: "missing",
        corrupt.stem: "corrupt",
    }
    assert manifest.select(*LOCATION, "width").rows() == [(None,) * 4] * 2
    assert not ids(tmp_path / "raw", "train") & {missing.stem, corrupt.stem}


def test_too_many_lost_images_are_an_error_on_one_line(own: Path, tmp_path: Path) -> None:
    for path in sorted((own / "validation").iterdir())[:4]:
        path.unlink()
    with pytest.raises(UserError, match=r"lost 3 of 120 images \(3 missing\).*max_lost_frac allows 2") as caught:
        acquire(from_folder(own), 0, tmp_path / "raw")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "raw/manifest.parquet").exists()
    report = acquire(from_folder(own, max_lost_frac=0.1), 0, tmp_path / "raw")
    assert report.outcomes["validation"] == {"missing": 4, "ok": 36}


def test_a_full_disk_is_reported_and_leaves_no_incomplete_shard(own: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a shard is larger
    try:
        with pytest.raises(UserError, match=rf"^{tmp_path}/raw: the file system cannot hold a file of this size"):
            acquire(from_folder(own), 0, tmp_path / "raw")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob(".raw.parts/*/*"))
    assert acquire(from_folder(own), 0, tmp_path / "raw").num_fetched == 120


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (parameters.acquire(source="folder"), r"acquire\.root: not set"),
        (
            parameters.acquire(source="folder", root="/nowhere/at/all"),
            r"acquire\.root: /nowhere/at/all is not a folder",
        ),
        (
            parameters.acquire(source="s3", root="bucket/prefix"),
            r"acquire\.root: 'bucket/prefix' is not s3://bucket/prefix",
        ),
        (parameters.acquire(source="demo"), r"acquire\.source: demo needs the endpoint"),
    ],
)
def test_errors_in_the_settings_are_named(settings: Acquire, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        acquire(settings, 0, tmp_path / "raw")


def test_errors_in_the_annotations_are_named(own: Path, tmp_path: Path) -> None:
    path = own / "annotations" / "oidv6-train-annotations-bbox.csv"
    original = path.read_text()
    path.write_text(original.replace("XMax", "X2"))
    with pytest.raises(UserError, match=r"train-annotations-bbox\.csv: column XMax is missing"):
        acquire(from_folder(own), 0, tmp_path / "raw")
    path.write_text(original.splitlines()[0] + "\n")
    with pytest.raises(UserError, match=r"train-annotations-bbox\.csv: no image has a box"):
        acquire(from_folder(own), 0, tmp_path / "raw")
    path.write_text(original.splitlines()[0] + "\n../x,xclick,/m/0pbe01,1,0,1,0,1,0,0,0,0,0" + ",0" * 8 + "\n")
    with pytest.raises(UserError, match=r"ImageID '\.\./x' cannot be a file name"):
        acquire(from_folder(own), 0, tmp_path / "raw")
    path.unlink()
    with pytest.raises(UserError, match=r"no such file; the source needs a train-annotations-bbox\.csv"):
        acquire(from_folder(own), 0, tmp_path / "raw")


def test_an_unreachable_annotation_file_is_unavailable(tmp_path: Path) -> None:
    settings = parameters.acquire(source="openimages", annotations_url="http://127.0.0.1:9", max_attempts=1)
    with pytest.raises(UnavailableError, match=r"cannot fetch an annotation file: http://127\.0\.0\.1:9/v6/oidv6"):
        acquire(settings, 0, tmp_path / "raw")


def test_images_stored_smaller_are_recognised_and_follow_the_settings(endpoint: str, tmp_path: Path) -> None:
    small = DEMO.replace(short_side_px=40)
    assert acquire_demo(small, 0, tmp_path / "raw", endpoint_url=endpoint).num_fetched == 120
    first = digest(tmp_path / "raw")
    manifest = pl.read_parquet(tmp_path / "raw/manifest.parquet")
    sides = manifest.select(pl.min_horizontal("width", "height")).to_series()
    assert (sides == 40).sum() > 100  # those cut short are kept as they came
    images = images_of(tmp_path / "raw")
    for row in manifest.iter_rows(named=True):
        content = images[row["split"], row["image_id"]]
        assert (row["num_bytes"], row["md5"]) == (len(content), hashlib.md5(content).hexdigest())
    again = acquire_demo(small, 0, tmp_path / "raw", endpoint_url=endpoint)
    assert (again.num_present, digest(tmp_path / "raw")) == (120, first)
    smaller = small.replace(short_side_px=32)
    acquire_demo(smaller, 0, tmp_path / "raw", endpoint_url=endpoint)
    acquire_demo(smaller, 0, tmp_path / "fresh", endpoint_url=endpoint)
    assert digest(tmp_path / "raw") == digest(tmp_path / "fresh")


def test_present_images_are_made_smaller_as_if_fetched_again(endpoint: str, tmp_path: Path) -> None:
    acquire_demo(DEMO, 0, tmp_path / "raw", endpoint_url=endpoint)
    small = DEMO.replace(short_side_px=40)
    acquire_demo(small, 0, tmp_path / "raw", endpoint_url=endpoint)
    acquire_demo(small, 0, tmp_path / "fresh", endpoint_url=endpoint)
    assert digest(tmp_path / "raw") == digest(tmp_path / "fresh")


def test_the_manifest_names_author_licence_and_source(raw: Path) -> None:
    manifest = pl.read_parquet(raw / "manifest.parquet")
    assert manifest["author"].unique().to_list() == ["the demo world"]
    assert manifest["license"].str.contains("creativecommons.org").all()
    for row in manifest.iter_rows(named=True):
        assert row["source_url"].endswith(f"{row['split']}/{row['image_id']}.jpg")
