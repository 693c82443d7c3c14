"""The tables as CSV files that `dvc plots` reads: a row for each model or guidance scale, a column for each metric."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pbe.runtime.files import write_text

DIGITS = 5


def write_plot_files(folder: Path, content: Mapping[str, Any]) -> None:
    """Write tables-ablation.csv and tables-guidance.csv: values, and the ends of their intervals."""
    for table, name in (("ablation", "row"), ("guidance", "guidance_scale")):
        write_text(folder / f"tables-{table}.csv", _csv(content[table], name))


def _csv(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    return pl.DataFrame([{name: row["title"], **_columns(row)} for row in rows]).write_csv()


def _columns(row: Mapping[str, Any]) -> dict[str, float]:
    columns: dict[str, float] = {}
    for metric, estimate in row["metrics"].items():
        columns |= {metric: estimate["value"], f"{metric}_low": estimate["low"], f"{metric}_high": estimate["high"]}
    return {column: round(value, DIGITS) for column, value in columns.items()}
