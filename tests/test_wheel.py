"""The wheel: it carries what an installed package reads, and no test or document."""

import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from setuptools import build_meta

from tests.support.parameters import ROOT

COPIED = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "pbe", "flows", "data", "docs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel in a folder of links to this checkout, so that nothing is written into it."""
    project, out = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("dist")
    for name in COPIED:
        (project / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        return zipfile.ZipFile(out / build_meta.build_wheel(str(out)))


def test_the_wheel_has_the_bundled_painter_as_it_is_in_the_checkout(wheel: zipfile.ZipFile) -> None:
    painter = ROOT / "data/photo-painter"
    files = [path for path in painter.rglob("*") if path.is_file()]
    assert len(files) >= 10
    for file in files:
        assert wheel.read(f"pbe/serving/photo-painter/{file.relative_to(painter)}") == file.read_bytes()


def test_the_wheel_has_what_page_and_report_read(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for folder in ("pbe/serving/page/static", "pbe/evaluation/report"):
        read = [path for path in (ROOT / folder).iterdir() if path.suffix in (".html", ".css", ".js", ".j2")]
        assert read
        assert {f"{folder}/{path.name}" for path in read} <= names
    for name in ("can", "pliers", "label"):
        assert f"pbe/serving/page/example-pictures/{name}/source.jpg" in names
    assert "pbe/serving/page/example-pictures/LICENSE.fod-a" in names
    assert "pbe/py.typed" in names or not (ROOT / "pbe/py.typed").exists()


def test_the_wheel_has_every_module_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    modules = {str(path.relative_to(ROOT)) for name in ("pbe", "flows") for path in (ROOT / name).rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}
    assert {Path(name).parts[0] for name in names} <= {"pbe", "flows", "paint_by_example-0.2.0.dist-info"}
    assert sum(info.file_size for info in wheel.infolist()) < 20e6


def test_the_smallest_installation_has_no_extra_among_its_requirements(wheel: zipfile.ZipFile) -> None:
    text = wheel.read("paint_by_example-0.2.0.dist-info/METADATA").decode()
    required = Parser().parsestr(text).get_all("Requires-Dist") or []
    always = [each for each in required if "extra ==" not in each]
    assert {"torch==2.13.0", "diffusers", "cyclopts"} <= set(always)
    assert not [each for each in always if each.startswith(("ray", "prefect", "dvc", "mlflow", "fiftyone", "gradio"))]
