"""What all tests share: no telemetry, and a backbone of random weights."""

from pathlib import Path

import pytest

from flows import environment

environment.apply()  # the libraries read it at import

from tests.tiny_models import write_backbone  # noqa: E402


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole backbone with random weights."""
    return write_backbone(tmp_path_factory.mktemp("backbone"))
