"""A stage whose inputs are missing says which stage writes them."""

from pathlib import Path

import pytest

from flows.bench import bench
from flows.curate import curate
from flows.encode import encode
from flows.evaluate import evaluate
from flows.filter import filter_
from flows.register import register
from flows.stage import Work
from flows.train import train
from pbe import layout
from pbe.errors import UserError
from pbe.types import no_progress_bars
from tests.support.parameters import PARAMETERS

STAGES: list[tuple[Work, list[tuple[Path, str]]]] = [
    (filter_, [(layout.RAW / "manifest.parquet", "acquire")]),
    (curate, [(layout.RAW / "manifest.parquet", "acquire"), (layout.BOXES / "boxes.parquet", "filter"),
              (layout.BACKBONE / "image_encoder", "backbone")]),
    (encode, [(layout.CURATED / "boxes.parquet", "curate"), (layout.BACKBONE / "image_encoder", "backbone")]),
    (train, [(layout.CURATED / "boxes.parquet", "curate"), (layout.BACKBONE / "image_encoder", "backbone"),
             (layout.LATENTS, "encode")]),
    (bench, [(layout.CURATED / "boxes.parquet", "curate")]),
    (evaluate, [(layout.MODEL, "train"), (layout.BENCH, "bench"), (layout.CURATED / "boxes.parquet", "curate")]),
    (register, [(layout.METRICS, "evaluate")]),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "inputs"), STAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_missing_input_names_the_stage_to_run(tmp_path: Path, stage: Work, inputs: list[tuple[Path, str]]) -> None:
    for path, writer in inputs:
        with pytest.raises(UserError, match=rf"{path}.*: no such file.*; run.* {writer}( stage first)?$"):
            stage(PARAMETERS, tmp_path, no_progress_bars)
        (tmp_path / path).mkdir(parents=True)


@pytest.mark.parametrize("change", [{"device": "cuda:99"}, {"device": "cpu", "precision": "fp16"}])
def test_curate_names_the_parameter_that_this_machine_cannot_follow(tmp_path: Path, change: dict[str, str]) -> None:
    for path in (layout.RAW / "manifest.parquet", layout.BOXES / "boxes.parquet", layout.BACKBONE / "image_encoder"):
        (tmp_path / path).mkdir(parents=True)
    settings = PARAMETERS.model_copy(update={"curate": PARAMETERS.curate.replace(**change)})
    with pytest.raises(UserError, match=rf"^curate\.{list(change)[-1]} '{list(change.values())[-1]}': "):
        curate(settings, tmp_path, no_progress_bars)
