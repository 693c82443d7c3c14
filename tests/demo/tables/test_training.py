"""A model trained without Ray: the weights of the usual loop, and none trained twice."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pbe.demo.tables.training import is_trained, train_model
from pbe.method.painter import Painter
from pbe.runtime.files import digest_folder, read_json
from pbe.training.job import TrainJob
from pbe.training.loop import Trainer, train_to_end
from pbe.training.worker import initial_painter, open_source
from tests.support import parameters
from tests.support.tiny_data import write_scenes


@pytest.fixture
def job(backbone: Path, tmp_path: Path) -> TrainJob:
    write_scenes(tmp_path)
    train = parameters.train(cache=False, num_workers=1, steps=3, batch_size=2, lr=1e-3)
    return TrainJob(tmp_path / "images", tmp_path, backbone, tmp_path, tmp_path / "run", parameters.method(), train, 0)


def test_the_delivered_weights_are_the_averages_of_the_loop(job: TrainJob, tmp_path: Path) -> None:
    train_model(job, tmp_path / "model", tmp_path / "trained.json")
    trainer = Trainer(initial_painter(job), open_source(job, "cpu"), job.train, 0, "cpu")
    train_to_end(trainer, None)
    trainer.update.copy_average_to_model()
    saved = Painter.from_pretrained(tmp_path / "model").state_dict()
    for name, tensor in trainer.painter.state_dict().items():
        assert torch.equal(saved[name], tensor), name
    record = read_json(tmp_path / "trained.json")
    assert [step["loss"] for step in record["steps"]] == [step.loss for step in trainer.records]


def test_a_model_is_trained_again_only_for_another_job(job: TrainJob, tmp_path: Path) -> None:
    model, record = tmp_path / "model", tmp_path / "trained.json"
    assert not is_trained(job, model, record)
    train_model(job, model, record)
    assert is_trained(job, model, record)
    assert not is_trained(replace(job, seed=1), model, record)
    before = digest_folder(model)
    train_model(job, model, record)
    assert digest_folder(model) == before
