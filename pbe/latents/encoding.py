"""The encode stage: computes once, with Ray Data, what the frozen encoders would otherwise compute at every step.

The frozen encoders are half of the arithmetic of a training image. `encode` draws K variants of each box and writes
their encodings as shards (see `latent_cache`). Each shard is written atomically, under a name that depends only on its
rows: after a kill, the next run writes the missing shards, and the cache ends with the same bytes.

On CPUs an encoder draws its samples itself. A GPU is many times faster than a core that draws: there, processes of the
encoder's own draw batches ahead, and Ray reserves a CPU for each of them.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pbe import settings
from pbe.dataset.curated_boxes import BOXES_FILE, CuratedBox, read_curated_boxes
from pbe.latents.drawing import Draw, DrawingPool, draw_all
from pbe.latents.latent_cache import INDEX, KEY, TENSORS, shard_name, write_shard
from pbe.latents.samples import SampleDrawer
from pbe.method.training_triplet import TrainingTriplet
from pbe.runtime.code_digest import digest_code
from pbe.runtime.devices import DTYPES, choose_device, choose_precision
from pbe.runtime.files import digest_files, write_text
from pbe.runtime.set_aside import aside_of, discard
from pbe.types import Progress, no_progress

if TYPE_CHECKING:
    from pbe.latents.frozen_encoders import FrozenEncoders


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
    type, but one of a constructor only as text. With `processes` samples are drawn in `encode.draw_workers` processes.
    """

    def __init__(self, job: EncodeJob, processes: bool) -> None:
        torch.set_num_threads(1)
        self.job, self.processes = job, processes
        self._inputs: _Inputs | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write shard `row["shard"]`; return its number and its number of rows."""
        inputs = self._inputs = self._inputs or self._load()
        shard, encode = int(row["shard"]), self.job.encode
        rows = shard_rows(shard, len(inputs.boxes), encode)
        draws = [(inputs.boxes[r // encode.variants], r % encode.variants) for r in rows]
        chunks = [draws[i : i + encode.batch_size] for i in range(0, len(draws), encode.batch_size)]
        batches = list(inputs.encoders.encode_all(inputs.drawn(chunks)))
        tensors = {name: torch.cat([batch[name] for batch in batches]) for name in TENSORS}
        write_shard(self.job.out / shard_name(shard), tensors)
        return {"shard": shard, "rows": len(rows)}

    def close(self) -> None:
        """End the processes that draw."""
        if self._inputs and self._inputs.pool:
            self._inputs.pool.close()

    def _load(self) -> "_Inputs":
        from pbe.latents.frozen_encoders import FrozenEncoders  # takes seconds, which the driver need not spend

        job, encode = self.job, self.job.encode
        encoders = FrozenEncoders(
            job.backbone,
            choose_device("cuda" if encode.use_gpu else "cpu"),
            job.method.bottleneck,
            DTYPES[encode.precision],
            compiled=encode.use_gpu,
            batch_size=encode.batch_size,
        )
        exemplar_px = encoders.conditioner.exemplar_px
        drawer = SampleDrawer(job.images, job.method, exemplar_px, encode.exemplar_variants, job.seed)
        pool = DrawingPool(drawer, encode.draw_workers, processes=True) if self.processes else None
        return _Inputs(read_curated_boxes(job.curated, "train"), encoders, drawer, pool)


@dataclass(frozen=True)
class _Inputs:
    boxes: list[CuratedBox]
    encoders: "FrozenEncoders"
    drawer: SampleDrawer
    pool: DrawingPool | None

    def drawn(self, batches: Sequence[Sequence[Draw]]) -> Iterable[list[TrainingTriplet]]:
        """Draw batches in order, ahead if there are processes for it."""
        return self.pool.draw_batches(batches) if self.pool else (draw_all(self.drawer, batch) for batch in batches)


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

    Ray must be initialised. key.txt has a digest of the parameters, boxes and code. Shards of another digest are
    removed first, or moved aside when they took long to make; those of this digest that were moved aside are used.
    Raises UserError for a file that cannot be read or written, also when that happens in a worker.
    """
    from pbe.runtime.ray_cluster import user_errors_of_tasks

    encode = encode.replace(precision=resolve_precision(encode))
    num_boxes = len(read_curated_boxes(curated, "train"))
    num_rows = num_boxes * encode.variants
    num_shards = -(-num_rows // encode.shard_rows)
    out.mkdir(parents=True, exist_ok=True)
    keep_shards(out, cache_key(images, curated, backbone, method, encode, seed))
    missing = [i for i in range(num_shards) if not (out / shard_name(i)).exists()]
    job = EncodeJob(images.resolve(), curated.resolve(), backbone.resolve(), out.resolve(), method, encode, seed)
    done = num_shards - len(missing)
    with user_errors_of_tasks():
        for _ in write_shards(job, missing, processes=encode.use_gpu):
            done += 1
            progress(done, num_shards)
    index = {"rows": num_rows, "shards": num_shards, "boxes": num_boxes, "shard_rows": encode.shard_rows}
    write_text(out / INDEX, json.dumps(index, indent=2) + "\n")
    return index


def cache_key(
    images: Path, curated: Path, backbone: Path, method: settings.Method, encode: settings.Encode, seed: int
) -> str:
    """Return a digest, 32 hex digits, of everything that decides the shards' bytes: inputs, code, parameters, seed.

    `encode.precision` must be resolved: what `auto` means depends on the machine.
    """
    assert encode.precision != "auto"
    key = {
        "inputs": digest_files(_input_files(images, curated, backbone)),
        "code": digest_code(__name__),
        "method": method.model_dump(),
        "seed": seed,
        "encode": encode.model_dump(exclude=set(encode.no_result)),
    }
    return blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16).hexdigest()


def resolve_precision(encode: settings.Encode) -> str:
    """Return fp32 or bf16: what `encode.precision` means on the encoders' device, a GPU of the cluster or this CPU."""
    if encode.precision != "auto" or not encode.use_gpu:
        return _precision_here(encode.precision, "cpu")
    import ray

    from pbe.runtime.ray_cluster import user_errors_of_tasks

    with user_errors_of_tasks():
        return str(ray.get(ray.remote(num_gpus=1)(_precision_here).remote("auto", "cuda")))


def _precision_here(name: str, device: str) -> str:
    chosen = choose_precision(name, choose_device(device))
    return next(name for name, dtype in DTYPES.items() if dtype == chosen)


def _input_files(images: Path, curated: Path, backbone: Path) -> list[Path]:
    """Return the files that determine the cache; the manifest of `acquire`, if there is one, holds the images' MD5."""
    parts = [file for name in ("vae", "image_encoder") for file in sorted((backbone / name).glob("*"))]
    manifest = images.parent / "manifest.parquet"
    return [curated / BOXES_FILE, *([manifest] if manifest.is_file() else []), *parts]


def keep_shards(out: Path, key: str) -> None:
    """Discard the shards of another key, take back those of this key, and remove what killed writers left."""
    key_file = out / KEY
    old = key_file.read_text().strip() if key_file.exists() else "unknown"
    for file in out.iterdir():
        if file.name.startswith(".") or (file.name == INDEX and old != key):
            file.unlink()
    if old != key:
        shards = [file for file in sorted(out.iterdir()) if file != key_file]
        started = key_file if key_file.exists() else None
        what = f"encode: {out.name} had shards of other parameters, boxes or code"
        discard({file: _shards_aside(out, old) / file.name for file in shards}, what, started=started)
        write_text(key_file, key + "\n")
    for file in sorted(_shards_aside(out, key).glob("*")):
        shutil.move(file, out / file.name)


def _shards_aside(out: Path, key: str) -> Path:
    return aside_of(out) / key[:12]


def write_shards(job: EncodeJob, shards: list[int], *, processes: bool) -> Iterator[dict[str, Any]]:
    """Write shards with Ray Data on `encode.num_workers` encoders; yield what `ShardWriter` returns for each."""
    if not shards:
        return
    import ray.data

    dataset = ray.data.from_items([{"shard": i} for i in shards], override_num_blocks=len(shards))
    written = dataset.map(
        ShardWriter,  # type: ignore[arg-type]  # an actor class, where Ray's stub expects a function
        fn_constructor_args=(job, processes),
        concurrency=min(job.encode.num_workers, len(shards)),
        num_cpus=cpus_per_worker(job.encode),
        num_gpus=1 if job.encode.use_gpu else 0,
    )
    yield from written.iter_rows()


def cpus_per_worker(encode: settings.Encode) -> int:
    """Return how many CPUs an encoder takes: one, and on a GPU one for each process that draws for it."""
    return 1 + encode.draw_workers if encode.use_gpu else 1


def shard_rows(shard: int, num_boxes: int, encode: settings.Encode) -> range:
    """Return the rows of a shard; row r is variant r % K of box r // K."""
    first = shard * encode.shard_rows
    return range(first, min(first + encode.shard_rows, num_boxes * encode.variants))
