"""Distributed training with Ray Train, from the backbone and the latents to `models/pbe`.

Every run has a folder named after the key of what decides its weights, so that a run never resumes from another
configuration. The driver follows the run's journal and passes records, timings and pictures to callbacks.
"""

import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from pbe.errors import UserError
from pbe.runtime.code_digest import digest_code
from pbe.runtime.files import atomic_folder
from pbe.runtime.ray_cluster import as_user_error
from pbe.training.checkpoints import list_checkpoints
from pbe.training.job import CODE, MODEL, STOPPED, TrainJob, run_key
from pbe.training.journal import JOURNAL, TIMINGS, StepRecord, read_journal, read_lines
from pbe.training.parallel import check_strategy
from pbe.training.storage import Bucket

MAX_FAILURES = 3  # in a row, without a new checkpoint
Timing = dict[str, float]


def train(
    job: TrainJob,
    out: Path,
    on_record: Callable[[StepRecord], None] | None = None,
    on_picture: Callable[[int, Path], None] | None = None,
    on_timing: Callable[[Timing], None] | None = None,
) -> list[StepRecord]:
    """Train to the last step, from the newest checkpoint if there is one, and save the averaged model to `out`.

    `job.folder` is the parent of the runs' folders, `job.bucket` that of their prefixes. Ray must be initialised. The
    first worker writes `out`, so that without a bucket every node must see it. Returns the records of all steps.

    Raises UserError when a loss is not finite, with the boxes, when settings cannot be combined, and when a worker
    failed with a UserError or on a full disk. Raises Ray's TrainingFailedError, whose message has the workers'
    tracebacks, when they failed otherwise, more than three times without a new checkpoint.
    """
    check_strategy(job.train)
    key = run_key(job)
    job = replace(job, folder=job.folder / key, bucket=f"{job.bucket.rstrip('/')}/{key}" if job.bucket else None)
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / STOPPED).unlink(missing_ok=True)
    bucket = Bucket(job.bucket) if job.bucket else None
    with _RunFollower(job.folder, bucket, on_record, on_picture, on_timing):
        stopped = _fit_with_restarts(job, out.absolute(), bucket)
    if stopped:
        raise UserError(f"training stopped: {stopped}; the whole batch is in {job.folder / STOPPED}")
    if bucket:
        _fetch_model(bucket, out)
    return read_journal(job.folder / JOURNAL)


def _fetch_model(bucket: Bucket, out: Path) -> None:
    with atomic_folder(out) as part:
        bucket.get_folder(MODEL, part)


def _fit_with_restarts(job: TrainJob, out: Path, bucket: Bucket | None) -> str | None:
    """Fit, and say why it starts again: a long run may lose any number of nodes between checkpoints."""
    num_failures = 0
    while True:
        before = _checkpoints(job, bucket)
        try:
            return _fit(job, out)
        except TrainingFailedError as error:
            cause, after = _cause(error), _checkpoints(job, bucket)
            num_failures = num_failures + 1 if after in ([], before) else 1
            if num_failures > MAX_FAILURES:
                raise cause from None
            start = after[-1] if after else "the first step"
            print(f"train: {_last_line(cause)}; training continues from {start}", file=sys.stderr, flush=True)


def _last_line(error: Exception) -> str:
    """Return the last line of a message, where a traceback names its exception."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()


def _checkpoints(job: TrainJob, bucket: Bucket | None) -> list[str]:
    return bucket.checkpoints() if bucket else [path.name for path in list_checkpoints(job.folder)]


def _cause(error: TrainingFailedError) -> Exception:
    """Return the UserError of the first worker that has one, else Ray's exception with the workers' tracebacks.

    When one worker fails, the connections of the others break, so that these fail too.
    """
    failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    user_errors = (as_user_error(failure) for _, failure in sorted(failures.items()))
    return next((user_error for user_error in user_errors if user_error), error)


def _fit(job: TrainJob, out: Path) -> str | None:
    storage = f"{job.bucket}/ray" if job.bucket else str(job.folder / "ray")
    resources = {"CPU": job.train.cpus_per_worker, **({"GPU": 1} if job.train.use_gpu else {})}
    trainer = _Trainer(
        train_worker,
        train_loop_config={"job": job, "out": out, "code": digest_code(CODE)},
        torch_config=TorchConfig(backend="nccl" if job.train.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=job.train.num_workers, use_gpu=job.train.use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=f"attempt-{uuid.uuid4().hex[:12]}",  # Ray would resume a run of the same name by its own rules
            storage_path=storage,
            failure_config=FailureConfig(max_failures=0),  # Ray would start again without a word
        ),
    )
    result: Any = trainer.fit()  # Ray's annotation is still that of the first Ray Train, which has no return value
    stopped: str | None = result.return_value
    return stopped


class _Trainer(TorchTrainer):
    """Leaves SIGINT to the stage: Ray's handler waits for the workers' steps and then raises SystemExit(0)."""

    def _register_sigint_handler(self, controller: object) -> None:
        pass


def train_worker(config: dict[str, Any]) -> Any:
    """Run one worker. Only the workers import the models' code."""
    from pbe.training.throughput import open_throughput_log
    from pbe.training.worker import run_worker

    open_timings = partial(open_throughput_log, clock=time.perf_counter)
    return run_worker(config["job"], config["out"], config["code"], open_timings, time.perf_counter)


class _RunFollower:
    """Reads a run's journal, timings and pictures in a thread of the driver, and passes each on once."""

    def __init__(
        self,
        folder: Path,
        bucket: Bucket | None,
        on_record: Callable[[StepRecord], None] | None,
        on_picture: Callable[[int, Path], None] | None,
        on_timing: Callable[[Timing], None] | None,
    ) -> None:
        self.folder, self.bucket = folder, bucket
        self.on_record, self.on_picture, self.on_timing = on_record, on_picture, on_timing
        self.period_s = 3.0 if bucket else 0.5
        self._next_step, self._next_timing = 0, 0
        self._seen: set[str] = set()
        self._fetched: dict[str, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="follow")

    def __enter__(self) -> "_RunFollower":
        self._following = self._pool.submit(self._run)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Read a last time. An exception of a callback is raised only now, and only if the training did not fail."""
        self._stop.set()
        self._pool.shutdown()
        error = self._following.exception()
        if kind is None and error is not None:
            raise error
        if error is None:
            self._read()

    def _run(self) -> None:
        while not self._stop.wait(self.period_s):
            self._read()

    def _read(self) -> None:
        self._fetch()
        for timing in read_lines(self.folder / TIMINGS, self._next_timing):
            if self.on_timing:
                self.on_timing(timing)
            self._next_timing += 1
        for record in read_journal(self.folder / JOURNAL, self._next_step):
            if self.on_record:
                self.on_record(record)
            self._next_step = record.step + 1
        for picture in sorted(self.folder.glob("validation-*[0-9].png")):
            if picture.name not in self._seen and self.on_picture:
                self.on_picture(int(picture.stem.removeprefix("validation-")), picture)
            self._seen.add(picture.name)

    def _fetch(self) -> None:
        """Download what has changed in the bucket: journal, timings and pictures."""
        if self.bucket is None:
            return
        for name, state in self.bucket.list_objects().items():
            if self._fetched.get(name) != state:
                self.bucket.get(name, self.folder / name)
                self._fetched[name] = state
