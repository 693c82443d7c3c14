"""The report's page, gallery and counts."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pbe.dataset.images import read_image
from pbe.demo.attribute_classifier import AttributeClassifier
from pbe.errors import UserError
from pbe.evaluation.bench import Bench, result_path
from pbe.evaluation.case_scores import Method
from pbe.evaluation.encoders.protocol import FeatureEncoder
from pbe.evaluation.paint_plan import GuidanceSweep, paint_bench
from pbe.evaluation.painting import Sampling
from pbe.evaluation.report.figures import Losses, guidance_figure, read_losses, smooth, training_figure
from pbe.evaluation.report.page import (
    accuracy_names,
    format_number,
    read_counts,
    relative_accuracies,
    write_gallery,
    write_report,
)
from pbe.evaluation.scoring import Metrics, score_bench
from tests.support.paster import Paster

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """The images and addresses of a page; its construction fails when tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset")]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def metrics(
    bench: Bench,
    encoder: FeatureEncoder,
    classifier: AttributeClassifier,
    sweep: GuidanceSweep,
    sampling: Sampling,
    out: Path,
) -> Metrics:
    references = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    paint_bench(bench, sweep, sampling, Paster(), out, model_key="a")
    return score_bench(bench, out, sweep, sampling, references, encoder, classifier)


def methods_of(bench: Bench, sweep: GuidanceSweep, out: Path) -> list[Method]:
    return [method_of(job.folder, job.num_cases) for job in sweep.jobs(bench, out)]


def method_of(folder: Path, num_cases: int | None = None) -> Method:
    return Method(folder.name, lambda case: read_image(result_path(folder, case.id)), num_cases=num_cases)


def losses_csv(folder: Path) -> Path:
    path = folder / "losses.csv"
    path.write_text("step,loss,lr,grad_norm\n" + "".join(f"{i},{1 / i},{1e-3 / i},1\n" for i in range(1, 61)))
    return path


def test_the_page_is_complete_and_has_no_external_files(
    metrics: Metrics, bench: Bench, out: Path, sweep: GuidanceSweep, tmp_path: Path
) -> None:
    (tmp_path / "filter.json").write_text('{"rows": 90, "rejects": {"too_small": 30, "group_of": 0}}')
    counts = [tmp_path / "filter.json", tmp_path / "absent.json"]
    write_report(
        tmp_path / "a.html",
        bench,
        methods_of(bench, sweep, out),
        out,
        metrics,
        losses=losses_csv(tmp_path),
        counts=counts,
    )
    text = (tmp_path / "a.html").read_text()
    page = Page(text)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import|<script", text)
    assert all(image["alt"] for image in page.images)
    assert len(page.images) == 5 * (2 + 3) + 8 * (2 + 2)
    for shown in ("rejects: too small", "84.97", "none of these numbers is comparable", "learning rate", "pixels"):
        assert shown in text
    assert "group of" not in text
    assert "inf" not in re.findall(r">(nan|inf)<", text)


def test_the_page_is_the_same_bytes_each_time(
    metrics: Metrics, bench: Bench, out: Path, sweep: GuidanceSweep, tmp_path: Path
) -> None:
    pages = []
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, bench, methods_of(bench, sweep, out), out, metrics, losses=losses_csv(tmp_path))
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_a_bench_without_truth_has_a_page_without_accuracies(
    bench: Bench, encoder: FeatureEncoder, sweep: GuidanceSweep, sampling: Sampling, tmp_path: Path
) -> None:
    plain = Bench(bench.folder, bench.ids)
    references = [bench.case(i).source for i in bench.ids]
    paint_bench(plain, sweep, sampling, Paster(), tmp_path, model_key="a")
    metrics = score_bench(plain, tmp_path, sweep, sampling, references, encoder, None)
    write_report(
        tmp_path / "a.html", plain, methods_of(plain, sweep, tmp_path), tmp_path, json.loads(json.dumps(metrics))
    )
    text = (tmp_path / "a.html").read_text()
    Page(text)
    assert "classifier" not in text
    assert "learning rate" not in text


def test_the_gallery_is_a_png(bench: Bench, metrics: Metrics, out: Path, sweep: GuidanceSweep, tmp_path: Path) -> None:
    assert metrics["num_cases"] == 12
    write_gallery(tmp_path / "gallery.png", bench, methods_of(bench, sweep, out), num_rows=3)
    assert (tmp_path / "gallery.png").read_bytes().startswith(b"\x89PNG")


def test_accuracies_are_relative_to_the_classifiers() -> None:
    metrics = {
        "classifier_accuracy": {"shape_accuracy": 80.0, "second_colour_accuracy": None, "pattern_accuracy": 0.0},
        "methods": {"source": {"shape_accuracy": 20.0, "second_colour_accuracy": None, "pattern_accuracy": 1.0}},
    }
    assert relative_accuracies(metrics)["source"] == {"shape_accuracy": 25.0, "pattern_accuracy": None}


def test_accuracies_are_named_after_their_attributes() -> None:
    metrics = {"classifier_accuracy": {"shape_accuracy": 80.0, "second_colour_accuracy": 70.0, "age_accuracy": None}}
    assert accuracy_names(metrics) == {"shape_accuracy": "shape", "second_colour_accuracy": "second colour"}


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


def test_numbers_are_formatted_with_two_decimals_and_none_as_a_dash() -> None:
    assert [format_number(v) for v in (None, 1234, 3.14159)] == ["–", "1,234", "3.14"]  # noqa: RUF001


def test_smoothing_is_a_mean_over_neighbours() -> None:
    np.testing.assert_allclose(smooth(np.array([0.0, 3.0, 6.0, 0.0]), 3), [1.5, 3.0, 3.0, 3.0])
    np.testing.assert_allclose(smooth(np.array([1.0, 2.0]), 1), [1.0, 2.0])


def test_losses_without_a_column_are_refused(tmp_path: Path) -> None:
    assert len(read_losses(losses_csv(tmp_path)).loss) == 60
    (tmp_path / "losses.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(UserError, match=r"losses\.csv: column lr is missing"):
        read_losses(tmp_path / "losses.csv")


def test_figures_use_the_colours_of_the_page() -> None:
    figure = training_figure(Losses(np.arange(5.0), np.ones(5), np.ones(5)))
    assert figure.startswith("<svg")
    assert "var(--series-1)" in figure
    assert not re.search(r"\d{4}-\d{2}-\d{2}", figure)


def test_the_guidance_figure_shows_the_accuracies_that_every_scale_has() -> None:
    names = {"shape_accuracy": "shape", "colour_accuracy": "colour"}
    figure = guidance_figure({"1": {"clip_score": 50.0}, "5": {"clip_score": 60.0}}, names)
    assert "guidance scale" in figure
    assert "shape" not in figure
    rows = {scale: {"clip_score": 50.0, "shape_accuracy": 9.0, "colour_accuracy": None} for scale in ("1", "5")}
    figure = guidance_figure(rows, names)
    assert ">shape<" in figure
    assert ">colour<" not in figure
