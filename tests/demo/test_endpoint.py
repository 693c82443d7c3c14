"""The demo's endpoint: the bucket over S3 and plain HTTP, for as long as its parent runs."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from pbe.demo import endpoint as endpoint_module
from pbe.demo.endpoint import serve_bucket
from pbe.errors import UserError


def test_objects_are_served_over_s3_and_plain_http(bucket: Path, endpoint: str) -> None:
    path = sorted(bucket.glob("open-images-dataset/train/*.jpg"))[0]
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", config=Config(signature_version=UNSIGNED)
    )
    reply = client.get_object(Bucket="open-images-dataset", Key=f"train/{path.name}")
    assert reply["Body"].read() == path.read_bytes()
    key = "v5/validation-annotations-bbox.csv"
    with urllib.request.urlopen(f"{endpoint}/openimages/{key}") as page:
        assert page.read() == (bucket / "openimages" / key).read_bytes()


def test_it_stops_at_the_end_of_the_block(tmp_path: Path) -> None:
    (tmp_path / "some-bucket").mkdir()
    (tmp_path / "some-bucket" / "key").write_text("content")
    with serve_bucket(tmp_path) as url, urllib.request.urlopen(f"{url}/some-bucket/key") as page:
        assert page.read() == b"content"
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/some-bucket/key")


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "some-bucket").mkdir()
    code = (
        "import sys, time; from pathlib import Path; from pbe.demo.endpoint import serve_bucket\n"
        "with serve_bucket(Path(sys.argv[1])) as url: print(url, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    url = parent.stdout.readline().strip()
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert url.startswith("http://127.0.0.1:")
    assert children
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(_runs(int(pid)) for pid in children):
        assert time.monotonic() < deadline, "the endpoint outlived its parent"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder"), serve_bucket(tmp_path / "nowhere"):
        pass


def test_unfinished_files_are_not_served(tmp_path: Path) -> None:
    folder = tmp_path / "loading-test"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "a.jpg").write_bytes(b"a")
    (folder / "train" / ".b.part.jpg").write_bytes(b"b")
    endpoint_module._load(tmp_path)
    stored = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets["loading-test"].keys
    assert list(stored) == ["train/a.jpg"]
