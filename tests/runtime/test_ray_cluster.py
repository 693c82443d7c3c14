"""What a stage says while Ray waits for CPUs and GPUs that its cluster does not have free."""

import threading
from collections.abc import Iterator

import pytest
import ray

from pbe.runtime import ray_cluster as module
from pbe.runtime.ray_cluster import ray_cluster, waiting_reported
from tests.support.toy_project import wait_for


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_cluster(None, 2):
        yield


def report_of(capsys: pytest.CaptureFixture[str], **resources: float) -> list[str]:
    """Submit a task that the cluster cannot place, and return the first two lines that are printed."""
    lines: list[str] = []
    with waiting_reported("encode", first_s=0.3, every_s=0.6):
        waiting = ray.remote(**resources)(lambda: 0).remote()
        assert wait_for(lambda: len(lines.extend(capsys.readouterr().err.splitlines()) or lines) >= 2, within_s=30)
        ray.cancel(waiting, force=True)
    return lines[:2]


@pytest.mark.usefixtures("cluster")
def test_a_task_that_waits_for_a_gpu_says_so_again_and_again(capsys: pytest.CaptureFixture[str]) -> None:
    line = "encode: waiting for the Ray cluster: 1 GPU is needed and it has 0 free"
    assert report_of(capsys, num_gpus=1) == [line, line]


@pytest.mark.usefixtures("cluster")
def test_tasks_that_queue_for_a_moment_are_not_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting_reported("encode"):
        assert ray.get([ray.remote(lambda: 0).remote() for _ in range(4)]) == [0] * 4
    assert "waiting" not in capsys.readouterr().err


def test_a_head_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ended = threading.Event()

    def unmet_demands(address: str) -> None:
        if asked:
            ended.set()
        asked.append(address)
        raise RuntimeError("Timed out while waiting for GCS to become available")

    monkeypatch.setattr(module, "unmet_demands", unmet_demands)
    module._report_waiting("encode", "127.0.0.1:9", ended, first_s=0.0, every_s=0.0)
    assert asked == ["127.0.0.1:9"]
