"""The start of `pbe edit`: which libraries it leaves out, and that the result is the same."""

import gc
import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from pbe.serving.commands.main import main
from pbe.serving.commands.model_choice import CHAMPION
from pbe.serving.commands.start_up import hidden_module, paused_collector
from pbe.serving.registry.versions import register
from tests.support import parameters
from tests.support.planted_evaluations import planted

FILES = {"source": "s.png", "mask": "m.png", "exemplar": "e.jpg"}
PROGRAM = """
import gc, json, sys
from pbe.serving.commands.main import main

code = main(sys.argv[1:])
imported = sorted({"mlflow", "pandas", "scipy", "torch"} & set(sys.modules))
print(json.dumps({"code": code, "imported": imported, "frozen": gc.get_freeze_count(), "enabled": gc.isenabled()}))
"""


def test_pbe_edit_imports_neither_mlflow_nor_scipy_and_paints_the_same(
    images: Path, model_folder: Path, empty_registry: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_registry, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    location = (tmp_path / "mlruns").as_uri()
    options = {"tracking_uri": uri, "experiment": "x", "artifact_location": location}
    register(model_folder, planted(1), parameters.register(bootstrap_draws=200), seed=0, **options)
    mlflow.set_tracking_uri("")
    argv = ["edit", "--num-steps=2", *(f"--{name}={images / file}" for name, file in FILES.items())]

    command = [sys.executable, "-c", PROGRAM, *argv, f"--out={images / 'new.png'}"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={}, check=False)

    assert (ended.returncode, ended.stderr) == (0, f"note: using the champion ({CHAMPION})\n")
    line, state_line = ended.stdout.splitlines()
    assert line.startswith(f"{images / 'new.png'}: painted by paint-by-example version 1 with seed 0 in ")
    state = json.loads(state_line)
    assert state.pop("frozen") > 100_000
    assert state == {"code": 0, "imported": ["torch"], "enabled": True}
    assert main([*argv, f"--model={model_folder}", f"--out={images / 'here.png'}"]) == 0
    assert (images / "new.png").read_bytes() == (images / "here.png").read_bytes()


def test_the_collector_of_a_process_that_has_torch_is_left_alone() -> None:
    frozen = gc.get_freeze_count()
    with paused_collector():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_a_hidden_module_cannot_be_imported_within_the_block_only() -> None:
    sys.modules.pop("colorsys", None)
    with hidden_module("colorsys"), pytest.raises(ModuleNotFoundError):
        import colorsys
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)


def test_a_module_that_is_imported_already_stays() -> None:
    with hidden_module("json"):
        import json as within
    assert within is json
