"""CSV and parquet files read with polars: what is wrong with a file becomes one line that names it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from pbe.errors import UserError


@contextmanager
def file_errors(path: Path, kind: str = "CSV") -> Iterator[None]:
    """Convert what polars raises on a missing, empty or malformed file of `kind` to a UserError that names the file.

    Only reading belongs in the block: an error of a query over the file's columns is a bug, and must not be converted.
    """
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except pl.exceptions.NoDataError:
        raise UserError(f"{path}: the file is empty") from None
    except pl.exceptions.ComputeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: not a readable {kind} file: {reason}") from None


def collect(frame: pl.LazyFrame, path: Path, kind: str = "CSV") -> pl.DataFrame:
    """Collect a scan of `path`; raises UserError naming the file when its rows cannot be read."""
    with file_errors(path, kind):
        return frame.collect(engine="streaming")


def scan_parquet(path: Path, columns: Sequence[str], stage: str) -> pl.LazyFrame:
    """Scan a parquet file that `stage` writes, with all of its columns.

    Raises UserError naming the file and the stage to run when the file is missing, malformed or lacks one of `columns`.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the {stage} stage first")
    with file_errors(path, "parquet"):
        found = pl.read_parquet_schema(path)
    missing = [column for column in columns if column not in found]
    if missing:
        raise UserError(f"{path}: column {', '.join(missing)} is missing; run the {stage} stage again")
    return pl.scan_parquet(path)


def read_parquet(path: Path, columns: Sequence[str], stage: str) -> pl.DataFrame:
    """Read a parquet file that `stage` writes, with all of its columns; raises what `scan_parquet` raises."""
    frame = scan_parquet(path, columns, stage)
    with file_errors(path, "parquet"):
        return frame.collect()


def require_columns(path: Path, found: Sequence[str], required: Sequence[str]) -> None:
    """Raise UserError naming the columns that the user's file lacks, and those that it has."""
    missing = [column for column in required if column not in found]
    if missing:
        raise UserError(f"{path}: column {', '.join(missing)} is missing; columns found: {', '.join(found)}")
