"""What the first worker keeps of a run, without Ray: journal, timings, pictures; the boxes of a NaN by their ids."""

import json

import pytest
import torch

from pbe.method.painter import Painter
from pbe.training.job import STOPPED, TrainJob
from pbe.training.journal import JOURNAL, TIMINGS, read_journal, read_lines
from pbe.training.loop import NotFiniteError, Trainer, train_to_end
from pbe.training.worker import RunKeeper, _deliver, _source, _tell_stop, open_storage, painter_at_start, resume
from tests.support import parameters
from tests.support.tiny_data import write_scenes


@pytest.fixture
def job(backbone, tmp_path):
    write_scenes(tmp_path)
    train = parameters.train(
        cache=False, num_workers=1, steps=3, batch_size=2, checkpoint_every=2, validation_samples=2, lr=1e-3
    )
    return TrainJob(
        tmp_path / "images", tmp_path, backbone, tmp_path, tmp_path / "run", parameters.method(), train, seed=0
    )


@pytest.fixture
def trainer(job):
    return Trainer(painter_at_start(job), _source(job, "cpu"), job.train, 0, "cpu")


def test_a_run_leaves_records_timings_a_picture_and_the_averaged_model(job, trainer, tmp_path):
    storage = open_storage(job, "node")
    resume(trainer, storage, 0)
    keeper = RunKeeper(job, trainer, storage, iter(range(1000)).__next__)
    train_to_end(trainer, keeper)
    keeper.close()
    records = read_journal(job.folder / JOURNAL)
    assert [r.validation_loss is None for r in records] == [True, True, False]
    assert read_lines(job.folder / TIMINGS)[-1]["validation_s"] > 0
    assert (job.folder / "panel-00000003.png").is_file()
    trainer.average.copy_to(trainer.losses.trained())
    _deliver(trainer.painter, tmp_path / "model", storage)
    saved = Painter.from_pretrained(tmp_path / "model").unet.state_dict()
    assert all(torch.equal(v, saved[k]) for k, v in trainer.painter.unet.state_dict().items())


def test_a_stop_names_boxes_and_images_and_writes_the_whole_batch(job, trainer):
    message = _tell_stop(job, NotFiniteError("loss is nan", 7, [3, 0, 5], [0]), trainer, open_storage(job, "node"))
    box = "t00000000000000"
    assert message == f"loss is nan at step 7; 1 of 3 samples are not finite: boxes {box}0_000 of image {box}0"
    told = json.loads((job.folder / STOPPED).read_text())
    assert [b["box_id"] for b in told["batch"]] == [f"{box}{i}_000" for i in (3, 0, 5)]
    assert told["not_finite"] == [{"box_id": f"{box}0_000", "image_id": f"{box}0"}]
