"""One worker of a distributed run, from the checkpoint to the saved model."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import cv2
import ray
import ray.train
import ray.train.torch
import torch.distributed as dist

from pbe.errors import UserError
from pbe.latents.samples import read_boxes
from pbe.method.initialization import build_painter
from pbe.method.painter import Painter
from pbe.runtime.code_digest import digest_code
from pbe.runtime.files import atomic_file, atomic_folder
from pbe.training.batches import BatchSource, cached_source, fresh_source
from pbe.training.checkpoints import load_checkpoint
from pbe.training.job import CODE, MODEL, STOPPED, TrainJob
from pbe.training.journal import JOURNAL, TIMINGS, Lines, StepRecord
from pbe.training.loop import NotFiniteError, Trainer, limit_threads, train_to_end
from pbe.training.storage import Bucket, RunStorage
from pbe.training.throughput import Meter, sample_flops
from pbe.training.validation import Panel, draw_panel, draw_validation

SHARE_EVERY_S = 5.0
NAMED = 8  # samples, in the message of a run that stopped


def work(job: TrainJob, out: Path, code: str, clock: Callable[[], float]) -> str | None:
    """Train to the last step; the first worker then saves the averaged model to `out`, or to the job's bucket.

    Returns None, or why the run stopped for good: a loss that is not finite would come again at each new start.
    Raises UserError when this node has other code than the driver, whose digest is `code`.
    """
    if digest_code(CODE) != code:
        raise UserError(f"{socket.gethostname()} has another version of pbe than the driver; install the same there")
    context = ray.train.get_context()
    device = str(ray.train.torch.get_device()) if job.train.use_gpu else "cpu"
    if not job.train.use_gpu:
        limit_threads(job.train.cpus_per_worker)
    painter = painter_at_start(job)
    trainer = Trainer(painter, _source(job, device), job.train, context.get_world_rank(), device)
    storage = open_storage(job, ray.get_runtime_context().get_node_id())
    resume(trainer, storage, context.get_local_rank())
    keeper = RunKeeper(job, trainer, storage, clock) if trainer.rank == 0 else None
    try:
        train_to_end(trainer, keeper)
    except NotFiniteError as error:
        return _tell_stop(job, error, trainer, storage)
    finally:
        if keeper:
            keeper.close()
    if trainer.rank == 0:
        trainer.average.copy_to(trainer.losses.trained())
        _deliver(painter, out, storage)
    ray.train.report({"step": trainer.step})
    return None


def painter_at_start(job: TrainJob) -> Painter:
    """The painter at step 0, as the job's ablation switches say."""
    return build_painter(
        job.backbone,
        job.method.image_px,
        job.seed,
        prior=job.train.prior,
        bottleneck=job.method.bottleneck,
        guidance=job.train.drop_probability > 0,
    )


def _source(job: TrainJob, device: str) -> BatchSource:
    if job.train.cache:
        return cached_source(job.latents, job.train, job.seed)
    return fresh_source(job.images, job.curated, job.backbone, job.method, job.train, job.seed, device)


def open_storage(job: TrainJob, node: str) -> RunStorage:
    """The run's storage; where a bucket holds it, this node's scratch folder and the bucket."""
    if job.bucket is None:
        return RunStorage(job.folder)
    return RunStorage(job.folder / f"scratch-{node[:12]}", Bucket(job.bucket))


def resume(trainer: Trainer, storage: RunStorage, local_rank: int) -> None:
    """Load the checkpoint that the first worker finds: one for all, whatever else is being written or lost."""
    chosen = [storage.newest() if trainer.rank == 0 else None]
    if dist.is_initialized():
        dist.broadcast_object_list(chosen)
        if chosen[0] and local_rank == 0:
            storage.bring(chosen[0])
        dist.barrier()
    if chosen[0]:
        trainer.load_state(load_checkpoint(storage.bring(chosen[0])))


class RunKeeper:
    """The first worker's: writes journal, timings and checkpoints; validates the averaged weights."""

    def __init__(self, job: TrainJob, trainer: Trainer, storage: RunStorage, clock: Callable[[], float]) -> None:
        self.job, self.storage, self.clock = job, storage, clock
        self.panel: Panel = draw_panel(job.images, job.curated, job.method, trainer.painter.exemplar_px, job.seed)
        self.samples = draw_validation(
            job.images, job.curated, job.backbone, job.method, job.seed, job.train.validation_samples, trainer.device
        )
        self.journal = Lines(storage.folder / JOURNAL, (r.__dict__ for r in trainer.records))
        self.meter = Meter(storage.folder / TIMINGS, clock, trainer.source.global_batch, job.train.num_workers)
        if job.train.use_gpu:
            flops = sample_flops(trainer.losses, self.samples.split(1)[0].to(trainer.device))
            self.meter.measure_gpu(trainer.device, flops)
        self._shared = clock()

    def validate(self, trainer: Trainer) -> float:
        """Paint the panel and take the mean loss, both with the averaged weights."""
        with self.meter.aside("validation"), trainer.average.swapped_in(trainer.losses.trained()):
            trainer.painter.eval()
            picture = self.panel.paint(trainer.painter)
            loss = trainer.validation_loss(self.samples)
            trainer.losses.train()
        path = self.storage.folder / f"panel-{trainer.step:08d}.png"
        with atomic_file(path) as part:
            cv2.imwrite(str(part), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self.storage.share(path)
        return loss

    def note(self, trainer: Trainer, record: StepRecord) -> None:
        self.journal.append(record.__dict__)
        self.meter.tick(record.step)
        if self.storage.bucket and self.clock() - self._shared >= SHARE_EVERY_S:
            self._share()

    def save(self, trainer: Trainer) -> None:
        with self.meter.aside("checkpoint"):
            self.storage.save(trainer.step, trainer.state(), trainer.train.keep_checkpoints)
        self._share()

    def _share(self) -> None:
        for name in (JOURNAL, TIMINGS):
            self.storage.share(self.storage.folder / name)
        self._shared = self.clock()

    def close(self) -> None:
        self.journal.close()
        self.meter.close()


def _tell_stop(job: TrainJob, error: NotFiniteError, trainer: Trainer, storage: RunStorage) -> str:
    """Write which boxes the step's batch had to `stopped.json`; returns the message for the driver."""
    boxes = read_boxes(job.curated, "train")
    variants = trainer.source.num_samples // len(boxes)

    def named(samples: list[int]) -> list[dict[str, str]]:
        chosen = [boxes[sample // variants] for sample in samples]
        return [{"box_id": box.box_id, "image_id": box.image_id} for box in chosen]

    batch, bad = named(error.samples), named(error.bad)
    if trainer.rank == 0:
        told = {"step": error.step, "what": error.what, "not_finite": bad, "batch": batch}
        path = storage.folder / STOPPED
        with atomic_file(path) as part:
            part.write_text(json.dumps(told, indent=2) + "\n")
        storage.share(path)
    some = ", ".join(f"{b['box_id']} of image {b['image_id']}" for b in (bad or batch)[:NAMED])
    rest = f" and {len(bad or batch) - NAMED} more" if len(bad or batch) > NAMED else ""
    share = f"{len(bad)} of {len(batch)} samples are not finite" if bad else f"{len(batch)} samples"
    return f"{error.what} at step {error.step}; {share}: boxes {some}{rest}"


def _deliver(painter: Painter, out: Path, storage: RunStorage) -> None:
    if storage.bucket is None:
        export(painter, out)
        return
    model = storage.folder / MODEL
    export(painter, model)
    storage.bucket.put_folder(model, MODEL)
    shutil.rmtree(model)
    storage.forget()


def export(painter: Painter, out: Path) -> None:
    """Save a painter in diffusers' layout; the folder appears whole or not at all."""
    with atomic_folder(out) as part:
        painter.eval().save_pretrained(part)
