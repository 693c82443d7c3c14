"""What `gpu.py` measures with: random models of a size, JPEGs, a latent cache and a trainer on them. Needs no data."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from loader import write_cache, write_images
from sizes import random_painter
from transformers import CLIPVisionModelWithProjection

from pbe import layout
from pbe.dataset.curated_boxes import CuratedBox
from pbe.latents.samples import SampleDrawer
from pbe.method.painter import Painter
from pbe.settings import Method, Train, load_settings
from pbe.training import batches
from pbe.training.batches import BatchSource, cached_source, fresh_source
from pbe.training.loop import Trainer

SETTINGS = load_settings(Path(__file__).parents[1] / layout.PARAMS)


@dataclass(frozen=True)
class Plan:
    """The sizes to run: Stable Diffusion's on a GPU, a tiny one on a CPU."""

    size: str
    image_px: int
    device: str
    batch_sizes: list[int]
    edit_batches: list[int]
    edit_steps: int
    warm: int
    steps: int
    check_steps: int
    check_batch: int
    num_images: int
    encoded: int

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")


ON_GPU = Plan("sd", 512, "cuda", [64, 32, 16, 8], [1, 8], 20, 4, 8, 50, 64, 64, 768)
ON_CPU = Plan("tiny", 64, "cpu", [2], [1], 2, 0, 1, 3, 2, 4, 8)


class Project:
    """The files that the stages before training leave, and copies of one random painter."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        self._compiled_for = 0, 0
        self._painter = random_painter(plan.size, plan.image_px)
        self.boxes = write_images(folder / "images", None, plan.num_images)
        conditioner = self._painter.conditioner
        self._painter.vae.save_pretrained(folder / "backbone/vae")
        CLIPVisionModelWithProjection(conditioner.config).save_pretrained(folder / "backbone/image_encoder")
        side, width = plan.image_px // self._painter.latent_factor, conditioner.config.hidden_size
        write_cache(folder / "latents", max(64, *plan.batch_sizes), 64, latent_px=side, token_width=width)

    @property
    def method(self) -> Method:
        return SETTINGS.method.replace(image_px=self.plan.image_px, close_up_probability=0.0)

    def painter(self, lora_rank: int = 0) -> Painter:
        """Return a new painter on the CPU, with the same weights each time, and with adapters to train if asked for."""
        painter = copy.deepcopy(self._painter)
        if lora_rank:
            from pbe.training.lora import add_adapters

            add_adapters(painter, lora_rank, seed=0)
        return painter

    def drawer(self, num_exemplars: int) -> SampleDrawer:
        return SampleDrawer(self.folder / "images", self.method, self._painter.exemplar_px, num_exemplars, 0)

    def train(self, batch_size: int, **changes: object) -> Train:
        """Return the settings of a run on this device: average and clipping on, precision and compiling as auto."""
        plan = self.plan
        values: dict[str, object] = {
            "use_gpu": plan.on_gpu, "num_workers": 1, "batch_size": batch_size, "accumulate": 1, "steps": 10_000,
            "lr": 1e-5, "warmup_steps": 1, "decay": "constant", "precision": "bf16" if plan.on_gpu else "fp32",
            "compile": plan.on_gpu, "loader_threads": min(16, os.cpu_count() or 1),
        }  # fmt: skip
        return SETTINGS.train.replace(**(values | changes))

    def trainer(self, train: Train, cached: bool = True) -> Trainer:
        """Return the trainer of a run, from the latent cache or from the images."""
        shapes = train.batch_size, train.lora_rank
        if train.compile and shapes != self._compiled_for:
            torch._dynamo.reset()  # a block is compiled at most 64 times in a process, once for each shape
            self._compiled_for = shapes
        with self._boxes():
            source = self._cached(train) if cached else self._fresh(train)
        return Trainer(self.painter(train.lora_rank), source, train, 0, self.plan.device)

    def _cached(self, train: Train) -> BatchSource:
        return cached_source(self.folder / "latents", train, 0)

    def _fresh(self, train: Train) -> BatchSource:
        folder = self.folder
        return fresh_source(folder / "images", folder, folder / "backbone", self.method, train, 0, self.plan.device)

    @contextmanager
    def _boxes(self) -> Iterator[None]:
        """Give the boxes to the loader directly: reading them from parquet would need polars."""
        boxes: list[CuratedBox] = self.boxes
        with mock.patch.object(batches, "read_curated_boxes", return_value=boxes):
            yield
