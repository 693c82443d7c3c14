"""A bug in any stage keeps its traceback: no stage takes a library's ValueError for an error of the user."""

import importlib
import shutil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from flows.inputs import WRITTEN_BY
from flows.stage import USER_ERROR, run_stage
from pbe.errors import UserError
from tests.support.parameters import ROOT

WORK = {  # stage -> its function, and one that it calls
    "acquire": ("acquire", "flows.acquire.bucket.write_bucket"),
    "filter": ("filter_", "flows.filter.box_filter.filter_boxes"),
    "curate": ("curate", "flows.curate.Conditioner.from_tower"),
    "backbone": ("backbone", "flows.backbone.gather_backbone"),
    "encode": ("encode", "flows.encode.ray_cluster"),
    "train": ("train", "flows.train.run_key"),
    "bench": ("bench", "flows.bench.read_truth"),
    "evaluate": ("evaluate", "flows.evaluate.open_bench"),
    "register": ("register", "flows.register.read_evaluation"),
}


def numpy_bug(*_: Any, **__: Any) -> NoReturn:
    np.zeros(2) + np.zeros(3)
    raise AssertionError


def user_error(*_: Any, **__: Any) -> NoReturn:
    raise UserError("data/mine.csv: line 3: no label; add one")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for path in WRITTEN_BY:
        (tmp_path / path).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("stage", WORK)
def test_a_numpy_error_in_a_stage_is_raised(stage: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function, callee = WORK[stage]
    monkeypatch.setattr(callee, numpy_bug)
    with pytest.raises(ValueError, match="operands could not be broadcast") as caught:
        run_stage(stage, getattr(importlib.import_module(f"flows.{stage}"), function))
    assert not isinstance(caught.value, UserError)


@pytest.mark.parametrize("stage", WORK)
def test_a_user_error_in_a_stage_is_its_message(stage: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function, callee = WORK[stage]
    monkeypatch.setattr(callee, user_error)
    state = run_stage(stage, getattr(importlib.import_module(f"flows.{stage}"), function))
    assert (state.name, state.message) == (USER_ERROR, "data/mine.csv: line 3: no label; add one")  # type: ignore[union-attr]
