"""The report's numbers as CSV and Markdown."""

import csv
from pathlib import Path

import pytest

from pbe.evaluation.report.csv_tables import write_csv_tables
from pbe.evaluation.report.markdown import report_markdown
from pbe.evaluation.report.results import Results, read_results
from pbe.evaluation.report.sweep import sweep_rows
from tests.support.report_files import sweep_metrics, write_evaluation

NAMES = ("paint_by_example", "copy_paste", "source")
SWEPT = ("paint_by_example_guidance_1", "paint_by_example_guidance_7")
IDS = range(40)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    metrics = write_evaluation(tmp_path, IDS, [*NAMES, *SWEPT])
    metrics["methods"] = {name: metrics["methods"][name] for name in NAMES}
    return read_results(metrics | sweep_metrics(40), tmp_path)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_method_is_a_row_of_metrics(results: Results, tmp_path: Path) -> None:
    write_csv_tables(tmp_path, results, {})
    rows = rows_of(tmp_path / "methods.csv")
    assert [row["method"] for row in rows] == list(NAMES)
    assert float(rows[0]["fid"]) == 0.0119
    assert not (tmp_path / "sweep.csv").exists()


def test_each_method_and_metric_is_a_row_of_the_comparison(results: Results, tmp_path: Path) -> None:
    write_csv_tables(tmp_path, results, {})
    rows = {(row["method"], row["metric"]): row for row in rows_of(tmp_path / "comparison.csv")}
    assert rows["paint_by_example", "fid"]["difference"] == ""
    assert rows["source", "fid"]["verdict"] == "tie"
    assert rows["source", "identity"]["verdict"] == "better"
    assert float(rows["source", "fid"]["difference_low"]) == -0.0024


def test_the_sweep_has_intervals_over_the_same_cases(results: Results, tmp_path: Path) -> None:
    sweep = sweep_rows(results)
    assert list(sweep) == ["1", "5", "7"]
    for row in sweep.values():
        assert row["clip_score_low"] < row["clip_score_high"]
        assert "shape_accuracy_low" not in row  # the case scores do not have it
    write_csv_tables(tmp_path, results, sweep)
    assert [row["guidance_scale"] for row in rows_of(tmp_path / "sweep.csv")] == ["1", "5", "7"]


def test_the_markdown_has_the_headline_the_table_and_the_address(results: Results, tmp_path: Path) -> None:
    text = report_markdown(results.summary, tmp_path, "file:///project/reports/index.html")
    assert text.startswith("Paint by Example’s identity is above")  # noqa: RUF001
    assert "| method | identity ↑ | FID ↓ | copy-paste score ↓ | seam visibility ↓ |" in text
    assert "| unchanged source | 1" in text
    assert "▼ |" in text
    assert "[The report](file:///project/reports/index.html)" in text
    assert "- FID and QS compare with 3,720 real images" in text


def test_a_method_alone_has_no_legend(tmp_path: Path) -> None:
    text = report_markdown(write_evaluation(tmp_path, IDS, ["AnyDoor"]), tmp_path)
    assert text.startswith("| method |")
    assert "▲" not in text
