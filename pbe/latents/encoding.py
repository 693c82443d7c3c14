"""The encode stage: computes once, with Ray Data, what the frozen encoders would otherwise compute at every step.

The frozen encoders are half of the arithmetic of a training image. `encode` draws K variants of each box and writes
their encodings as shards (see `latent_cache`). Each shard is written atomically, under a name that depends only on its
rows: after a kill, the next run writes the missing shards, and the cache ends with the same bytes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import torch

from pbe import settings
from pbe.dataset.curated_boxes import BOXES_FILE, CuratedBox, read_curated_boxes
from pbe.latents.latent_cache import INDEX, KEY, TENSORS, shard_name, write_shard
from pbe.latents.samples import SampleDrawer
from pbe.runtime.code_digest import digest_code
from pbe.runtime.files import digest_files, write_text
from pbe.runtime.ray_cluster import user_errors_of_tasks
from pbe.types import Progress, no_progress

if TYPE_CHECKING:
    from pbe.latents.frozen_encoders import FrozenEncoders

NO_RESULT = {"num_workers"}  # settings of `encode` that do not change a bit; batches and GPUs change the last ones


@dataclass(frozen=True)
class EncodeJob:
    """Everything a worker needs to write a shard. Paths are absolute."""

    images: Path
    curated: Path
    backbone: Path
    out: Path
    method: settings.Method
    encode: settings.Encode
    seed: int


class ShardWriter:
    """A Ray Data actor that takes the number of a shard and writes that shard.

    It reads its inputs at the first shard and not in its constructor: Ray passes on an exception of a call with its
    type, but one of a constructor only as text.
    """

    def __init__(self, job: EncodeJob) -> None:
        torch.set_num_threads(1)
        self.job = job
        self._inputs: tuple[list[CuratedBox], FrozenEncoders, SampleDrawer] | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write shard `row["shard"]`; return its number and its number of rows."""
        boxes, encoders, drawer = self._inputs = self._inputs or self._load()
        shard, encode = int(row["shard"]), self.job.encode
        rows = shard_rows(shard, len(boxes), encode)
        batches = []
        for start in range(0, len(rows), encode.batch_size):
            chunk = rows[start : start + encode.batch_size]
            samples = [drawer.draw(boxes[r // encode.variants], r % encode.variants) for r in chunk]
            batches.append(encoders.encode(samples))
        tensors = {name: torch.cat([batch[name] for batch in batches]) for name in TENSORS}
        write_shard(self.job.out / shard_name(shard), tensors)
        return {"shard": shard, "rows": len(rows)}

    def _load(self) -> "tuple[list[CuratedBox], FrozenEncoders, SampleDrawer]":
        from pbe.latents.frozen_encoders import FrozenEncoders  # takes seconds, which the driver need not spend

        job = self.job
        encoders = FrozenEncoders(job.backbone, "cuda" if job.encode.use_gpu else "cpu", job.method.bottleneck)
        exemplar_px = encoders.conditioner.exemplar_px
        drawer = SampleDrawer(job.images, job.method, exemplar_px, job.encode.exemplar_variants, job.seed)
        return read_curated_boxes(job.curated, "train"), encoders, drawer


def encode(
    images: Path,
    curated: Path,
    backbone: Path,
    out: Path,
    method: settings.Method,
    encode: settings.Encode,
    seed: int,
    progress: Progress = no_progress,
) -> dict[str, int]:
    """Write the missing shards of the cache and its index; return the counts in the index.

    Ray must be initialised. Shards of other parameters, boxes or code are removed first: key.txt has a digest of these.
    Raises UserError for a file that cannot be read or written, also when that happens in a worker.
    """
    num_boxes = len(read_curated_boxes(curated, "train"))
    num_rows = num_boxes * encode.variants
    num_shards = -(-num_rows // encode.shard_rows)
    out.mkdir(parents=True, exist_ok=True)
    _remove_other_shards(out, cache_key(images, curated, backbone, method, encode, seed))
    missing = [i for i in range(num_shards) if not (out / shard_name(i)).exists()]
    job = EncodeJob(images.resolve(), curated.resolve(), backbone.resolve(), out.resolve(), method, encode, seed)
    done = num_shards - len(missing)
    with user_errors_of_tasks():
        for _ in _write_shards(job, missing):
            done += 1
            progress(done, num_shards)
    index = {"rows": num_rows, "shards": num_shards, "boxes": num_boxes, "shard_rows": encode.shard_rows}
    write_text(out / INDEX, json.dumps(index, indent=2) + "\n")
    return index


def cache_key(
    images: Path, curated: Path, backbone: Path, method: settings.Method, encode: settings.Encode, seed: int
) -> str:
    """Return a digest, 32 hex digits, of everything that decides the shards' bytes: inputs, code, parameters, seed."""
    key = {
        "inputs": digest_files(_input_files(images, curated, backbone)),
        "code": digest_code(__name__),
        "method": method.model_dump(),
        "seed": seed,
        "encode": encode.model_dump(exclude=NO_RESULT),
    }
    return blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16).hexdigest()


def _input_files(images: Path, curated: Path, backbone: Path) -> list[Path]:
    """Return the files that determine the cache; the manifest of `acquire`, if there is one, holds the images' MD5."""
    parts = [file for name in ("vae", "image_encoder") for file in sorted((backbone / name).glob("*"))]
    manifest = images.parent / "manifest.parquet"
    return [curated / BOXES_FILE, *([manifest] if manifest.is_file() else []), *parts]


def _remove_other_shards(out: Path, key: str) -> None:
    """Remove all shards if they have another key, and otherwise the files that killed writers left incomplete."""
    key_file = out / KEY
    is_same = key_file.exists() and key_file.read_text().strip() == key
    for file in out.iterdir():
        if file != key_file and (not is_same or file.name.startswith(".")):
            file.unlink()
    if not is_same:
        write_text(key_file, key + "\n")


def _write_shards(job: EncodeJob, shards: list[int]) -> Iterator[dict[str, Any]]:
    if not shards:
        return
    dataset = ray.data.from_items([{"shard": i} for i in shards], override_num_blocks=len(shards))
    written = dataset.map(
        ShardWriter,  # type: ignore[arg-type]  # an actor class, where Ray's stub expects a function
        fn_constructor_args=(job,),
        concurrency=min(job.encode.num_workers, len(shards)),
        num_cpus=1,
        num_gpus=1 if job.encode.use_gpu else 0,
    )
    yield from written.iter_rows()


def shard_rows(shard: int, num_boxes: int, encode: settings.Encode) -> range:
    """Return the rows of a shard; row r is variant r % K of box r // K."""
    first = shard * encode.shard_rows
    return range(first, min(first + encode.shard_rows, num_boxes * encode.variants))
