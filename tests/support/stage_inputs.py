"""What each stage of dvc.yaml uses, found in its code: the files that it imports and the parameters that it reads."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import yaml
from pydantic import BaseModel

from pbe.runtime.code_digest import NO_RESULT
from pbe.settings import Settings
from tests.support.parameters import PARAMETERS, ROOT

OUTPUT = {"flows.scores"}  # all other modules of `flows` decide how a stage runs, but for the stage's own
RECORDED = {"train": "backbone"}  # a section of which MLflow has a record; the backbone itself is a dependency
LOADED_BY_PATH = {"register": {Path("pbe/serving/pyfunc.py")}}  # MLflow loads it


def resolved(text: str) -> str:
    """Return dvc.yaml with the values of params.yaml in place of `${section.key}`."""
    parameters = PARAMETERS.model_dump(by_alias=True)
    return re.sub(r"\$\{(\w+)\.(\w+)\}", lambda match: str(parameters[match[1]][match[2]]), text)


PIPELINE: dict[str, dict[str, Any]] = yaml.safe_load(resolved((ROOT / "dvc.yaml").read_text()))["stages"]


def code_deps(stage: str) -> list[str]:
    """Return the code that a stage uses: files, and folders of which it uses every module."""
    files = imported_files(stage) | LOADED_BY_PATH.get(stage, set())
    return sorted({str(_largest_used_folder(file, files) or file) for file in files})


def parameters(stage: str) -> set[str]:
    """Return the dotted keys of params.yaml that a stage reads and that can change its output."""
    tree = ast.parse((ROOT / f"flows/{stage}.py").read_text())
    chains = [chain for chain in _chains(tree) if chain[0] != RECORDED.get(stage)]
    read = {key for chain in chains for key in _keys_below(chain)}
    return read - no_result_keys()


def leaves(prefix: str = "", section: type[BaseModel] = Settings) -> Iterator[str]:
    """Yield the dotted key of every parameter."""
    for name, field in section.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from leaves(f"{key}.", inner)
        else:
            yield key


def no_result_keys() -> set[str]:
    """Return the dotted keys of the parameters that cannot change a stage's output."""
    sections = {field.alias or name: field.annotation for name, field in Settings.model_fields.items()}
    return {f"{name}.{key}" for name, section in sections.items() for key in getattr(section, "no_result", ())}


def tracked_keys(stage: str) -> set[str]:
    """Return the dotted keys that dvc.yaml tracks for a stage."""
    tracked = PIPELINE[stage]["params"]
    return {key for key in leaves() if any(f"{key}.".startswith(f"{each}.") for each in tracked)}


@cache
def imported_files(stage: str) -> set[Path]:
    """Return the files that a stage's flow imports, directly or not, and that can change its output."""
    graph = _graph()
    own = OUTPUT | {f"flows.{stage}"}
    found = {f"flows.{stage}"} | graph.find_upstream_modules(f"flows.{stage}")
    modules = {module for module in found if module in own or not f"{module}.".startswith("flows.")}
    modules = {module for module in modules if not f"{module}.".startswith(tuple(f"{each}." for each in NO_RESULT))}
    files = {Path(*module.split(".")).with_suffix(".py") for module in modules}
    return {file for file in files if (ROOT / file).is_file()}  # the file of a package holds its docstring alone


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph("pbe", "flows", cache_dir=None, exclude_type_checking_imports=True)


@cache
def modules_in(folder: Path) -> frozenset[Path]:
    """Return the modules of a package and of its packages."""
    return frozenset(p.relative_to(ROOT) for p in (ROOT / folder).rglob("*.py") if p.name != "__init__.py")


def _largest_used_folder(file: Path, files: set[Path]) -> Path | None:
    used = [folder for folder in file.parents if folder.parts[1:] and modules_in(folder) <= files]
    return used[-1] if used else None


def _chains(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield the attributes that are read of `settings`, such as (method, exemplar, pad_frac)."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        chain: list[str] = []
        value: ast.AST = node
        while isinstance(value, ast.Attribute):
            chain.insert(0, value.attr)
            value = value.value
        if id(node) not in inner and isinstance(value, ast.Name) and value.id == "settings" and chain:
            yield tuple(chain)


def _keys_below(chain: tuple[str, ...]) -> set[str]:
    prefix = ".".join(chain).replace("register_", "register") + "."
    return {key for key in leaves() if f"{key}.".startswith(prefix)}
