"""The report's page: complete, self-contained, below its limit at any resolution, and the same bytes each time."""

import re
from dataclasses import dataclass, replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from pbe.errors import UserError
from pbe.evaluation.benches.bench import Bench, Case, Origin
from pbe.evaluation.report.page import MAX_BYTES, write_gallery, write_report
from pbe.evaluation.scoring.case_scores import Method
from pbe.types import Image
from tests.support.report_files import sweep_metrics, write_evaluation

NAMES = ("paint_by_example", "copy_paste", "source", "poisson", "text_inpainting", "stock")
VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """The elements of a page; its construction fails when tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@dataclass(frozen=True)
class NoisyBench(Bench):
    """A bench whose pictures are all the same noise, which no encoding makes small."""

    size_px: int = 32

    def case(self, case_id: int) -> Case:
        return replace(noisy_case(self.size_px), id=case_id)


@cache
def noisy_case(size_px: int) -> Case:
    rng = np.random.default_rng(0)
    mask = np.zeros((size_px, size_px), np.uint8)
    mask[size_px // 4 : size_px // 2, size_px // 4 : size_px // 2] = 1
    return Case(0, noise(rng, size_px), mask, noise(rng, size_px // 2))


def noisy_bench(num_cases: int, size_px: int) -> NoisyBench:
    labels = ("Star", "Ring")
    origins = tuple(Origin(i, "a", f"a{i}", f"b{i}", labels[i % 2], f"a star {i}") for i in range(num_cases))
    return NoisyBench(Path("absent"), tuple(range(num_cases)), origins, size_px=size_px)


def noise(rng: np.random.Generator, size_px: int) -> Image:
    return rng.integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)


def flipped(case: Case) -> Image:
    return np.ascontiguousarray(case.source[::-1])


def method(name: str, num_cases: int | None = None) -> Method:
    return Method(name, (lambda case: case.source) if name == "source" else flipped, num_cases=num_cases)


METHODS = [*map(method, NAMES), method("paint_by_example_guidance_1"), method("paint_by_example_guidance_7", 4)]


@pytest.fixture(scope="module")
def small() -> Bench:
    return noisy_bench(14, 32)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def metrics(small: Bench, out: Path) -> dict[str, Any]:
    return write_evaluation(out, small.ids, NAMES) | sweep_metrics(4)


def losses_csv(folder: Path) -> Path:
    path = folder / "losses.csv"
    path.write_text("step,loss,lr,grad_norm\n" + "".join(f"{i},{1 / i},{1e-3 / i},1\n" for i in range(1, 61)))
    return path


def test_the_page_is_complete_and_has_no_external_files(
    small: Bench, out: Path, metrics: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "filter.json").write_text('{"rows": 90, "rejects": {"too_small": 30, "group_of": 0}}')
    counts = [tmp_path / "filter.json", tmp_path / "absent.json"]
    path = tmp_path / "a.html"
    write_report(path, small, METHODS, out, metrics, losses=losses_csv(tmp_path), counts=counts)
    text = path.read_text()
    page = Page(text)
    addresses = [v or "" for _, attributes in page.elements for k, v in attributes.items() if k in ("src", "href")]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)|<script [^>]*src", text)
    assert all(image["alt"] for image in page.all("img"))
    for shown in (
        "rejects: too small",
        "84.97",
        "none of these numbers is comparable",
        "learning rate",
        "0b0b0b0b0b0b<",
    ):
        assert shown in text
    assert "group of" not in text
    assert not re.findall(r">(nan|inf|None)<", text)


def test_marks_are_words_for_a_screen_reader(small: Bench, out: Path, metrics: dict[str, Any], tmp_path: Path) -> None:
    write_report(tmp_path / "a.html", small, METHODS, out, metrics)
    spans = Page((tmp_path / "a.html").read_text()).all("span")
    words = {span["aria-label"] for span in spans if span.get("role") == "img"}
    assert {"better than Paint by Example", "not significantly different from Paint by Example"} <= words


def test_every_link_has_its_section(small: Bench, out: Path, metrics: dict[str, Any], tmp_path: Path) -> None:
    write_report(tmp_path / "a.html", small, METHODS, out, metrics)
    page = Page((tmp_path / "a.html").read_text())
    ids = {attributes.get("id") for _, attributes in page.elements}
    links = {(link["href"] or "").removeprefix("#") for link in page.all("a")}
    assert links <= ids
    assert len(links) == 9


def test_sliders_work_with_the_keyboard(small: Bench, out: Path, metrics: dict[str, Any], tmp_path: Path) -> None:
    write_report(tmp_path / "a.html", small, METHODS, out, metrics)
    page = Page((tmp_path / "a.html").read_text())
    sliders = page.all("input")
    assert len(sliders) == 12
    assert all(s["type"] == "range" and s["aria-label"] and s["min"] == "0" and s["max"] == "100" for s in sliders)
    assert {s["value"] for s in sliders} == {"38"}  # the middle of a box from a quarter to a half
    buttons = page.all("button")
    assert len(buttons) == 12 * (len(NAMES) - 1)
    assert sum(button["aria-pressed"] == "true" for button in buttons) == 12
    scrolled = [a for tag, a in page.elements if a.get("class") == "scroll"]
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in scrolled)


def test_the_page_is_the_same_bytes_each_time(small: Bench, out: Path, metrics: dict[str, Any], tmp_path: Path) -> None:
    pages = []
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, small, METHODS, out, metrics, losses=losses_csv(tmp_path))
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(("size_px", "num_cases"), [(512, 14), (2048, 4)])
def test_noise_of_any_size_fits(size_px: int, num_cases: int, tmp_path: Path) -> None:
    bench = noisy_bench(num_cases, size_px)
    metrics = write_evaluation(tmp_path / "out", bench.ids, NAMES)
    write_report(tmp_path / "a.html", bench, [method(name) for name in NAMES], tmp_path / "out", metrics)
    assert (tmp_path / "a.html").stat().st_size < MAX_BYTES < 5_000_000
    assert len(Page((tmp_path / "a.html").read_text()).all("input")) == min(12, num_cases)
    write_gallery(tmp_path / "a.png", bench, [method(name) for name in NAMES])
    width, height = PillowImage.open(tmp_path / "a.png").size
    assert width * height <= 4_000_000


def test_quality_falls_before_cases_are_left_out(
    small: Bench, out: Path, metrics: dict[str, Any], tmp_path: Path
) -> None:
    sizes, numbers = [], []
    for max_bytes in (MAX_BYTES, 900_000, 300_000, 130_000):
        write_report(tmp_path / "a.html", small, METHODS, out, metrics, max_bytes=max_bytes)
        sizes.append((tmp_path / "a.html").stat().st_size)
        numbers.append(len(Page((tmp_path / "a.html").read_text()).all("input")))
        assert sizes[-1] <= max_bytes
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] == 12 > numbers[-1]
    with pytest.raises(ValueError, match="does not fit into 1000 bytes"):
        write_report(tmp_path / "a.html", small, METHODS, out, metrics, max_bytes=1000)


def test_folders_of_results_have_a_page_without_the_painters_parts(small: Bench, tmp_path: Path) -> None:
    names = ["AnyDoor", "official <code>"]
    metrics = write_evaluation(tmp_path, small.ids, names)
    write_report(tmp_path / "a.html", small, [method(name) for name in names], tmp_path, metrics)
    text = (tmp_path / "a.html").read_text()
    Page(text)
    assert "<title>AnyDoor and official &lt;code&gt;: evaluation</title>" in text
    for absent in ("Guidance</h2>", "learning rate", "classifier", "<h2>Data"):
        assert absent not in text


def test_a_missing_file_of_the_scores_is_named(small: Bench, metrics: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"comparison\.json: no such file"):
        write_report(tmp_path / "a.html", small, METHODS, tmp_path, metrics)
