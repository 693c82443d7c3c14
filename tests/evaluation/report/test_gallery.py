"""The report's sheet of examples: which cases it shows, and how."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pbe.evaluation.benches.bench import Bench, Origin
from pbe.evaluation.report.gallery import (
    GalleryRow,
    case_captions,
    gallery_rows,
    spread_cases,
    worst_cases,
    write_gallery_png,
)
from pbe.evaluation.scoring.case_scores import Method


def labelled(*labels: str) -> Bench:
    origins = tuple(Origin(i, "a", f"a_{i}", f"b_{i}", label, label.lower()) for i, label in enumerate(labels))
    return Bench(Path("absent"), tuple(range(len(labels))), origins)


def test_cases_are_taken_class_by_class_in_turn() -> None:
    bench = labelled("star", "star", "star", "ring", "moon", "ring")
    assert spread_cases(bench, 4) == [4, 3, 0, 5]
    assert spread_cases(bench, 99) == [4, 3, 0, 5, 1, 2]


def test_without_classes_cases_come_in_bench_order() -> None:
    assert spread_cases(Bench(Path("absent"), (9, 3, 5)), 2) == [9, 3]


def case_scores(metric: str, values: list[float]) -> pl.DataFrame:
    cases = {"case_id": range(len(values)), "method": ["painter"] * len(values), metric: values}
    other = pl.DataFrame({"case_id": [7], "method": ["source"], metric: [0.0]})
    return pl.concat([pl.DataFrame(cases), other])


def test_the_worst_cases_are_the_lowest_or_the_highest() -> None:
    scores = case_scores("clip_score", [50.0, 9.5, 70.0, -3.0, float("nan")])
    assert worst_cases(scores, "painter", "clip_score", 3) == {3: -3.0, 1: 9.5, 0: 50.0}
    scores = case_scores("seam_visibility", [1.0, 2.5, float("nan"), 2.5])
    assert list(worst_cases(scores, "painter", "seam_visibility", 3)) == [1, 3, 0]


def test_no_case_is_the_worst_when_all_are_equal() -> None:
    assert worst_cases(case_scores("background_psnr", [100.0, 100.0]), "painter", "background_psnr", 3) == {}


def test_captions_come_from_the_origins(bench: Bench) -> None:
    assert all(c.startswith("a ") for c in case_captions(bench))
    assert case_captions(labelled("Raccoon")) == ["raccoon"]
    assert case_captions(Bench(Path("absent"), (1,))) == ["an exemplar"]


def test_a_result_that_was_not_painted_is_none(bench: Bench) -> None:
    first = Method("first", lambda case: case.source, num_cases=1)
    rows = gallery_rows(bench, bench.ids[:2], [first], 256)
    assert [r.results[0] is None for r in rows] == [False, True]
    assert rows[0].box == bench.case(bench.ids[0]).box


def row(results: tuple[NDArray[np.uint8] | None, ...]) -> GalleryRow:
    white = np.full((16, 16, 3), 250, np.uint8)
    red = np.zeros((10, 5, 3), np.uint8)
    red[..., 0] = 255
    return GalleryRow(0, "a plain red square", white, (4, 4, 12, 12), red, results)


def test_images_are_reduced_and_the_box_with_them(bench: Bench) -> None:
    case = bench.case(bench.ids[0])
    half = max(case.source.shape) // 2
    (reduced,) = gallery_rows(bench, bench.ids[:1], [Method("source", lambda c: c.source)], half)
    assert max(reduced.source.shape[:2]) == half
    assert reduced.results[0] is not None
    assert reduced.results[0].shape == reduced.source.shape
    np.testing.assert_allclose(reduced.box, np.array(case.box) / 2, atol=0.51)


def test_the_sheet_shows_every_image_enlarged(tmp_path: Path) -> None:
    green = np.zeros((16, 16, 3), np.uint8)
    green[..., 1] = 255
    write_gallery_png([row((green, None))] * 2, ["one", "two"], tmp_path / "sheet.png")
    sheet = np.asarray(PillowImage.open(tmp_path / "sheet.png"))
    assert sheet.shape[1] > 4 * 48
    assert sheet.shape[0] > 2 * 48
    assert (sheet == [0, 255, 0]).all(-1).sum() == 2 * 48 * 48
    assert (sheet == [255, 0, 0]).all(-1).sum() == 2 * 48 * 24  # its aspect ratio is kept


def test_the_sheet_has_no_more_pixels_than_it_may(tmp_path: Path) -> None:
    write_gallery_png([row((None,) * 6)] * 8, ["a long title of a method"] * 6, tmp_path / "sheet.png", 60_000)
    width, height = PillowImage.open(tmp_path / "sheet.png").size
    assert 40_000 < width * height <= 60_000


def test_the_sheet_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_gallery_png([row((None,))], ["guidance 5"], tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_sheet_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        write_gallery_png([], ["one"], tmp_path / "sheet.png")
