"""One worker of a distributed run, from the checkpoint to the saved model."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import ray
import ray.train
import ray.train.torch
import torch.distributed as dist

from pbe.dataset.curated_boxes import read_curated_boxes
from pbe.errors import UserError
from pbe.method.adapters import merge_adapter
from pbe.method.initialization import build_painter
from pbe.method.painter import Painter
from pbe.method.pretrained import with_zero_terminal_snr
from pbe.runtime.code_digest import digest_code
from pbe.runtime.files import atomic_folder, write_json
from pbe.training.batches import BatchSource, cached_source, fresh_source
from pbe.training.best import BestWeights
from pbe.training.checkpoints import load_checkpoint
from pbe.training.job import CODE, MODEL, STOPPED, TrainJob
from pbe.training.loop import NotFiniteError, Trainer, limit_threads, train_to_end
from pbe.training.lora import ADAPTER, add_adapters, take_adapter, write_adapter
from pbe.training.painting_loss import PaintingLoss
from pbe.training.recorder import OpenTimings, RunRecorder
from pbe.training.storage import Bucket, RunStorage

_BOXES_IN_MESSAGE = 8


def run_worker(
    job: TrainJob, out: Path, code: str, open_timings: OpenTimings, clock: Callable[[], float]
) -> str | None:
    """Train to the last step; the first worker then saves the averaged model to `out`, or to the job's bucket.

    Returns None, or why the run stopped for good: a loss that is not finite would come again after every restart.
    Raises UserError when this node has other training code than the driver, whose digest is `code`.
    """
    if digest_code(CODE) != code:
        raise UserError(
            f"{socket.gethostname()}: has another version of pbe than the driver; install the driver's version there"
        )
    context = ray.train.get_context()
    device = str(ray.train.torch.get_device()) if job.train.use_gpu else "cpu"
    if not job.train.use_gpu:
        limit_threads(job.train.cpus_per_worker)
    # Compiling takes minutes: this run, started again, and later ones find what was compiled.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(job.folder.parent / "inductor"))
    painter = initial_painter(job)
    trainer = Trainer(painter, open_source(job, device), job.train, context.get_world_rank(), device)
    storage = open_storage(job, ray.get_runtime_context().get_node_id())
    resume(trainer, storage, context.get_local_rank())
    recorder = RunRecorder(job, trainer, storage, open_timings, clock) if trainer.rank == 0 else None
    try:
        train_to_end(trainer, recorder)
    except NotFiniteError as error:
        return report_stop(job, error, trainer, storage)
    finally:
        if recorder:
            recorder.close()
    trainer.update.copy_average_to_model()  # all workers take part
    if trainer.rank == 0:
        choose_weights(job, trainer, storage)
        deliver(painter, out, storage)
    ray.train.report({"step": trainer.step})
    return None


def initial_painter(job: TrainJob) -> Painter:
    """Return the painter at step 0, with the parts, noise schedule and adapters that the job's settings choose."""
    painter = build_painter(
        job.backbone,
        job.method.image_px,
        job.seed,
        prior=job.train.prior,
        bottleneck=job.method.bottleneck,
        guidance=job.train.drop_probability > 0,
    )
    if painter.predicts_velocity and not job.train.zero_terminal_snr:
        raise UserError(f"{job.backbone}: predicts the velocity; set train.zero_terminal_snr true")
    if job.train.zero_terminal_snr:
        painter.set_scheduler(with_zero_terminal_snr(painter.scheduler))
    if job.train.lora_rank:
        add_adapters(painter, job.train.lora_rank, job.seed)
    return painter


def choose_weights(job: TrainJob, trainer: Trainer, storage: RunStorage) -> None:
    """Give the painter, which has the last averaged weights, those to deliver; delivered.json says which they are."""
    best = BestWeights(storage)
    delivered = best.choose(job.train.deliver, trainer.records)
    if delivered.step != trainer.step:
        best.copy_to(delivered.step, PaintingLoss(trainer.painter).trained())
    delivered.write(storage)


def open_source(job: TrainJob, device: str) -> BatchSource:
    """Return the job's batches, from the latent cache or from images."""
    if job.train.cache:
        return cached_source(job.latents, job.train, job.seed)
    return fresh_source(job.images, job.curated, job.backbone, job.method, job.train, job.seed, device)


def open_storage(job: TrainJob, node: str) -> RunStorage:
    """Return the run's storage: its folder, or this node's scratch folder and the bucket."""
    if job.bucket is None:
        return RunStorage(job.folder)
    return RunStorage(job.folder / f"scratch-{node[:12]}", Bucket(job.bucket))


def resume(trainer: Trainer, storage: RunStorage, local_rank: int) -> None:
    """Load the newest checkpoint, if there is one.

    The first worker chooses it for all of them: they might find different ones while files are being written or lost.
    """
    chosen = [storage.newest() if trainer.rank == 0 else None]
    if dist.is_initialized():
        dist.broadcast_object_list(chosen)
        if chosen[0] and local_rank == 0:
            storage.fetch(chosen[0])
        dist.barrier()
    if chosen[0]:
        trainer.load_state(load_checkpoint(storage.fetch(chosen[0])))


def report_stop(job: TrainJob, error: NotFiniteError, trainer: Trainer, storage: RunStorage) -> str:
    """Write the boxes of the step's batch to stopped.json; return the message for the driver."""
    boxes = read_curated_boxes(job.curated, "train")
    variants = trainer.source.num_samples // len(boxes)

    def describe(samples: list[int]) -> list[dict[str, str]]:
        chosen = [boxes[sample // variants] for sample in samples]
        return [{"box_id": box.box_id, "image_id": box.image_id} for box in chosen]

    batch, bad = describe(error.samples), describe(error.bad)
    if trainer.rank == 0:
        path = storage.folder / STOPPED
        write_json(path, {"step": error.step, "what": error.what, "not_finite": bad, "batch": batch})
        storage.publish(path)
    named = ", ".join(f"{b['box_id']} of image {b['image_id']}" for b in (bad or batch)[:_BOXES_IN_MESSAGE])
    rest = f" and {len(bad or batch) - _BOXES_IN_MESSAGE} more" if len(bad or batch) > _BOXES_IN_MESSAGE else ""
    share = f"{len(bad)} of {len(batch)} samples are not finite" if bad else f"{len(batch)} samples"
    return f"{error.what} at step {error.step}; {share}: boxes {named}{rest}"


def deliver(painter: Painter, out: Path, storage: RunStorage) -> None:
    """Save the trained painter to `out`, or in the storage's bucket, from where the driver fetches it."""
    if storage.bucket is None:
        save_painter(painter, out)
        return
    model = storage.folder / MODEL
    save_painter(painter, model)
    storage.bucket.put_folder(model, MODEL)
    shutil.rmtree(model)
    storage.remove_local_copies()
    BestWeights(storage).storage.remove_local_copies()


def save_painter(painter: Painter, out: Path) -> None:
    """Save a painter in diffusers' layout, atomically; with adapters, merged, and beside it in the folder `adapter`."""
    adapter = take_adapter(painter.eval())
    with atomic_folder(out) as part:
        if adapter:
            write_adapter(painter, adapter, part / ADAPTER)
            merge_adapter(painter, adapter)
        painter.save_pretrained(part)
