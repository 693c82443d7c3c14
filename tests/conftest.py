"""What all tests share: no telemetry, and a backbone of random weights."""

import os
from pathlib import Path

import pytest

from flows import environment

environment.apply()  # the libraries read it at import
if "PYTEST_XDIST_WORKER" in os.environ:  # a process for each core: a second thread would wait for the other's
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.tiny_models import write_backbone  # noqa: E402


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole backbone with random weights."""
    return write_backbone(tmp_path_factory.mktemp("backbone"))
