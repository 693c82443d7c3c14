"""A training run: where it reads and writes, its settings, and the key of everything that decides its weights."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pbe import settings
from pbe.dataset.curated_boxes import BOXES_FILE
from pbe.latents.latent_cache import INDEX, KEY
from pbe.runtime.code_digest import digest_code
from pbe.runtime.files import digest_files

MODEL = "model"  # in a bucket: the averaged model
DELIVERED = "delivered.json"  # which step's weights a run delivered
STOPPED = "stopped.json"  # why a run stopped for good, with the batch of that step
CODE = "pbe.training.worker"  # the module whose imports are the code that trains a model

# The settings of `train` that do not change the weights. A run keeps its last and its best weights, and a finished one
# delivers the other ones without training; validation changes the report alone.
NO_RESULT = settings.Train.no_result | {"deliver", "validate_every", "validation_samples"}


@dataclass(frozen=True)
class TrainJob:
    """Where a run reads and writes, and its settings.

    Paths are absolute, and every node must see `images`, `curated`, `backbone` and `latents` under them. It must also
    see `folder`, unless there is a bucket.
    """

    images: Path
    curated: Path
    backbone: Path
    latents: Path
    folder: Path  # the run's own folder
    method: settings.Method
    train: settings.Train
    seed: int
    bucket: str | None = None  # s3://bucket/prefix of the run, if it is stored in an object store


def run_key(job: TrainJob) -> str:
    """Return a digest, 16 hex digits, of everything that decides the weights.

    These are the parameters, the seed, the code, the boxes, the latents (or the images) and the backbone.
    """
    key = {
        "train": job.train.model_dump(exclude=set(NO_RESULT)),
        "method": job.method.model_dump(),
        "seed": job.seed,
        "code": digest_code(CODE),
        "inputs": digest_files(_inputs(job)),
    }
    return hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=8).hexdigest()


def _inputs(job: TrainJob) -> list[Path]:
    boxes = job.curated / BOXES_FILE
    backbone = sorted(file for file in job.backbone.rglob("*") if file.is_file())
    if job.train.cache:
        return [boxes, *backbone, job.latents / KEY, job.latents / INDEX]
    manifest = job.images.parent / "manifest.parquet"  # has every image's MD5, where `acquire` wrote the images
    return [boxes, *backbone, *([manifest] if manifest.is_file() else [])]
