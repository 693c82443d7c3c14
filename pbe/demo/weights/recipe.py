"""The hyperparameters of the recipe, and the learning rates of its parts."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pbe.runtime.files import digest_folder
from pbe.settings import ExemplarAugmentation

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CONTEXT_DIM = 128
IMAGE_PX = 64
EXEMPLAR_PX = 32
NUM_UNSEEN = 800  # scenes that quality is measured on

AUGMENTATION = ExemplarAugmentation(
    augment=True, pad_frac=0.06, flip_probability=0.5, rotate_probability=0.5, max_rotation_deg=20.0,
    blur_probability=0.3, max_blur_frac=0.02, elastic_probability=0.3, elastic_frac=0.03, elastic_smooth_frac=0.12,
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """Every number that determines the weights, including thread counts, which determine the order of summation."""

    seed: int = 20
    num_scenes: int = 12000
    vae_steps: int = 2550
    vae_horizon: int = 3800  # of its cosine; from `vae_cooldown_from` on, the rate decreases linearly to zero
    vae_cooldown_from: int = 2050
    vae_batch: int = 16
    vae_lr: float = 1.5e-3
    clip_steps: int = 1500
    clip_batch: int = 128
    clip_lr: float = 1e-3
    tower_steps: int = 2000
    tower_batch: int = 96
    tower_lr: float = 6e-4
    classifier_steps: int = 1200
    classifier_batch: int = 96
    classifier_lr: float = 2e-3
    prior_steps: int = 6000
    prior_batch: int = 32
    prior_lr: float = 1e-3
    prior_drop: float = 0.1
    prior_threads: int = 2  # the other parts take one
    prior_context_noise: float = 0.15  # of the contexts' standard deviation
    detail_steps: int = 5000
    detail_batch: int = 32
    detail_lr: float = 8e-4
    detail_drop: float = 0.1
    detail_context_noise: float = 0.15
    patterns_steps: int = 8500  # with the batch, rate, drop and noise of `detail`
    patterns_coarse_share: float = 0.3  # of the plain and striped objects, which the prior draws well
    middle_steps: int = 9000  # as `patterns`, but for the timesteps
    middle_coarse_share: float = 0.6


def cosine(step: int, horizon: int) -> float:
    """Return a factor of the learning rate, 0..1: a short warm-up, then half a cosine that is zero at `horizon`."""
    return float(min(1.0, (step + 1) / 100) * (0.5 + 0.5 * np.cos(np.pi * min(1.0, step / horizon))))


def cosine_with_cooldown(step: int, steps: int, horizon: int, start: int) -> float:
    """Return a factor of the learning rate, 0..1: a cosine, and a linear decrease to zero from step `start`."""
    if step < start:
        return cosine(step, horizon)
    return cosine(start, horizon) * (steps - step) / (steps - start)


def recipe_key(recipe: "DataclassInstance", part: str, *inputs: Path) -> str:
    """Return a text of what decides the weights of a part: its numbers, and the digests of the folders it starts from.

    A training whose key has changed does not resume from its saved state.
    """
    numbers = {k: v for k, v in asdict(recipe).items() if k in ("seed", "num_scenes") or k.startswith(f"{part}_")}
    return json.dumps([numbers, *(digest_folder(folder) for folder in inputs)])
