"""The tables from planted scores: each difference and verdict is the planted one."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pbe.demo.tables.content import Tables, all_tables
from pbe.demo.tables.estimates import resample
from pbe.demo.tables.figure import write_figure
from pbe.demo.tables.markdown import markdown
from pbe.demo.tables.pictures import sources_of, text_sources
from pbe.demo.tables.plot_files import write_plot_files
from pbe.demo.tables.scores import IRREGULAR_BENCH, Scores, Source, with_attributes
from pbe.demo.tables.variants import FULL, VARIANTS
from pbe.evaluation.metrics.frechet import fit_moments

SEEDS, NUM_CASES, FIRST, SCALES = (0, 1, 2), 40, 30, (1.0, 5.0, 9.0)
COPIED = {"baseline": 70.0, "prior": 80.0, "augmentation": 50.0, "bottleneck": 50.0, "guidance": 50.0}
IDENTITY = {1.0: 20.0, 5.0: 60.0, 9.0: 40.0}


def planted(source: Source, seed: int, rng: np.random.Generator) -> pl.DataFrame:
    """Cases whose difficulty is the same for every method, beside the planted level of the method."""
    difficulty = np.random.default_rng(1).normal(0, 20, NUM_CASES)
    level = IDENTITY[source.guidance] if source.painter == FULL.name else 30.0
    noise = rng.normal(0, 1.0, (4, NUM_CASES))
    return pl.DataFrame(
        {
            "case_id": range(NUM_CASES),
            "method": source.method(seed),
            "clip_score": 50 + difficulty + noise[0],
            "identity": level + difficulty + noise[1],
            "copy_paste_score": COPIED.get(source.painter, 50.0) + difficulty + noise[2],
            "seam_visibility": (2.0 if source == Source("box_masks", 5.0, IRREGULAR_BENCH) else 1.0) + 0.01 * noise[3],
            "shape_correct": (difficulty > 0).astype(float),
            "colour_correct": 1.0,
            "pattern_correct": (difficulty > 20).astype(float),
        }
    )


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sources = [*(s for v in VARIANTS for s in sources_of(v, 5.0, SCALES)), *text_sources(5.0)]
    methods = [(source, seed) for source in sources for seed in SEEDS]
    cases = with_attributes(pl.concat([planted(source, seed, rng) for source, seed in methods]))
    features = {source.method(seed): rng.normal(size=(NUM_CASES, 4)).astype(np.float32) for source, seed in methods}
    scores = Scores(SEEDS, cases, features)
    real = fit_moments(rng.normal(size=(500, 4)))
    whole = Tables(scores, real, resample(3, NUM_CASES, 400, 0.95, 0), 5.0)
    first = Tables(scores.head(FIRST), real, resample(3, FIRST, 400, 0.95, 0), 5.0)
    return all_tables(whole, first, SCALES)


def found(content: dict[str, Any], claim: str) -> str:
    return str(next(row["found"] for row in content["directions"] if row["claim"] == claim))


def test_planted_differences_are_found_and_absent_ones_are_not(content: dict[str, Any]) -> None:
    assert found(content, "augmentation lowers the copy-paste score") == "as expected"
    assert found(content, "augmentation lowers it where both rows have all attributes right") == "as expected"
    assert found(content, "the bottleneck lowers the copy-paste score") == "no difference"
    assert found(content, "augmentation lowers the CLIP score") == "no difference"
    assert found(content, "guidance 5 raises identity over 1") == "as expected"
    assert found(content, "guidance 9 lowers identity below 5") == "as expected"
    assert found(content, "arbitrary masks in training lower the seams of irregular masks") == "as expected"
    assert found(content, "the image beats the full caption on identity") == "as expected"


def test_a_row_has_the_planted_mean_and_its_change_from_the_row_above(content: dict[str, Any]) -> None:
    prior, augmentation = content["ablation"][1:3]
    assert prior["paper"] == {"fid": 3.40, "qs": None, "clip_score": 88.79}
    assert augmentation["change"]["copy_paste_score"]["value"] == pytest.approx(-30, abs=0.5)
    interval = augmentation["metrics"]["copy_paste_score"]
    assert interval["low"] < interval["value"] < interval["high"]
    assert interval["high"] - interval["low"] > 5  # the cases differ by 20; the paired change has not this width
    change = augmentation["change"]["copy_paste_score"]
    assert change["high"] - change["low"] < 1.5
    assert [row["title"] for row in content["guidance"]] == ["1", "5", "9"]


def test_attributes_are_the_share_of_those_that_are_right(content: dict[str, Any]) -> None:
    value = content["ablation"][0]["metrics"]["attributes"]["value"]
    assert 100 / 3 < value < 200 / 3  # colour always, pattern for few, shape for some


def test_the_opposite_of_a_claim_is_reported_as_such(content: dict[str, Any]) -> None:
    rising = {
        "claim": "c",
        "metric": "identity",
        "change": {"value": 1.0, "low": 0.5, "high": 1.5},
        "found": "the opposite",
    }
    text = markdown({**content, "directions": [rising]})
    assert "| c | **+1.00 [+0.50, +1.50]** | the opposite |" in text


def test_tables_as_markdown_have_one_width(content: dict[str, Any]) -> None:
    for block in markdown(content).split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1, block


def test_the_figure_is_the_same_for_the_same_numbers(content: dict[str, Any], tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_figure(tmp_path / name, content)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_dvc_reads_the_rows_as_csv(content: dict[str, Any], tmp_path: Path) -> None:
    write_plot_files(tmp_path, content)
    table = pl.read_csv(tmp_path / "tables-guidance.csv")
    assert table["guidance_scale"].to_list() == [1, 5, 9]
    assert table["identity"].to_list() == pytest.approx([20, 60, 40], abs=10)
    assert (table["identity_low"] < table["identity"]).all()
    assert pl.read_csv(tmp_path / "tables-ablation.csv")["row"][1] == "+ prior"
