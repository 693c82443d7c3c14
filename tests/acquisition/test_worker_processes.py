"""Several processes that pack: killed in any way they leave together, and what they leave is of use."""

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pbe.acquisition.download import acquire
from pbe.dataset.openimages import IMAGES_BUCKET
from pbe.demo.faulty_endpoint import FAULTS, serve_faulty
from tests.support import parameters

TWO = parameters.acquire(workers=4, processes=2, images_per_shard=20, max_attempts=8)
SCRIPT = """
import sys
from pathlib import Path
from pbe.acquisition.download import acquire
from pbe.settings import Acquire
settings = Acquire.model_validate_json(sys.argv[1])
acquire(settings, 0, Path(sys.argv[2]), sys.argv[3], progress=lambda done, total: print(done, flush=True))
"""


def start(out, url):
    """The real thing; it prints a line for each image."""
    command = [sys.executable, "-c", SCRIPT, TWO.model_dump_json(), str(out), url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def crew_of(out):
    """The processes that work on `out` but for the one that was started."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if "pbe.acquisition.worker_processes" in arguments and str(out) in arguments[-2]:
            found.add(int(process.name))
    return found


def wait_until_gone(crew, out):
    deadline = time.monotonic() + 20
    while left := crew & crew_of(out):
        assert time.monotonic() < deadline, f"{left} outlived their parent"
        time.sleep(0.01)


def content_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_faults_and_kills_change_no_bit(bucket, tmp_path):
    rng = random.Random(0)
    out = tmp_path / "faulty" / "raw"
    crew, runs = set(), []
    with serve_faulty(bucket, 0.3, seed=0, slow_s=0.1) as server:
        for number in (signal.SIGKILL, signal.SIGTERM):
            runs.append(start(out, server.url))  # at once, while the processes of the one before may still be there
            wait_until_gone(crew, out)
            for _ in range(rng.randrange(5, 60)):
                assert runs[-1].stdout.readline()
            crew = crew_of(out)
            assert len(crew) == 2
            runs[-1].send_signal(number)
            assert runs[-1].wait() == -number
            assert not (out / "manifest.parquet").exists()
        wait_until_gone(crew, out)
        report = acquire(TWO, 0, out, server.url)
    assert report.num_present >= 40
    assert [run.communicate()[1] for run in runs] == ["", ""]
    assert server.faults.keys() == FAULTS.keys()
    with serve_faulty(bucket, 0.0, seed=0) as server:
        acquire(TWO.model_copy(update={"processes": 1}), 0, tmp_path / "quiet" / "raw", server.url)
    assert content_of(out) == content_of(tmp_path / "quiet" / "raw")
    assert sorted(path.name for path in out.parent.iterdir()) == [".raw.lock", "raw"]


def test_too_many_lost_images_stop_all_processes(bucket, tmp_path):
    shutil.copytree(bucket, tmp_path / "bucket")
    shutil.rmtree(tmp_path / "bucket" / IMAGES_BUCKET)
    with serve_faulty(tmp_path / "bucket", 0.0, seed=0) as server:
        with pytest.raises(RuntimeError, match=r"more than 2 of 120 images lost \(3 missing\).*max_lost_frac"):
            acquire(TWO, 0, tmp_path / "raw", server.url)
        assert not crew_of(tmp_path / "raw")


def test_a_process_on_a_full_disk_says_so_through_its_parent(bucket, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a shard is larger
    try:
        with serve_faulty(bucket, 0.0, seed=0) as server, pytest.raises(OSError, match="no room left") as caught:
            acquire(TWO.model_copy(update={"images_per_shard": 60}), 0, tmp_path / "raw", server.url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "raw")


def test_the_end_of_one_process_is_told_at_once_and_an_interrupt_is_for_the_parent(bucket, tmp_path, capfd):
    def progress(done, total):
        if done in signals:
            for pid in sorted(crew_of(tmp_path / "raw"))[: 3 - done]:
                os.kill(pid, signals[done])
        seen.append(done)

    seen, signals = [], {1: signal.SIGINT, 2: signal.SIGKILL}
    ended = pytest.raises(RuntimeError, match="ended with -9; run it again")
    with serve_faulty(bucket, 1.0, seed=0, slow_s=0.2, kinds=["slow"]) as server, ended:
        acquire(TWO, 0, tmp_path / "raw", server.url, progress=progress)
    assert len(seen) < 80
    assert "Traceback" not in capfd.readouterr().err
