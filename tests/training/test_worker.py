"""A worker without Ray: its records of a run, its trained model, and the boxes that it names after a NaN."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from pbe.method.painter import Painter
from pbe.training.job import STOPPED, TrainJob
from pbe.training.journal import JOURNAL, TIMINGS, read_journal, read_lines
from pbe.training.loop import NotFiniteError, Trainer, train_to_end
from pbe.training.recorder import RunRecorder
from pbe.training.throughput import open_throughput_log
from pbe.training.worker import deliver, initial_painter, open_source, open_storage, report_stop, resume
from tests.support import parameters
from tests.support.tiny_data import write_scenes


@pytest.fixture
def job(backbone: Path, tmp_path: Path) -> TrainJob:
    write_scenes(tmp_path)
    train = parameters.train(
        cache=False, num_workers=1, steps=3, batch_size=2, checkpoint_every=2, validation_samples=2, lr=1e-3
    )
    return TrainJob(
        tmp_path / "images", tmp_path, backbone, tmp_path, tmp_path / "run", parameters.method(), train, seed=0
    )


@pytest.fixture
def trainer(job: TrainJob) -> Trainer:
    return Trainer(initial_painter(job), open_source(job, "cpu"), job.train, 0, "cpu")


def test_a_run_leaves_records_timings_a_picture_and_the_averaged_model(
    job: TrainJob, trainer: Trainer, tmp_path: Path
) -> None:
    storage = open_storage(job, "node")
    resume(trainer, storage, 0)
    clock = iter(range(1000)).__next__
    recorder = RunRecorder(job, trainer, storage, partial(open_throughput_log, clock=clock), clock)
    train_to_end(trainer, recorder)
    recorder.close()
    records = read_journal(job.folder / JOURNAL)
    assert [r.validation_loss is None for r in records] == [True, True, False]
    assert read_lines(job.folder / TIMINGS)[-1]["validation_s"] > 0
    assert (job.folder / "validation-00000003.png").is_file()
    trainer.update.copy_average_to_model()
    deliver(trainer.painter, tmp_path / "model", storage)
    saved = Painter.from_pretrained(tmp_path / "model").unet.state_dict()
    assert all(torch.equal(v, saved[k]) for k, v in trainer.painter.unet.state_dict().items())


def test_a_stop_names_boxes_and_images_and_writes_the_whole_batch(job: TrainJob, trainer: Trainer) -> None:
    message = report_stop(job, NotFiniteError("loss is nan", 7, [3, 0, 5], [0]), trainer, open_storage(job, "node"))
    box = "t00000000000000"
    assert message == f"loss is nan at step 7; 1 of 3 samples are not finite: boxes {box}0_000 of image {box}0"
    stopped = json.loads((job.folder / STOPPED).read_text())
    assert [b["box_id"] for b in stopped["batch"]] == [f"{box}{i}_000" for i in (3, 0, 5)]
    assert stopped["not_finite"] == [{"box_id": f"{box}0_000", "image_id": f"{box}0"}]
