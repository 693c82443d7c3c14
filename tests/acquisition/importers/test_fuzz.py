"""Damaged sets: each is imported or is a UserError of one line, and no image is lost silently."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from tests.support.fuzz_sets import FORMATS
from tests.support.fuzzing import check, damage


@pytest.mark.parametrize("source", FORMATS)
def test_the_valid_set_is_imported(tmp_path: Path, source: str) -> None:
    FORMATS[source].build(tmp_path / "set")
    assert check(source, tmp_path / "set", tmp_path / "out") == "imported"


@pytest.mark.parametrize("source", FORMATS)
def test_a_damaged_set_is_imported_or_an_error_of_one_line(
    tmp_path_factory: pytest.TempPathFactory, source: str
) -> None:
    @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(strategies.integers(0, 2**32 - 1))
    def import_damaged(number: int) -> None:
        folder = tmp_path_factory.mktemp("set")
        FORMATS[source].build(folder / "set")
        damage(folder / "set", random.Random(number))
        check(source, folder / "set", folder / "out")

    import_damaged()
