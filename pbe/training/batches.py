"""The samples of a step and their random draws, as functions of seed and step alone.

The order and all draws are made for the global batch and then divided among the ranks. A resumed run, and a run on
another number of workers with the same global batch, therefore see the same samples and the same noise.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pbe import settings
from pbe.dataset.curated_boxes import CuratedBox, read_curated_boxes
from pbe.latents.drawing import DrawingPool
from pbe.latents.frozen_encoders import Encoded, FrozenEncoders
from pbe.latents.latent_cache import LatentCache
from pbe.latents.samples import SampleDrawer
from pbe.method.diffusion import draw_training_noise
from pbe.method.training_triplet import TrainingTriplet
from pbe.runtime.devices import choose_device, choose_precision
from pbe.training.painting_loss import Batch

_Prepared = tuple[list[Batch], torch.cuda.Event | None]  # batches, and when the device has them
_STEPS_AHEAD = 3  # whose samples are drawn from images while a step runs


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
        positions = self.positions(rank)
        size = self.train.batch_size
        draws = self._draw(step)
        parts = [list(positions[i : i + size]) for i in range(0, len(positions), size)]
        return [self._batch(step, part, draws) for part in parts]

    def positions(self, rank: int) -> range:
        """Return which samples of the global batch are a rank's."""
        share = self.train.batch_size * self.train.accumulate
        return range(rank * share, (rank + 1) * share)

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
        tokens = encoded["class_tokens"]  # (B, E, T, W), on a GPU if that encoded them
        chosen = (draws["exemplar"][positions] * tokens.shape[1]).long()
        shape = encoded["source_latents"].shape[1:]
        seeds = draws["noise_seed"][positions].tolist()
        noise = torch.stack([draw_training_noise(s, shape, self.train.offset_noise) for s in seeds])
        return Batch(
            source_latents=encoded["source_latents"],
            masked_latents=encoded["masked_latents"],
            mask=encoded["mask"],
            class_tokens=torch.stack([row[i] for row, i in zip(tokens, chosen.tolist(), strict=True)]),
            noise=noise,
            timesteps=draws["timesteps"][positions],
            dropped=draws["dropped"][positions],
        )


class PrefetchedBatches:
    """A source that prepares the next step's batches in a thread while the device runs this step.

    On a GPU the thread uses a separate stream, on which batches are copied (and from images encoded) beside the step.
    """

    def __init__(self, source: BatchSource, device: str | torch.device = "cuda") -> None:
        self.source = source
        self.device = torch.device(device if torch.cuda.is_available() else "cpu")
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[tuple[int, int], Future[_Prepared]] | None = None

    def batches(self, step: int, rank: int) -> list[Batch]:
        """Return what `BatchSource.batches` returns, on the device and ordered before what follows on its stream."""
        is_next = self._next is not None and self._next[0] == (step, rank)
        future = self._next[1] if self._next and is_next else self._pool.submit(self._make, step, rank)
        batches, made = future.result()
        self._next = (step + 1, rank), self._pool.submit(self._make, step + 1, rank)
        if made:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(made)
            for tensor in (t for batch in batches for t in batch.__dict__.values()):
                tensor.record_stream(current)  # its memory may be reused only after the work of this stream
        return batches

    def _make(self, step: int, rank: int) -> _Prepared:
        if self._stream is None:
            return self.source.batches(step, rank), None
        with torch.cuda.stream(self._stream):
            batches = [self._copied(batch) for batch in self.source.batches(step, rank)]
            return batches, self._stream.record_event()

    def _copied(self, batch: Batch) -> Batch:
        tensors = (t if t.is_cuda else t.pin_memory() for t in batch.__dict__.values())
        return Batch(*(t.to(self.device, non_blocking=True) for t in tensors))


def cached_source(latents: Path, train: settings.Train, seed: int) -> BatchSource:
    """Return batches from the latent cache: a step then runs neither the VAE nor CLIP."""
    cache = LatentCache(latents)
    return BatchSource(len(cache), lambda indices, epochs: cache.rows(indices), train, seed)


class FreshSource(BatchSource):
    """Batches from images: each box is drawn and encoded again in every epoch.

    Samples of the next steps are drawn ahead: by the end of this step they are ready to be encoded.
    """

    def __init__(
        self, boxes: list[CuratedBox], encoders: FrozenEncoders, pool: DrawingPool, train: settings.Train, seed: int
    ) -> None:
        super().__init__(len(boxes), self._encode, train, seed)
        self.boxes, self.encoders, self.pool = boxes, encoders, pool
        self._drawn: dict[tuple[int, int], Future[list[TrainingTriplet]]] = {}  # by sample and epoch

    def batches(self, step: int, rank: int) -> list[Batch]:
        """Return the micro-batches of a step for one rank, and let the samples of the steps after it be drawn."""
        last = max(step, min(step + _STEPS_AHEAD, self.train.steps - 1))
        wanted = [key for s in range(step, last + 1) for key in self._keys(s, rank)]
        self._drawn = {key: self._drawn.get(key) or self._submit(key) for key in wanted}
        return super().batches(step, rank)

    def _keys(self, step: int, rank: int) -> list[tuple[int, int]]:
        indices, epochs = self.indices(step)
        return [(indices[p], epochs[p]) for p in self.positions(rank)]

    def _submit(self, key: tuple[int, int]) -> Future[list[TrainingTriplet]]:
        index, epoch = key
        return self.pool.submit([(self.boxes[index], epoch)])

    def _encode(self, indices: Sequence[int], epochs: Sequence[int]) -> Encoded:
        samples = [self._drawn[key].result()[0] for key in zip(indices, epochs, strict=True)]
        return {name: tensor.float() for name, tensor in self.encoders.encode_on_device(samples).items()}


def fresh_source(
    images: Path, curated: Path, backbone: Path, method: settings.Method, train: settings.Train, seed: int, device: str
) -> FreshSource:
    """Return batches from images, encoded on the device in `train.precision`.

    Processes draw for a GPU: threads would hold up the one that feeds it.
    """
    place = choose_device(device)
    on_gpu = place.type == "cuda"
    encoders = FrozenEncoders(
        backbone,
        place,
        method.bottleneck,
        choose_precision(train.precision, place),
        compiled=on_gpu and train.compile is not False,
    )
    drawer = SampleDrawer(images, method, encoders.conditioner.exemplar_px, 1, seed)
    pool = DrawingPool(drawer, train.loader_threads, processes=on_gpu)
    return FreshSource(read_curated_boxes(curated, "train"), encoders, pool, train, seed)
