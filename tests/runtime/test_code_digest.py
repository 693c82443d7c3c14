"""The digest of code follows the imports, and changes only with what can change a result."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pbe.runtime.code_digest import NO_RESULT, code_modules
from tests.support.toy_project import ROOT

ROOTS = ("pbe.demo.bucket", "pbe.latents.encoding", "pbe.training.worker", "pbe.evaluation.painting.processes")
PRINT_DIGESTS = f"""
from pbe.runtime.code_digest import digest_code
for root in {ROOTS!r}:
    print(root, digest_code(root))
"""


@pytest.fixture(scope="module")
def copied_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "pbe", folder / "pbe", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def digests(folder: Path) -> dict[str, str]:
    env = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_DIGESTS], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def before(copied_package: Path) -> dict[str, str]:
    return digests(copied_package)


def changed_keys(folder: Path, before: dict[str, str], module: str, old: str, new: str) -> set[str]:
    """Return the roots whose digest changes when `old` becomes `new` in a module of the copy."""
    path = folder / module
    original = path.read_text()
    assert original.count(old) >= 1, f"{module} does not contain {old!r}"
    path.write_text(original.replace(old, new, 1))
    after = digests(folder)
    path.write_text(original)
    return {root for root in ROOTS if after[root] != before[root]}


LATENTS, TRAINING, PAINTING = "pbe.latents.encoding", "pbe.training.worker", "pbe.evaluation.painting.processes"


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    [
        ("pbe/dataset/object_masks.py", "> 127", "> 126", {LATENTS, TRAINING}),
        ("pbe/training/worker.py", "limit_threads(", "print(), limit_threads(", {TRAINING}),
        ("pbe/method/sampling/plms.py", "_FEW_STEPS = 25", "_FEW_STEPS = 24", {TRAINING, PAINTING}),
        ("pbe/method/masks.py", "16)", "8)", {LATENTS, TRAINING}),
    ],
)
def test_a_change_of_code_changes_the_keys_of_what_imports_it(
    copied_package: Path, before: dict[str, str], module: str, old: str, new: str, expected: set[str]
) -> None:
    assert changed_keys(copied_package, before, module, old, new) == expected


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("pbe/method/masks.py", '"""', '"""Another first sentence. '),  # a docstring
        ("pbe/method/masks.py", "import cv2\n", "import cv2  # a comment\n\n\n"),
        ("pbe/interchange/names.py", "import re\n", "import re\n\nX = 1\n"),  # no stage imports it
        ("pbe/serving/registry/gate.py", "import difflib\n", "import difflib\n\nX = 1\n"),
        ("pbe/settings.py", "le=200", "le=201"),  # the keys hold the parameters' values, not their ranges
    ],
)
def test_comments_docstrings_and_other_code_change_no_key(
    copied_package: Path, before: dict[str, str], module: str, old: str, new: str
) -> None:
    assert changed_keys(copied_package, before, module, old, new) == set()


@pytest.mark.parametrize("root", ROOTS)
def test_a_key_reads_its_own_module_and_none_without_a_result(root: str) -> None:
    modules = code_modules(root)
    assert root in modules
    assert not [module for module in modules if module.startswith(NO_RESULT)]
