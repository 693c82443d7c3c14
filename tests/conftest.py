import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import write_backbone


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    """A whole backbone of random weights."""
    return write_backbone(tmp_path_factory.mktemp("backbone"))
