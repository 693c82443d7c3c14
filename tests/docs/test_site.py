"""The documentation as a site: it builds without a warning, and shows what GitHub shows, from this server alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.support.doc_blocks import ROOT, pages

ELEMENTS = ("h2", "h3", "li", "ol", "table", "tr", "td", "pre")
LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]*?\ssrc=[\"']?(\S+)|<link[^>]*?\shref=[\"']?(\S+)|url\([\"']?([^)\"']+)"
)
EMPTY_ROW = re.compile(r"<tr>(?:\s*<td[^>]*></td>)+\s*</tr>")  # which a table without rows gets
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def build(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Build the site strictly: a broken link or anchor, or a page that the navigation lacks, is an error."""
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out), *options]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, COLOUR.sub("", done.stderr)
    return folder


def html_of(site: Path, page: Path) -> str:
    place = page.relative_to(ROOT / "docs")
    name = "index" if page.name == "README.md" else page.stem
    return (site / place.with_name(f"{name}.html")).read_text()


def count(html: str) -> dict[str, int]:
    return {name: len(re.findall(f"<{name}[ >]", html)) for name in ELEMENTS}


def test_nothing_is_loaded_from_another_server(site: Path) -> None:
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > 30
    for file in files:
        for groups in LOADED.findall(file.read_text()):
            address = "".join(groups)
            assert not address.startswith(("http:", "https:", "//")), f"{file}: {address}"


def test_every_page_has_the_lists_tables_and_code_that_github_shows(site: Path) -> None:
    markdown = MarkdownIt("commonmark").enable("table")
    for page in pages()[1:]:
        html = html_of(site, page)
        article = EMPTY_ROW.sub("", html[html.index("<article") : html.index("</article")])
        assert count(article) == count(markdown.render(page.read_text())), page.name


def test_the_search_finds_every_page(site: Path) -> None:
    index = (site / "search/search_index.json").read_text()
    for word in ("train.gradient_checkpointing", "Troubleshooting", "Migration"):
        assert word in index


def test_a_broken_link_stops_the_build(tmp_path: Path) -> None:
    config = (ROOT / "mkdocs.yml").read_text()
    (tmp_path / "docs").mkdir()
    for name in ("index.md", "other.md"):
        (tmp_path / "docs" / name).write_text("# One\n\n[there](other.md#nowhere)\n")
    shortened = re.sub(r"^nav:.*", "nav: [index.md, other.md]\n", config, flags=re.DOTALL | re.MULTILINE)
    without_hooks = shortened.replace("hooks: [docs/site_hooks.py]", "").replace("extra_css: [site.css]", "")
    (tmp_path / "mkdocs.yml").write_text(without_hooks)
    done = build(tmp_path / "site", "--config-file", str(tmp_path / "mkdocs.yml"))
    assert done.returncode == 1
    assert "does not contain an anchor '#nowhere'" in COLOUR.sub("", done.stderr)
