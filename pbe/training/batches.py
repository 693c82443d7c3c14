"""The samples of a step and their random draws, as functions of seed and step alone.

The order and all draws are made for the global batch and then divided among the ranks. A resumed run, and a run on
another number of workers with the same global batch, therefore see the same samples and the same noise.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pbe import settings
from pbe.dataset.curated_boxes import read_curated_boxes
from pbe.latents.frozen_encoders import FrozenEncoders
from pbe.latents.latent_cache import LatentCache
from pbe.latents.samples import SampleDrawer
from pbe.training.painting_loss import Batch

Encoded = dict[str, Tensor]


class BatchSource:
    """The batches of each step, for one rank at a time.

    `fetch(samples, epochs)` returns the encodings of samples, each in the epoch that it is seen in.
    """

    def __init__(
        self, num_samples: int, fetch: Callable[[list[int], list[int]], Encoded], train: settings.Train, seed: int
    ) -> None:
        self.num_samples = num_samples
        self.fetch = fetch
        self.train = train
        self.seed = seed
        self._order = lru_cache(maxsize=2)(
            lambda epoch: np.random.default_rng([seed, 11, epoch]).permutation(num_samples)
        )

    @property
    def global_batch(self) -> int:
        """The number of samples in a step, over all workers and accumulation steps."""
        return self.train.num_workers * self.train.batch_size * self.train.accumulate

    def batches(self, step: int, rank: int) -> list[Batch]:
        """Return the micro-batches of a step for one rank, `accumulate` of them."""
        share = self.train.batch_size * self.train.accumulate
        positions = range(rank * share, (rank + 1) * share)
        draws = self._draw(step)
        parts = [list(positions[i : i + self.train.batch_size]) for i in range(0, share, self.train.batch_size)]
        return [self._batch(step, part, draws) for part in parts]

    def indices(self, step: int) -> tuple[list[int], list[int]]:
        """Return the samples of a step's global batch, and the epoch that each of them is seen in."""
        positions = range(step * self.global_batch, (step + 1) * self.global_batch)
        epochs = [p // self.num_samples for p in positions]
        order = [int(self._order(e)[p % self.num_samples]) for p, e in zip(positions, epochs, strict=True)]
        return order, epochs

    def _draw(self, step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed((self.seed + 1) * 1_000_003 + step)
        size = self.global_batch
        return {
            "timesteps": torch.randint(0, 1000, (size,), generator=generator),
            "dropped": torch.rand(size, generator=generator) < self.train.drop_probability,
            "exemplar": torch.rand(size, generator=generator),
            "noise_seed": torch.randint(0, 2**62, (size,), generator=generator),
        }

    def _batch(self, step: int, positions: list[int], draws: dict[str, Tensor]) -> Batch:
        indices, epochs = self.indices(step)
        encoded = self.fetch([indices[p] for p in positions], [epochs[p] for p in positions])
        tokens = encoded["class_tokens"]  # (B, E, T, W)
        chosen = (draws["exemplar"][positions] * tokens.shape[1]).long()
        shape = encoded["source_latents"].shape[1:]
        seeds = draws["noise_seed"][positions].tolist()
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
        return Batch(
            source_latents=encoded["source_latents"],
            masked_latents=encoded["masked_latents"],
            mask=encoded["mask"],
            class_tokens=tokens[torch.arange(len(positions)), chosen],
            noise=noise,
            timesteps=draws["timesteps"][positions],
            dropped=draws["dropped"][positions],
        )


class PrefetchedBatches:
    """A source that prepares the next step's batches in a thread, in pinned memory, while a GPU runs this step."""

    def __init__(self, source: BatchSource) -> None:
        self.source = source
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[tuple[int, int], Future[list[Batch]]] | None = None

    def batches(self, step: int, rank: int) -> list[Batch]:
        """Return what `BatchSource.batches` returns."""
        ready = self._next[1].result() if self._next and self._next[0] == (step, rank) else self._make(step, rank)
        self._next = (step + 1, rank), self._pool.submit(self._make, step + 1, rank)
        return ready

    def _make(self, step: int, rank: int) -> list[Batch]:
        batches = self.source.batches(step, rank)
        return [batch.pinned() for batch in batches] if torch.cuda.is_available() else batches


def cached_source(latents: Path, train: settings.Train, seed: int) -> BatchSource:
    """Return batches from the latent cache: a step then runs neither the VAE nor CLIP."""
    cache = LatentCache(latents)
    return BatchSource(len(cache), lambda indices, epochs: cache.rows(indices), train, seed)


def fresh_source(
    images: Path, curated: Path, backbone: Path, method: settings.Method, train: settings.Train, seed: int, device: str
) -> BatchSource:
    """Return batches from images: each box is drawn and encoded again in every epoch."""
    boxes = read_curated_boxes(curated, "train")
    encoders = FrozenEncoders(backbone, device, method.bottleneck)
    drawer = SampleDrawer(images, method, encoders.conditioner.exemplar_px, 1, seed)
    uses_bf16 = device.startswith("cuda") and train.precision == "bf16"
    pool = ThreadPoolExecutor(train.loader_threads, thread_name_prefix="draw")

    def fetch(indices: list[int], epochs: list[int]) -> Encoded:
        samples = list(pool.map(drawer.draw, [boxes[i] for i in indices], epochs))
        precision: Any = torch.autocast("cuda", torch.bfloat16) if uses_bf16 else nullcontext()
        with precision:
            return {name: tensor.float() for name, tensor in encoders.encode(samples).items()}

    return BatchSource(len(boxes), fetch, train, seed)
