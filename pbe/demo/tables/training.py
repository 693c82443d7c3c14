"""Training of one model in one process, without Ray, whose start would take a third of a run of minutes.

Samples, noise and weights are those of `pbe.training.run.train` with one worker.
"""

from dataclasses import asdict
from pathlib import Path

from pbe.runtime.files import read_json, write_json
from pbe.training.job import TrainJob, run_key
from pbe.training.journal import StepRecord
from pbe.types import Progress, no_progress

TRAINED = "trained.json"  # in the model's project: the key of the run that delivered the model, and its losses


def is_trained(job: TrainJob, model: Path, record: Path) -> bool:
    """Return whether `model` is what `job` leads to with the present code."""
    return model.is_dir() and record.is_file() and read_json(record)["key"] == run_key(job)


def train_model(job: TrainJob, model: Path, record: Path, progress: Progress = no_progress) -> None:
    """Train to the last step on one CPU core, save the averaged model to `model`, and its losses to `record`.

    Raises NotFiniteError.
    """
    from pbe.training.loop import Trainer, limit_threads  # take seconds to import, which the driver need not spend
    from pbe.training.worker import initial_painter, open_source, save_painter

    limit_threads(1)
    key = run_key(job)
    painter = initial_painter(job)
    trainer = Trainer(painter, open_source(job, "cpu"), job.train, rank=0, device="cpu")
    while trainer.step < job.train.steps:
        step: StepRecord = trainer.run_step()
        progress(trainer.step, job.train.steps, f"loss {step.loss:.4f}")
    trainer.update.copy_average_to_model()
    save_painter(painter, model)
    write_json(record, {"key": key, "steps": [asdict(each) for each in trainer.records]})
