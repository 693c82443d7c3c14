"""A worker without Ray: its records of a run, its trained model, and the boxes that it names after a NaN."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pbe.errors import UserError
from pbe.method.adapters import digest_painter, merge_adapter, read_adapter
from pbe.method.diffusion import min_snr_weights
from pbe.method.initialization import build_painter
from pbe.method.painter import Painter
from pbe.training.checkpoints import load_checkpoint
from pbe.training.job import DELIVERED, STOPPED, TrainJob
from pbe.training.journal import JOURNAL, TIMINGS, read_journal, read_lines
from pbe.training.loop import NotFiniteError, Trainer, train_to_end
from pbe.training.lora import ADAPTER
from pbe.training.painting_loss import PaintingLoss
from pbe.training.recorder import RunRecorder
from pbe.training.storage import RunStorage
from pbe.training.throughput import open_throughput_log
from pbe.training.worker import choose_weights, deliver, initial_painter, open_source, open_storage, report_stop, resume
from tests.support import parameters
from tests.support.tiny_data import write_scenes


@pytest.fixture
def job(backbone: Path, tmp_path: Path) -> TrainJob:
    write_scenes(tmp_path)
    train = parameters.train(
        cache=False, num_workers=1, steps=3, batch_size=2, checkpoint_every=2, validation_samples=2, lr=1e-3,
        min_snr_gamma=None,
    )  # fmt: skip
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


def trained(job: TrainJob) -> tuple[Trainer, RunStorage]:
    """Return the job's trainer after its last step, and the storage of its run."""
    trainer = Trainer(initial_painter(job), open_source(job, "cpu"), job.train, 0, "cpu")
    storage = open_storage(job, "node")
    resume(trainer, storage, 0)
    clock = iter(range(1000)).__next__
    recorder = RunRecorder(job, trainer, storage, partial(open_throughput_log, clock=clock), clock)
    train_to_end(trainer, recorder)
    recorder.close()
    return trainer, storage


def delivered(trainer: Trainer, storage: RunStorage, job: TrainJob, out: Path) -> dict[str, Any]:
    trainer.update.copy_average_to_model()
    choose_weights(job, trainer, storage)
    deliver(trainer.painter, out, storage)
    record: dict[str, Any] = json.loads((job.folder / DELIVERED).read_text())
    return record


def test_a_finished_run_delivers_its_best_weights_without_training(job: TrainJob, tmp_path: Path) -> None:
    changes = {"lr": 1.0, "decay": "constant", "ema_decay": 0.0, "validate_every": 1, "warmup_steps": 0}
    job = replace(job, train=job.train.replace(**changes))
    trainer, storage = trained(job)
    losses = [r.validation_loss for r in trainer.records]
    best = losses.index(min(losses)) + 1
    assert best < 3, "a learning rate of 1 should make the loss worse"
    assert delivered(trainer, storage, job, tmp_path / "last")["step"] == 3
    again, _ = trained(replace(job, train=job.train.replace(deliver="best")))
    assert again.step == 3
    record = delivered(again, storage, replace(job, train=job.train.replace(deliver="best")), tmp_path / "best")
    assert record == {"step": best, "validation_loss": min(losses)}
    weights = load_checkpoint(job.folder / "best" / f"step-{best:08d}")
    saved = PaintingLoss(Painter.from_pretrained(tmp_path / "best")).state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in weights.items())
    assert not torch.equal(
        saved["unet.conv_out.weight"], Painter.from_pretrained(tmp_path / "last").unet.conv_out.weight
    )


def test_adapters_are_delivered_merged_and_beside_the_model(job: TrainJob, backbone: Path, tmp_path: Path) -> None:
    build_painter(backbone, 64, 0).save_pretrained(tmp_path / "base")
    job = replace(job, backbone=tmp_path / "base", train=job.train.replace(lora_rank=2, deliver="best", lr=0.05))
    trainer, storage = trained(job)
    assert delivered(trainer, storage, job, tmp_path / "model")["step"] == 3
    base = Painter.from_pretrained(tmp_path / "base")
    adapter = read_adapter(tmp_path / "model" / ADAPTER)
    assert adapter.traits["base"] == digest_painter(base)
    merge_adapter(base, adapter)
    merged = Painter.from_pretrained(tmp_path / "model").state_dict()
    assert all(torch.equal(tensor, merged[name]) for name, tensor in base.state_dict().items())
    assert not torch.equal(
        merged["conditioner.proj_out.weight"],
        Painter.from_pretrained(tmp_path / "base").conditioner.proj_out.weight,
    )


def test_zero_terminal_snr_trains_delivers_and_is_asked_for_again(job: TrainJob, tmp_path: Path) -> None:
    job = replace(job, train=job.train.replace(zero_terminal_snr=True))
    trainer, storage = trained(job)
    delivered(trainer, storage, job, tmp_path / "model")
    assert Painter.from_pretrained(tmp_path / "model").predicts_velocity
    scheduler = json.loads((tmp_path / "model" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["_class_name"] == "DDIMScheduler"
    assert (scheduler["rescale_betas_zero_snr"], scheduler["prediction_type"]) == (True, "v_prediction")
    with pytest.raises(UserError, match=r"model: predicts the velocity; set train\.zero_terminal_snr true"):
        initial_painter(replace(job, backbone=tmp_path / "model", train=job.train.replace(zero_terminal_snr=False)))


def test_min_snr_weights_losses_in_training_and_not_in_validation(job: TrainJob) -> None:
    weighted, plain = (
        Trainer(initial_painter(job), open_source(job, "cpu"), job.train.replace(min_snr_gamma=gamma), 0, "cpu")
        for gamma in (0.001, None)
    )
    batch = plain.source.batches(0, 0)[0]
    weights = min_snr_weights(batch.timesteps, plain.painter.alphas_cumprod, 0.001)
    assert weights.max() < 1
    torch.testing.assert_close(weighted.losses(batch), plain.losses(batch) * weights)
    weighted.losses.eval()
    assert torch.equal(weighted.losses(batch), plain.losses(batch))
    assert weighted.validation_loss(batch) == plain.validation_loss(batch)


def test_a_stop_names_boxes_and_images_and_writes_the_whole_batch(job: TrainJob, trainer: Trainer) -> None:
    message = report_stop(job, NotFiniteError("loss is nan", 7, [3, 0, 5], [0]), trainer, open_storage(job, "node"))
    box = "t00000000000000"
    assert message == f"loss is nan at step 7; 1 of 3 samples are not finite: boxes {box}0_000 of image {box}0"
    stopped = json.loads((job.folder / STOPPED).read_text())
    assert [b["box_id"] for b in stopped["batch"]] == [f"{box}{i}_000" for i in (3, 0, 5)]
    assert stopped["not_finite"] == [{"box_id": f"{box}0_000", "image_id": f"{box}0"}]
