"""What pages say of the repository: the files of the method, the layers, the extras, and where files are."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.support.doc_blocks import ROOT, pages

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLACE = re.compile(r"`((?:pbe|flows|tests|benchmarks|docs|integrations|projects)/[\w./-]+)`")
MADE = ("projects/photo/data", "projects/photo/models")


def test_the_page_of_the_method_names_every_file_of_it() -> None:
    named = set(re.findall(r"`((?:sampling/)?\w+\.py)`", (ROOT / "docs/method.md").read_text()))
    folder = ROOT / "pbe/method"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.py") if path.name != "__init__.py"}
    assert files <= named
    assert all((folder / name).is_file() for name in named if not name.startswith("test_"))


def test_contributing_has_the_layers_that_are_checked() -> None:
    layers = next(each for each in PROJECT["tool"]["importlinter"]["contracts"] if "containers" in each)["layers"]
    rows = [
        line.split("|")[1]
        for line in (ROOT / "docs/contributing.md").read_text().splitlines()
        if line.startswith("| `pbe.")
    ]
    assert [re.findall(r"pbe\.(\w+)", row) for row in rows] == [re.split(r" \| ", layer) for layer in layers]


def test_the_quick_start_describes_every_extra() -> None:
    extras = set(re.findall(r"paint-by-example\[(\w+)\]", (ROOT / "docs/quick-start.md").read_text()))
    assert extras == set(PROJECT["project"]["optional-dependencies"]) - {"dev", "8bit"}


@pytest.mark.parametrize("page", [*pages(), ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_a_link_of_a_page_leads_to_a_file_of_the_repository(page: Path) -> None:
    """So that the pages can be read on GitHub as well; the site's own links are checked when it is built."""
    for link in re.findall(r"\]\(([^)\s#]+)", page.read_text()):
        if not link.startswith(("http:", "https:")):
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_file_that_a_page_names_exists(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for place in PLACE.findall(text):
        assert (ROOT / place.rstrip("/.")).exists() or place.startswith(MADE), place
