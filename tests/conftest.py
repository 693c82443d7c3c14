"""What all tests share: no telemetry, and a backbone of random weights."""

import os
from pathlib import Path

import pytest

from flows import environment

environment.apply()  # the libraries read it at import
if "PYTEST_XDIST_WORKER" in os.environ:  # a process for each core: a second thread would wait for the other's
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.tiny_models import write_backbone  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process ends with one while the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole backbone with random weights."""
    return write_backbone(tmp_path_factory.mktemp("backbone"))
