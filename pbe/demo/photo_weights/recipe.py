"""The hyperparameters of the recipe for photographs."""

from dataclasses import dataclass

IMAGE_PX = 128
EXEMPLAR_PX = 64
CONTEXT_DIM = 160


@dataclass(frozen=True)
class PhotoRecipe:
    """Every number that determines the weights. On a CPU each part takes one thread, so that sums keep their order."""

    seed: int = 30
    vae_channels: tuple[int, ...] = (16, 48, 96)
    vae_steps: int = 3000
    vae_batch: int = 16
    vae_crop_px: int = 64
    vae_lr: float = 1e-3
    vae_perceptual: float = 0.15
    vae_object_probability: float = 0.6
    towers_steps: int = 1000
    towers_batch: int = 64  # pairs of crops
    towers_lr: float = 1e-3
    towers_text: float = 0.3
    towers_thumbnail: float = 2.0
