"""Tables, charts, slices and cautions of the report, from results made up by hand."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from pbe.evaluation.report.cautions import cautions
from pbe.evaluation.report.conditions import condition_rows
from pbe.evaluation.report.results import Difference, Estimate, Results, method_title, read_results
from pbe.evaluation.report.slices import slice_tables
from pbe.evaluation.report.tables import THEMES, difference_charts, metric_tables
from pbe.evaluation.scoring.metric_table import METRICS
from tests.support.report_files import write_evaluation

NAMES = ("paint_by_example", "copy_paste", "source")


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return read_results(write_evaluation(tmp_path, range(60), NAMES), tmp_path)


def test_the_marks_say_how_a_method_stands_to_the_subject(results: Results) -> None:
    identity = metric_tables(results)[0]
    assert [column.title for column in identity.columns] == ["identity", "CLIP score"]
    assert [row.title for row in identity.rows] == ["Paint by Example", "copy and paste", "unchanged source"]
    assert [row.cells[0].mark for row in identity.rows] == ["", "better", "worse"]
    fid = metric_tables(results)[1]
    assert [row.cells[0].mark for row in fid.rows] == ["", "tie", "tie"]


def test_a_row_without_intervals_can_be_added(results: Results) -> None:
    rows = metric_tables(results, extra={"guidance 1": {"fid": 0.0288}})[1].rows
    assert [row.title for row in rows][1] == "guidance 1"
    assert [cell.value for cell in rows[1].cells] == ["0.0288", "–"]  # noqa: RUF001
    assert rows[1].cells[0].interval == ""


def test_every_metric_has_a_table() -> None:
    assert sorted(metric for metrics in THEMES.values() for metric in metrics) == sorted(METRICS)


def test_both_protocols_stand_side_by_side(results: Results) -> None:
    row = {"qs": Estimate(77.8), "fid_official": Estimate(3.18), "fid": Estimate(3.2)}
    (table,) = metric_tables(replace(results, estimates={results.subject: row}, metrics=tuple(row)))
    assert [column.title for column in table.columns] == ["FID", "FID, official tools", "QS"]


def test_methods_without_a_metric_of_the_table_are_left_out(results: Results) -> None:
    estimates = {**results.estimates, results.subject: {"diversity": Estimate(13.9, 12.0, 15.8)}}
    (table,) = metric_tables(replace(results, estimates=estimates, metrics=("diversity",)))
    assert [row.title for row in table.rows] == ["Paint by Example"]


def test_a_bar_lies_where_its_interval_lies(results: Results) -> None:
    differences = {"source": {"fid": Difference("fid", "source", 0.5, -1.0, 3.0)}}
    (chart,), _ = difference_charts(replace(results, differences=differences, metrics=("fid",)))
    (bar,) = chart.bars
    width = 4.0 * 1.08
    assert chart.zero == pytest.approx(100 * 1.16 / width, abs=0.01)
    assert bar.low == pytest.approx(100 * 0.16 / width, abs=0.01)
    assert bar.high == pytest.approx(100 * 4.16 / width, abs=0.01)
    assert bar.text == "+0.500 [−1.000, 3.000]"  # noqa: RUF001
    assert bar.verdict == "tie"


def test_slices_divide_the_cases(results: Results) -> None:
    tables = {table.title: table for table in slice_tables(results)}
    assert [s.name for s in tables["class of the exemplar"].slices] == ["Moon", "Ring", "Star"]
    masks = tables["size of the mask"].slices
    assert masks[0].name == "below 5 % of the picture"
    for table in tables.values():
        assert sum(s.num_cases for s in table.slices) == 60


def test_a_slice_that_is_worse_stands_out(results: Results) -> None:
    own = pl.col("method") == results.subject
    worse = pl.when(own & (pl.col("label") == "Ring")).then(pl.col("identity") - 30).otherwise(pl.col("identity"))
    found = slice_tables(replace(results, case_scores=results.case_scores.with_columns(identity=worse)))
    cells = {s.name: s.cells[0].stands_out for s in found[0].slices}
    assert cells == {"Moon": "better", "Ring": "worse", "Star": "better"}


def test_few_cases_have_no_interval_and_a_share_of_all_has_one(results: Results) -> None:
    rare = pl.when(pl.col("case_id") < 3).then(pl.lit("Cross")).otherwise(pl.lit("Star"))
    scores = results.case_scores.with_columns(label=rare, class_agreement=pl.lit(100.0))
    cells = {s.name: s.cells for s in slice_tables(replace(results, case_scores=scores))[0].slices}
    assert all(cell.value is not None and cell.interval is None for cell in cells["Cross"])
    agreement = cells["Star"][2].interval
    assert agreement is not None
    assert agreement.low < 95 < agreement.high == pytest.approx(100.0)


def test_scores_of_other_methods_are_in_no_slice(results: Results) -> None:
    other = results.case_scores.with_columns(
        identity=pl.when(pl.col("method") == "source").then(1e6).otherwise(pl.col("identity"))
    )
    assert slice_tables(replace(results, case_scores=other)) == slice_tables(results)


def test_cautions_name_each_reason(results: Results) -> None:
    bench = {"cases": 64, "usable": 60, "skipped": {"inverted": 3, "tiny": 1}, "accepted": {"greyscale": 2}}
    summary = {**results.summary, "bench": bench, "num_reused_boxes": 5}
    text = "\n".join(cautions(replace(results, summary=summary, saturated=("qs",))))
    for reason in (
        "3,720 real images; the official evaluation has 40,670",
        "Real images against real images give 0.0041 [0.0032, 0.0055]",
        "QS has 14 of its 20 components",
        "QS cannot tell methods apart",
        "the painter's own CLIP tower",
        "4 of 64 cases were left out: 3 inverted and 1 tiny.",
        "2 cases are used although they have a fault: 2 greyscale.",
        "5 of the 60 cases repaint the box of an earlier case",
    ):
        assert reason in text


def test_an_official_evaluation_needs_no_caution(results: Results) -> None:
    summary = {"num_real_images": 40_670, "qs_components": 20, "features": "CLIP ViT-B/32", "num_cases": 3500}
    sound = replace(results, summary=summary, metrics=("fid", "identity"))
    assert cautions(sound) == []


def test_digests_of_the_conditions_are_shortened(results: Results) -> None:
    rows = {name: (text, whole) for name, text, whole in condition_rows(results)}
    assert rows["bench digest"] == ("0b" * 6, "0b" * 32)
    assert rows["encoder: name"] == ("tower", "tower")
    assert rows["guidance scale"][0] == "5"


def test_methods_have_titles() -> None:
    names = ("paint_by_example", "paint_by_example_guidance_3", "poisson", "AnyDoor")
    assert [method_title(name) for name in names] == [
        "Paint by Example", "Paint by Example, guidance 3", "Poisson blending", "AnyDoor",
    ]  # fmt: skip
