"""The files of the latent cache, and reading them: fp16 safetensors shards of a fixed number of rows, and an index.

A row is one sample: the VAE latents of source and masked source, the mask at the latents' size, and the CLIP class
tokens (E, T, W) of its E augmented exemplars. T is 1 unless `method.bottleneck` is off; then the file has all of the
tower's tokens, the class token first. `pbe.latents.encoding` writes the cache.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pbe.errors import UserError, one_line
from pbe.runtime.files import atomic_file

INDEX = "index.json"
KEY = "key.txt"  # a digest of everything that the shards were made from
TENSORS = ("source_latents", "masked_latents", "mask", "class_tokens")


def shard_name(shard: int) -> str:
    """Return the file name of a shard, which depends on its number only."""
    return f"shard-{shard:05d}.safetensors"


def write_shard(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a shard atomically."""
    with atomic_file(path) as part:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)


class LatentCache:
    """The shards of a cache as one sequence of rows. Shards are memory-mapped: only the rows that are used are read.

    Raises UserError when the index or a shard is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / INDEX
        if not path.is_file():
            raise UserError(f"{path}: no such file; run the encode stage")
        index = json.loads(path.read_text())
        self.num_rows, self.shard_rows = int(index["rows"]), int(index["shard_rows"])
        self._shards = [_open_shard(folder / shard_name(number)) for number in range(int(index["shards"]))]

    def __len__(self) -> int:
        return self.num_rows

    def rows(self, indices: list[int]) -> dict[str, Tensor]:
        """Return the tensors of some rows, stacked, in float32."""
        places = [divmod(i, self.shard_rows) for i in indices]
        return {name: torch.stack([self._shards[s][name][r] for s, r in places]).float() for name in TENSORS}


def _open_shard(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in TENSORS}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the encode stage") from None
    except SafetensorError as error:
        raise UserError(f"{path}: damaged ({one_line(error)}); delete it and run the encode stage") from None
