import csv
import hashlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

from pbe.acquisition.download import MANIFEST_SCHEMA, acquire
from pbe.dataset.image_shards import LOCATION, ImageRef, ImageShards, scan_shard
from pbe.demo.endpoint import serve_bucket
from tests.support import parameters

DEMO = parameters.acquire(workers=4, processes=1, images_per_shard=20)
BOXES = "annotations/train-annotations-bbox.csv"


@pytest.fixture(scope="module")
def raw(endpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "raw"
    acquire(DEMO, 0, folder, endpoint)
    return folder


@pytest.fixture
def own(bucket, tmp_path):
    """A small folder of one's own data in OpenImages' layout."""
    folder = tmp_path / "own"
    shutil.copytree(bucket / "open-images-dataset", folder)
    (folder / "annotations").mkdir()
    for path in bucket.glob("openimages/v?/*.csv"):
        shutil.copy(path, folder / "annotations")
    return folder


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def images_of(raw):
    """Every image's bytes, as the manifest says where they lie."""
    shards = ImageShards(raw / "images")
    rows = pl.read_parquet(raw / "manifest.parquet").filter(outcome="ok").iter_rows(named=True)
    return {(row["split"], row["image_id"]): shards.read_bytes(ImageRef(*(row[k] for k in LOCATION))) for row in rows}


def ids(raw, split):
    return {image_id for of, image_id in images_of(raw) if of == split}


def from_folder(root, **changes):
    return parameters.acquire(source="folder", root=str(root), workers=4, **changes)


def test_the_demo_world_arrives_whole(bucket, raw):
    manifest = pl.read_parquet(raw / "manifest.parquet")
    assert dict(manifest.schema) == MANIFEST_SCHEMA
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


def test_nothing_whole_is_fetched_again_and_damage_is_mended(raw, endpoint):
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
    calls = []
    report = acquire(DEMO, 0, raw, endpoint, progress=lambda done, total: calls.append((done, total)))
    assert report.num_fetched == 1 + 5 + num_gone
    assert calls == [(done, 120) for done in range(1, 121)]
    assert digest(raw) == before
    assert [path.stat().st_mtime_ns == stamp for path, stamp in zip(shards, stamps, strict=True)] == [
        True, False, False, False, True, True,
    ]  # fmt: skip
    assert report.as_dict()["outcomes"] == {"train": {"ok": 80}, "validation": {"ok": 40}}


def test_another_selection_and_another_cut_use_the_images_that_are_here(raw, endpoint, tmp_path):
    few = DEMO.model_copy(update={"train_images": 30, "images_per_shard": 7})
    shutil.copytree(raw, tmp_path / "raw")
    assert acquire(few, 0, tmp_path / "raw", endpoint).num_fetched == 0
    acquire(few, 0, tmp_path / "fresh", endpoint)
    assert digest(tmp_path / "raw") == digest(tmp_path / "fresh")
    report = acquire(DEMO, 0, tmp_path / "raw", endpoint)
    assert (report.num_fetched, report.num_present) == (50, 70)
    assert digest(tmp_path / "raw") == digest(raw)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fresh.lock", ".raw.lock", "fresh", "raw"]


SCRIPT = """
import sys, time
from pathlib import Path
from pbe.dataset.image_shards import LOCATION, ImageRef, ImageShards, scan_shard
from pbe.acquisition.download import acquire
from pbe.settings import Acquire
settings = parameters.acquire(workers=2, processes=1, images_per_shard=20)
acquire(settings, 0, Path(sys.argv[1]), sys.argv[2], progress=lambda done, total: time.sleep(0.05))
"""


def test_killed_and_run_again_ends_with_the_same_tree(raw, endpoint, tmp_path):
    folder = tmp_path / "raw"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), endpoint])
    part = tmp_path / ".raw.parts/new/train-00001.tar"
    while not part.exists() or part.stat().st_size < 30_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "manifest.parquet").exists()
    assert len(scan_shard(part)) >= 2
    shards = [*folder.glob("images/*.tar"), *tmp_path.glob(".raw.parts/new/*.tar")]
    in_shards = sum(len(scan_shard(shard)) for shard in shards)
    report = acquire(DEMO, 0, folder, endpoint)
    assert report.num_present == in_shards
    assert digest(folder) == digest(raw)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".raw.lock", "raw"]


def test_a_second_run_on_the_folder_says_so(endpoint, tmp_path):
    def while_running(done, total):
        with pytest.raises(RuntimeError, match=r"raw: another acquire \(process \d+\) is at work there"):
            acquire(DEMO, 0, tmp_path / "raw", endpoint)

    acquire(
        parameters.acquire(workers=4, train_images=1, validation_images=1), 0, tmp_path / "raw", endpoint, while_running
    )


def test_limits_and_classes_select_images(raw, endpoint, tmp_path):
    few = parameters.acquire(workers=4, train_images=5, validation_images=3, classes=("circle",))
    report = acquire(few, 0, tmp_path / "raw", endpoint)
    assert report.outcomes == {"train": {"ok": 5}, "validation": {"ok": 3}}
    with (tmp_path / "raw" / BOXES).open() as file:
        circles = {row["ImageID"] for row in csv.DictReader(file) if row["LabelName"] == "/m/0pbe01"}
    assert ids(tmp_path / "raw", "train") <= circles
    acquire(parameters.acquire(workers=4, train_images=2, validation_images=1), 0, tmp_path / "raw", endpoint)
    assert len(ids(tmp_path / "raw", "train")) == 2


def test_the_public_bucket_is_read_by_the_same_code(raw, endpoint, tmp_path):
    settings = parameters.acquire(
        source="openimages", endpoint_url=endpoint, annotations_url=f"{endpoint}/openimages", workers=4, train_images=8
    )
    report = acquire(settings, 0, tmp_path / "raw")
    assert report.outcomes == {"train": {"ok": 8}, "validation": {"ok": 40}}
    assert (tmp_path / "raw" / BOXES).read_bytes() == (raw / BOXES).read_bytes()
    assert not (tmp_path / "raw/annotations/world-attributes.csv").exists()


def test_a_folder_and_a_private_bucket_give_the_same(own, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    acquire(from_folder(own), 0, tmp_path / "a/raw")
    shutil.copytree(own, tmp_path / "served/mine/some/prefix")
    with serve_bucket(tmp_path / "served") as url:
        settings = parameters.acquire(source="s3", root="s3://mine/some/prefix", endpoint_url=url, workers=4)
        acquire(settings, 0, tmp_path / "b/raw")
    assert digest(tmp_path / "a/raw") == digest(tmp_path / "b/raw")


def test_an_acquired_folder_is_itself_a_source(raw, tmp_path):
    acquire(from_folder(raw, images_per_shard=20), 0, tmp_path / "raw")
    assert digest(tmp_path / "raw") == digest(raw)


def test_lost_images_are_counted_and_kept_out(own, tmp_path):
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


def test_too_many_lost_images_are_an_error_of_one_line(own, tmp_path):
    for path in sorted((own / "validation").iterdir())[:4]:
        path.unlink()
    with pytest.raises(RuntimeError, match=r"more than 2 of 120 images lost \(3 missing\).*max_lost_frac") as caught:
        acquire(from_folder(own), 0, tmp_path / "raw")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "raw/manifest.parquet").exists()
    report = acquire(from_folder(own, max_lost_frac=0.1), 0, tmp_path / "raw")
    assert report.outcomes["validation"] == {"missing": 4, "ok": 36}


def test_a_full_disk_is_told_and_nothing_half_written_stays(own, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a shard is larger
    try:
        with pytest.raises(OSError, match="no room left on its disk") as caught:
            acquire(from_folder(own), 0, tmp_path / "raw")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path / "raw")
    assert not list(tmp_path.glob(".raw.parts/*/*"))
    assert acquire(from_folder(own), 0, tmp_path / "raw").num_fetched == 120


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (parameters.acquire(source="folder"), r"acquire\.root: not set"),
        (parameters.acquire(source="folder", root="/nowhere/at/all"), r"acquire\.root: /nowhere/at/all is no folder"),
        (
            parameters.acquire(source="s3", root="bucket/prefix"),
            r"acquire\.root: 'bucket/prefix' is no s3://bucket/prefix",
        ),
        (parameters.acquire(source="demo"), r"acquire\.source: demo needs the endpoint"),
    ],
)
def test_mistakes_in_the_settings_are_named(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        acquire(settings, 0, tmp_path / "raw")


def test_mistakes_in_the_annotations_are_named(own, tmp_path):
    path = own / "annotations" / "oidv6-train-annotations-bbox.csv"
    original = path.read_text()
    path.write_text(original.replace("XMax", "X2"))
    with pytest.raises(ValueError, match=r"train-annotations-bbox\.csv: column XMax is missing"):
        acquire(from_folder(own), 0, tmp_path / "raw")
    path.write_text(original.splitlines()[0] + "\n")
    with pytest.raises(ValueError, match=r"train-annotations-bbox\.csv: no image has a box"):
        acquire(from_folder(own), 0, tmp_path / "raw")
    path.write_text(original.splitlines()[0] + "\n../x,xclick,/m/0pbe01,1,0,1,0,1,0,0,0,0,0" + ",0" * 8 + "\n")
    with pytest.raises(ValueError, match=r"ImageID '\.\./x' is no file name"):
        acquire(from_folder(own), 0, tmp_path / "raw")
    path.unlink()
    with pytest.raises(ValueError, match=r"no such file; the source has no train-annotations-bbox\.csv"):
        acquire(from_folder(own), 0, tmp_path / "raw")


def test_unreachable_annotations_are_an_error_of_one_line(tmp_path):
    settings = parameters.acquire(source="openimages", annotations_url="http://127.0.0.1:9", max_attempts=1)
    with pytest.raises(RuntimeError, match=r"annotation file not to be had: http://127\.0\.0\.1:9/v6/oidv6"):
        acquire(settings, 0, tmp_path / "raw")


def test_images_stored_smaller_are_known_again_and_follow_the_settings(endpoint, tmp_path):
    small = DEMO.model_copy(update={"short_side_px": 40})
    assert acquire(small, 0, tmp_path / "raw", endpoint).num_fetched == 120
    first = digest(tmp_path / "raw")
    manifest = pl.read_parquet(tmp_path / "raw/manifest.parquet")
    sides = manifest.select(pl.min_horizontal("width", "height")).to_series()
    assert (sides == 40).sum() > 100  # those cut short are kept as they came
    images = images_of(tmp_path / "raw")
    for row in manifest.iter_rows(named=True):
        content = images[row["split"], row["image_id"]]
        assert (row["num_bytes"], row["md5"]) == (len(content), hashlib.md5(content).hexdigest())
    again = acquire(small, 0, tmp_path / "raw", endpoint)
    assert (again.num_present, digest(tmp_path / "raw")) == (120, first)
    smaller = small.model_copy(update={"short_side_px": 32})
    acquire(smaller, 0, tmp_path / "raw", endpoint)
    acquire(smaller, 0, tmp_path / "fresh", endpoint)
    assert digest(tmp_path / "raw") == digest(tmp_path / "fresh")


def test_whole_images_that_are_there_are_made_smaller_without_fetching_them(endpoint, tmp_path):
    acquire(DEMO, 0, tmp_path / "raw", endpoint)
    small = DEMO.model_copy(update={"short_side_px": 40})
    acquire(small, 0, tmp_path / "raw", endpoint)
    acquire(small, 0, tmp_path / "fresh", endpoint)
    assert digest(tmp_path / "raw") == digest(tmp_path / "fresh")


def test_the_manifest_says_whom_an_image_is_by(raw):
    manifest = pl.read_parquet(raw / "manifest.parquet")
    assert manifest["author"].unique().to_list() == ["the demo world"]
    assert manifest["license"].str.contains("creativecommons.org").all()
    for row in manifest.iter_rows(named=True):
        assert row["source_url"].endswith(f"{row['split']}/{row['image_id']}.jpg")
