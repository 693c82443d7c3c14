"""Errors of the user's CSV and parquet files, each one line that names the file."""

from pathlib import Path

import polars as pl
import pytest

from pbe.dataset.table_files import collect, read_parquet
from pbe.errors import UserError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"name\nJos\xe9\n", "not a readable CSV file: invalid utf-8 sequence"),
        (b"a,b\n1,2,3\n", "not a readable CSV file: found more fields than defined in 'Schema'$"),
    ],
)
def test_a_malformed_csv_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.csv: {message}"):
        collect(pl.scan_csv(path, infer_schema=False), path)


def test_the_file_of_a_stage_names_the_stage_to_run(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(UserError, match=r"a\.parquet: no such file; run the filter stage first"):
        read_parquet(path, ["x"], "filter")
    pl.DataFrame({"x": [1], "more": [2]}).write_parquet(path)
    assert read_parquet(path, ["x"], "filter").columns == ["x", "more"]
    with pytest.raises(UserError, match=r"a\.parquet: column y is missing; run the filter stage again"):
        read_parquet(path, ["x", "y"], "filter")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=r"a\.parquet: not a readable parquet file: "):
        read_parquet(path, ["x"], "filter")


def test_an_error_in_a_query_is_not_an_error_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("name\nx\n")
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        collect(pl.scan_csv(path).select("nom"), path)
