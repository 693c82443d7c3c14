"""A training run told in full: where it reads and writes, its settings, and the key of what decides its weights."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pbe import settings
from pbe.latents.latent_cache import INDEX
from pbe.runtime.code_digest import digest_code
from pbe.runtime.files import digest_files

MODEL = "model"  # in a bucket: the averaged model
STOPPED = "stopped.json"  # why a run stopped for good, with its batch
CODE = "pbe.training.worker"  # the root of the imports that train a model


APART = {"keep_checkpoints", "checkpoint_every", "validate_every", "validation_samples", "storage"}  # decide no weights


@dataclass(frozen=True)
class TrainJob:
    """Where a run reads and writes, and its settings.

    Paths are absolute: every node must see `images`, `curated`, `backbone` and `latents` there, and `folder`, too,
    unless there is a bucket.
    """

    images: Path
    curated: Path
    backbone: Path
    latents: Path
    folder: Path  # the run's own
    method: settings.Method
    train: settings.Train
    seed: int
    bucket: str | None = None  # s3://bucket/prefix of the run, where it lives in an object store


def run_key(job: TrainJob) -> str:
    """A digest of all that decides the weights: parameters, seed, code, boxes, cache and backbone."""
    digest = hashlib.blake2b(digest_size=8)
    settings_of = {"train": job.train.model_dump(exclude=APART),
                   "method": job.method.model_dump(), "seed": job.seed,
                   "code": digest_code(CODE)}  # fmt: skip
    digest.update(json.dumps(settings_of, sort_keys=True).encode())
    files = [job.curated / "boxes.parquet", *(file for file in sorted(job.backbone.rglob("*")) if file.is_file())]
    manifest = job.images.parent / "manifest.parquet"
    if job.train.cache:
        files += [job.latents / "key.txt", job.latents / INDEX]
    elif manifest.is_file():
        files.append(manifest)
    digest.update(digest_files(files).encode())
    return digest.hexdigest()
