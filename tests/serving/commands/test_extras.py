"""What paints needs the package's own dependencies alone; a command that needs an extra names it in one line."""

import subprocess
import sys
import textwrap
import tomllib
from importlib import import_module, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flows import installation
from pbe.errors import UserError
from pbe.serving.commands import extras
from pbe.serving.commands.extras import missing_extras_reported, missing_libraries
from tests.support.parameters import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Runs `pbe` where only the modules of some libraries can be imported; the others look as if they were not installed.
MINIMAL = """
    import sys
    from importlib import metadata
    from importlib.machinery import PathFinder
    allowed, libraries, here = set(sys.argv[1].split()), set(sys.argv[2].split()), sys.argv[3]

    class Installed(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            top = name.partition(".")[0]
            known = top in allowed or top in sys.stdlib_module_names or top.startswith("_sysconfigdata")
            return PathFinder.find_spec(name, path, target) if known else None

    def version(name, found=metadata.version):
        if name.lower().replace("_", "-") not in libraries:
            raise metadata.PackageNotFoundError(name)
        return found(name)

    metadata.version = version
    sys.meta_path[:] = [Installed if finder is PathFinder else finder for finder in sys.meta_path]
    from pbe.serving.commands.main import main
    for line in open(here).read().splitlines():
        print(f"{line} -> {main(line.split())}", flush=True)
"""


def closure() -> set[str]:
    """Return the libraries that the package's dependencies install, without any extra."""
    found: set[str] = set()
    open_ = [Requirement(text) for text in PROJECT["dependencies"]]
    while open_:
        requirement = open_.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            open_ += [Requirement(text) for text in metadata.requires(name) or ()]
        except metadata.PackageNotFoundError:  # of another platform
            continue
    return found


def modules_of(libraries: set[str]) -> set[str]:
    """Return the modules that these libraries install."""
    places = metadata.packages_distributions()
    return {module for module, names in places.items() if {canonicalize_name(name) for name in names} & libraries}


@pytest.fixture
def lines(tmp_path: Path, images: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what each command prints, in a process that has the smallest installation."""
    (images / "rows.csv").write_text("source,exemplar,mask\ns.png,e.jpg,m.png\n")
    (images / "bench").mkdir()
    flags = f"--model {model_folder} --num-steps 1"
    commands = (
        f"edit --source s.png --mask m.png --exemplar e.jpg --out o.png {flags}",
        f"batch --rows rows.csv --out painted {flags}",
        f"export --model {model_folder} --format diffusers --out published",
        "import --from published --out models",
        "serve",
        "app",
        "models list",
        "edit --source s.png --mask m.png --exemplar e.jpg --out p.png --model models:/m@champion",
        "evaluate --bench bench --results bench --encoder bench --real bench",
        "browse",
        f"batch --boxes {images} --exemplars {images} --out boxes {flags}",
    )
    (tmp_path / "commands").write_text("\n".join(commands))
    libraries = closure()
    assert libraries.isdisjoint({"ray", "prefect", "dvc", "mlflow", "fiftyone", "pymongo", "polars", "scipy", "gradio"})
    words = [" ".join(modules_of(libraries) | {"pbe"}), " ".join(libraries), "commands"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{images / 'mlflow.db'}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MINIMAL), *words], cwd=images, capture_output=True, text=True
    )
    return (done.stdout + done.stderr).splitlines()


@pytest.mark.slow
def test_painting_needs_only_the_dependencies_and_other_commands_name_their_extra(lines: list[str]) -> None:
    codes = [line.rpartition(" -> ")[::2] for line in lines if " -> " in line]
    outcomes = [(command.split()[0], code) for command, code in codes]
    assert outcomes[:4] == [("edit", "0"), ("batch", "0"), ("export", "0"), ("import", "0")], "\n".join(lines)
    assert {code for _, code in outcomes[4:]} == {"2"}, "\n".join(lines)
    errors = [line for line in lines if line.startswith("error: ")]
    assert [error.rpartition("[")[2] for error in errors] == ['serve]"'] * 4 + ['train]"'] * 3, "\n".join(errors)
    assert errors[0].startswith("error: pbe serve needs ")
    assert "the model registry needs mlflow, which is not installed: pip install" in errors[3]


def test_an_import_that_fails_although_the_extra_is_installed_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "missing_libraries", lambda extra: [])
    with pytest.raises(ModuleNotFoundError), missing_extras_reported("serve"):
        import_module("not_there")
    monkeypatch.setattr(extras, "missing_libraries", lambda extra: ["fastapi"])
    with pytest.raises(ModuleNotFoundError), missing_extras_reported("serve"):
        import_module("pbe.not_there")
    message = r'pbe serve needs not_there, .*: pip install "paint-by-example\[serve\]"'
    with pytest.raises(UserError, match=message), missing_extras_reported("serve"):
        import_module("not_there")


def test_the_libraries_of_an_extra_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_libraries("serve") == missing_libraries("train") == []
    needed = ["torch", 'not-there; extra == "serve"', 'fastapi<1; extra == "serve"', 'neither; extra == "train"']
    monkeypatch.setattr(metadata, "requires", lambda name: needed)
    assert missing_libraries("serve") == ["not-there"]


def test_the_pipeline_names_its_extra(capsys: pytest.CaptureFixture[str]) -> None:
    installation.exit_without_libraries()
    with pytest.raises(SystemExit) as raised:
        installation.exit_without_libraries(("prefect", "not_there"))
    assert raised.value.code == 2
    assert capsys.readouterr().err == (
        'error: the pipeline needs not_there, which is not installed: pip install "paint-by-example[train]"\n'
    )


def test_the_installed_package_has_the_extras_of_the_project() -> None:
    assert metadata.version("paint-by-example") == PROJECT["version"]
    assert set(metadata.metadata("paint-by-example").get_all("Provides-Extra") or ()) == set(
        PROJECT["optional-dependencies"]
    )
