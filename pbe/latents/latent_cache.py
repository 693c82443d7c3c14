"""The cache of latents: what the frozen encoders would compute again at every step, computed once with Ray Data.

Half of a training image's arithmetic is frozen encoders. `encode` draws K variants of each box and writes, each, the
VAE latents of source and masked source, the mask at the latents' size, and the CLIP class tokens of a few augmented
exemplars (rows, E, T, W), as fp16 safetensors shards of a fixed number of rows. T is 1 unless `method.bottleneck` is
off; then all of the tower's tokens are there, the class token first. Each shard is written whole or not at all, under a
name that only depends on its rows: a killed run goes on with the missing shards, and ends with the same bytes.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import ray
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pbe import settings
from pbe.errors import UserError
from pbe.latents.samples import BoxRow, SampleDrawer, read_boxes
from pbe.method.training_triplet import TrainingTriplet
from pbe.runtime.code_digest import digest_code
from pbe.runtime.files import atomic_file, digest_files

INDEX = "index.json"
TENSORS = ("source_latents", "masked_latents", "mask", "class_tokens")


@dataclass(frozen=True)
class EncodeJob:
    """What one worker needs to write a shard."""

    images: Path
    curated: Path
    backbone: Path
    out: Path
    method: settings.Method
    encode: settings.Encode
    seed: int


class ShardWriter:
    """A Ray Data actor: takes a shard's number, writes the shard."""

    def __init__(self, job: EncodeJob) -> None:
        from pbe.latents.frozen_encoders import (
            FrozenEncoders,  # the driver, which starts beside it, needs no model's code
        )

        torch.set_num_threads(1)
        self.job = job
        self.boxes = read_boxes(job.curated, "train")
        device = "cuda" if job.encode.use_gpu else "cpu"
        self.encoders = FrozenEncoders(job.backbone, device, job.method.bottleneck)
        exemplar_px = self.encoders.conditioner.exemplar_px
        self.drawer = SampleDrawer(job.images, job.method, exemplar_px, job.encode.exemplar_variants, job.seed)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = int(row["shard"])
        rows = shard_rows(shard, len(self.boxes), self.job.encode)
        batches = []
        for start in range(0, len(rows), self.job.encode.batch_size):
            chunk = rows[start : start + self.job.encode.batch_size]
            batches.append(self.encoders.encode([self._draw(r) for r in chunk]))
        tensors = {name: torch.cat([b[name] for b in batches]) for name in TENSORS}
        write_shard(self.job.out / shard_name(shard), tensors)
        return {"shard": shard, "rows": len(rows)}

    def _draw(self, row: int) -> TrainingTriplet:
        box: BoxRow = self.boxes[row // self.job.encode.variants]
        return self.drawer.draw(box, row % self.job.encode.variants)


def encode(
    images: Path,
    curated: Path,
    backbone: Path,
    out: Path,
    method: settings.Method,
    encode: settings.Encode,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Write the missing shards of the cache and its index; returns the counts of the index.

    Ray must be initialised. Shards of other parameters or other boxes are removed first: `index.json` holds their key.
    """
    boxes = read_boxes(curated, "train")
    num_rows = len(boxes) * encode.variants
    num_shards = -(-num_rows // encode.shard_rows)
    out.mkdir(parents=True, exist_ok=True)
    sizes = encode.model_dump(include={"variants", "exemplar_variants", "shard_rows"})
    inputs = digest_files(_inputs(images, curated, backbone))
    key = {
        "inputs": inputs,
        "code": digest_code(__name__),
        "method": method.model_dump(),
        "seed": seed,
        "encode": sizes,
    }
    _forget_other_shards(out, key)
    missing = [i for i in range(num_shards) if not (out / shard_name(i)).exists()]
    job = EncodeJob(images.resolve(), curated.resolve(), backbone.resolve(), out.resolve(), method, encode, seed)
    done = num_shards - len(missing)
    for _ in _write_shards(job, missing):
        done += 1
        if progress:
            progress(done, num_shards)
    index = {"rows": num_rows, "shards": num_shards, "boxes": len(boxes), "shard_rows": encode.shard_rows}
    _write_text(out / INDEX, json.dumps(index, indent=2) + "\n")
    return index


def _write_shards(job: EncodeJob, shards: list[int]) -> Iterator[dict[str, Any]]:
    if not shards:
        return
    dataset = ray.data.from_items([{"shard": i} for i in shards], override_num_blocks=len(shards))
    written = dataset.map(
        ShardWriter,  # type: ignore[arg-type]  # an actor class; Ray's stub knows functions alone
        fn_constructor_args=(job,),
        concurrency=min(job.encode.num_workers, len(shards)),
        num_cpus=1,
        num_gpus=1 if job.encode.use_gpu else 0,
    )
    yield from written.iter_rows()


def shard_rows(shard: int, num_boxes: int, encode: settings.Encode) -> range:
    """The rows of a shard; row r is variant r % K of box r // K."""
    first = shard * encode.shard_rows
    return range(first, min(first + encode.shard_rows, num_boxes * encode.variants))


def shard_name(shard: int) -> str:
    return f"shard-{shard:05d}.safetensors"


def write_shard(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to a temporary name, then rename: a shard that is there is whole."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)
    temporary.replace(path)


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path) as part:
        part.write_text(text)


def _inputs(images: Path, curated: Path, backbone: Path) -> list[Path]:
    """The files that decide what is encoded; the manifest has every image's MD5, where `acquire` left the images."""
    parts = [file for name in ("vae", "image_encoder") for file in sorted((backbone / name).glob("*"))]
    manifest = images.parent / "manifest.parquet"
    return [curated / "boxes.parquet", *([manifest] if manifest.is_file() else []), *parts]


def _forget_other_shards(out: Path, key: dict[str, Any]) -> None:
    """Remove shards that were made of something else, and whatever a killed writer left."""
    digest = blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16).hexdigest()
    marker = out / "key.txt"
    same = marker.exists() and marker.read_text().strip() == digest
    for file in out.iterdir():
        if file.suffix == ".tmp" or (not same and file != marker):
            file.unlink()
    if not same:
        _write_text(marker, digest + "\n")


class LatentShards:
    """The cache as one table of rows; shards are memory-mapped, nothing is read before it is asked for."""

    def __init__(self, folder: Path) -> None:
        index_path = folder / INDEX
        if not index_path.is_file():
            raise UserError(f"{folder}: no latents here ({INDEX} is missing); run the encode stage")
        index = json.loads(index_path.read_text())
        self.num_rows, self.shard_rows = int(index["rows"]), int(index["shard_rows"])
        self._shards: list[dict[str, Tensor]] = []
        for i in range(int(index["shards"])):
            with safe_open(folder / shard_name(i), framework="pt") as file:
                self._shards.append({name: file.get_tensor(name) for name in TENSORS})

    def __len__(self) -> int:
        return self.num_rows

    def rows(self, indices: list[int]) -> dict[str, Tensor]:
        """The tensors of the rows, stacked, in float32."""
        places = [divmod(i, self.shard_rows) for i in indices]
        return {name: torch.stack([self._shards[s][name][r] for s, r in places]).float() for name in TENSORS}
