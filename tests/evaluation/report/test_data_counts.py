"""The counts of the stages, as the report shows them."""

import json
from pathlib import Path

import pytest

from pbe.errors import UserError
from pbe.evaluation.report.data_counts import MAX_COUNTS, read_counts, read_funnels


def test_counts_are_flattened_and_zeros_left_out(tmp_path: Path) -> None:
    text = '{"train": {"keep": 40, "dark": 10, "bright": 0}, "rate": 0.5, "num_bytes": 99, "ok": true}'
    (tmp_path / "c.json").write_text(text)
    assert [(c.name, c.number, c.share) for c in read_counts(tmp_path / "c.json")] == [
        ("train: keep", 40, 1.0),
        ("train: dark", 10, 0.25),
    ]
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(UserError, match=r"c\.json: not valid JSON"):
        read_counts(tmp_path / "c.json")


def test_many_counts_are_added_up(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({f"class {i}": 1 + i for i in range(600)}))
    counts = read_counts(tmp_path / "c.json")
    assert len(counts) == MAX_COUNTS
    assert counts[-1].name == "571 smaller counts"
    assert sum(count.number for count in counts) == sum(range(1, 601))


def test_files_that_do_not_exist_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "filter.json").write_text('{"rows": 3}')
    assert list(read_funnels([tmp_path / "acquire.json", tmp_path / "filter.json"])) == ["filter"]
