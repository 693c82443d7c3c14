"""The keys of a run and of the latent cache: what changes them and what does not, in an edited copy of the package."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pbe.latents.encoding import cache_key
from pbe.latents.latent_cache import INDEX, KEY
from pbe.runtime.code_digest import code_modules
from pbe.settings import Encode
from pbe.training.job import CODE, NO_RESULT, TrainJob, run_key
from tests.support import parameters
from tests.support.toy_project import ROOT

PRINT_KEYS = """
import sys
from pathlib import Path
from pbe.latents.encoding import cache_key
from pbe.training.job import TrainJob, run_key
from tests.support import parameters
root = Path(sys.argv[1])
method, train, encode = parameters.method(), parameters.train(), parameters.encode()
print("run", run_key(TrainJob(root / "images", root, root / "backbone", root, root / "runs", method, train, 0)))
print("latents", cache_key(root / "images", root, root / "backbone", method, encode, 0))
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with the names of a run's inputs; their contents do not matter."""
    root = tmp_path_factory.mktemp("inputs")
    for name in ("boxes.parquet", KEY, INDEX, "manifest.parquet", "backbone/vae/config.json", "backbone/unet/a"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


@pytest.fixture(scope="module")
def copied_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for name in ("pbe", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", folder)
    return folder


def keys(package: Path, inputs: Path) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PRINT_KEYS, str(inputs)], cwd=package, env=os.environ | {"PYTHONPATH": str(package)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def before(copied_package: Path, inputs: Path) -> dict[str, str]:
    return keys(copied_package, inputs)


def changed_keys(package: Path, inputs: Path, before: Mapping[str, str], edits: list[tuple[str, str, str]]) -> set[str]:
    """Return the keys that change when, in each (module, old, new), `old` becomes `new`."""
    originals = {package / module: (package / module).read_text() for module, _, _ in edits}
    for module, old, new in edits:
        path = package / module
        assert old in path.read_text(), f"{module} does not contain {old!r}"
        path.write_text(path.read_text().replace(old, new, 1))
    after = keys(package, inputs)
    for path, text in originals.items():
        path.write_text(text)
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    [
        ("pbe/dataset/object_masks.py", "INTER_AREA", "INTER_LINEAR", {"run", "latents"}),
        ("pbe/training/worker.py", "trainer.update.copy_average_to_model()", "pass", {"run"}),
        ("pbe/latents/encoding.py", "shard * encode.shard_rows", "shard * encode.shard_rows + 1", {"latents"}),
    ],
)
def test_changed_code_changes_the_keys_of_what_runs_it(
    copied_package: Path, inputs: Path, before: dict[str, str], module: str, old: str, new: str, expected: set[str]
) -> None:
    assert changed_keys(copied_package, inputs, before, [(module, old, new)]) == expected


def test_comments_docstrings_and_code_without_a_result_change_no_key(
    copied_package: Path, inputs: Path, before: dict[str, str]
) -> None:
    edits = [
        ("pbe/method/masks.py", '"""', '"""Another first sentence. '),
        ("pbe/method/diffusion.py", "import torch\n", "import torch  # a comment\n\n\n"),
        ("pbe/training/throughput.py", '"A100": 312.0', '"A100": 313.0'),
        ("pbe/training/tracking.py", "_RECORDS_PER_REQUEST = 20", "_RECORDS_PER_REQUEST = 21"),
        ("pbe/training/run.py", "MAX_FAILURES = 3", "MAX_FAILURES = 4"),
        ("pbe/runtime/ray_cluster.py", "logging.CRITICAL", "logging.ERROR"),
        *((f"pbe/{module}", "\nimport", "\nX = 1\nimport") for module in _modules_no_stage_imports()),
    ]
    assert changed_keys(copied_package, inputs, before, edits) == set()


def _modules_no_stage_imports() -> list[str]:
    """Return modules of pbe.interchange and pbe.serving; a statement is put before their first import line."""
    folders = [ROOT / "pbe" / name for name in ("interchange", "serving")]
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    return [file.relative_to(ROOT / "pbe").as_posix() for file in files if "\nimport" in file.read_text()]


def job(root: Path, **train: Any) -> TrainJob:
    return TrainJob(
        root / "images", root, root / "backbone", root, root, parameters.method(), parameters.train(**train), 0
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint_every": 7},
        {"deliver": "best"},
        {"keep_checkpoints": 7},
        {"loader_threads": 7},
        {"storage": "/runs"},
        {"validate_every": 7},
        {"validation_samples": 7},
    ],
)
def test_settings_that_do_not_change_the_weights_are_not_in_the_key(inputs: Path, changes: dict[str, Any]) -> None:
    assert set(changes) <= NO_RESULT
    assert run_key(job(inputs, **changes)) == run_key(job(inputs))


@pytest.mark.parametrize("changes", [{"lr": 0.5}, {"num_workers": 7}, {"cpus_per_worker": 7}, {"cache": False}])
def test_settings_that_change_the_weights_are_in_the_key(inputs: Path, changes: dict[str, Any]) -> None:
    assert run_key(job(inputs, **changes)) != run_key(job(inputs))


@pytest.mark.parametrize("name", ["boxes.parquet", KEY, "backbone/unet/a"])
def test_every_input_is_in_the_key(inputs: Path, tmp_path: Path, name: str) -> None:
    changed = shutil.copytree(inputs, tmp_path / "changed")
    assert run_key(job(changed)) == run_key(job(inputs))
    (changed / name).write_text("changed")
    assert run_key(job(changed)) != run_key(job(inputs))


def test_the_key_of_the_latents_has_the_settings_that_decide_their_bytes(inputs: Path) -> None:
    def key(encode: Encode) -> str:
        return cache_key(inputs / "images", inputs, inputs / "backbone", parameters.method(), encode, 0)

    plain = key(parameters.encode())
    assert key(parameters.encode(num_workers=7)) == plain
    for name in ("variants", "exemplar_variants", "shard_rows", "batch_size"):
        assert key(parameters.encode(**{name: 7})) != plain
    assert key(parameters.encode(use_gpu=True)) != plain


def test_the_key_of_a_run_reads_the_training_code_only() -> None:
    modules = set(code_modules(CODE))
    assert {"pbe.training.loop", "pbe.training.painting_loss", "pbe.dataset.object_masks"} <= modules
    assert (
        not {"pbe.training.throughput", "pbe.training.tracking", "pbe.training.run", "pbe.latents.encoding"} & modules
    )
