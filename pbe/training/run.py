"""Distributed training with Ray Train, from the backbone and the cache to `models/pbe`.

Every run lives in a folder named after what decides its weights, so that another configuration never resumes it. The
driver watches the run's journal: progress, live metrics and validation pictures leave through its callbacks.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from pbe.training.job import TrainJob, run_key
from pbe.training.journal import JOURNAL, StepRecord, read_journal


def train(
    job: TrainJob,
    out: Path,
    on_record: Callable[[StepRecord], None] | None = None,
    on_picture: Callable[[int, Path], None] | None = None,
) -> list[StepRecord]:
    """Train to the last step, from the newest checkpoint where there is one, and save the averaged model to `out`.

    `job.folder` is the parent of the runs' folders. Ray must be initialised; `out` is written by
    the first worker, so that on a cluster it lies where every node sees it. Returns the records of all steps. Raises
    RuntimeError naming the cause when the workers failed more than three times.
    """
    job = replace(job, folder=job.folder / run_key(job))
    job.folder.mkdir(parents=True, exist_ok=True)
    with _Watch(job.folder, on_record, on_picture):
        _fit(job, out.absolute())
    return read_journal(job.folder / JOURNAL)


def _fit(job: TrainJob, out: Path) -> None:
    storage = job.folder / "ray"
    attempts = len(list(storage.glob("attempt-*"))) if storage.exists() else 0
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job, "out": out},
        torch_config=TorchConfig(backend="nccl" if job.train.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=job.train.num_workers,
            use_gpu=job.train.use_gpu,
            resources_per_worker={"CPU": 1, "GPU": 1} if job.train.use_gpu else {"CPU": 1},
        ),
        run_config=RunConfig(
            name=f"attempt-{attempts}", storage_path=str(storage), failure_config=FailureConfig(max_failures=3)
        ),
    )
    result = trainer.fit()
    if result.error:
        raise RuntimeError(f"training failed: {result.error}") from result.error


def train_worker(config: dict[str, Any]) -> None:
    """The function that Ray Train runs on each worker; only there is the model's code imported."""
    from pbe.training.worker import work

    work(config["job"], config["out"])


class _Watch:
    """Follows a run's journal and pictures from a thread of the driver, and hands each on once."""

    def __init__(
        self,
        folder: Path,
        on_record: Callable[[StepRecord], None] | None,
        on_picture: Callable[[int, Path], None] | None,
        period_s: float = 0.5,
    ) -> None:
        self.folder, self.on_record, self.on_picture, self.period_s = folder, on_record, on_picture, period_s
        self._next_step = 0
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="watch")

    def __enter__(self) -> None:
        self._watching = self._pool.submit(self._run)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Look once more; what a callback raised is told only now, and only if the training itself did not fail."""
        self._stop.set()
        self._pool.shutdown()
        error = self._watching.exception()
        if kind is None and error is not None:
            raise error
        if error is None:
            self._look()

    def _run(self) -> None:
        while not self._stop.wait(self.period_s):
            self._look()

    def _look(self) -> None:
        for record in read_journal(self.folder / JOURNAL, self._next_step):
            if self.on_record:
                self.on_record(record)
            self._next_step = record.step + 1
        for picture in sorted(self.folder.glob("panel-*[0-9].png")):
            if picture.name not in self._seen and self.on_picture:
                self.on_picture(int(picture.stem.removeprefix("panel-")), picture)
            self._seen.add(picture.name)
