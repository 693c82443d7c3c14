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
    vae_steps: int = 2700
    vae_colour_from: int = 2000  # the step from which colours are weighed
    vae_colour: float = 20.0
    vae_colour_rate: float = 0.6  # of `vae_lr`, decreasing linearly to zero
    vae_horizon: int = (
        3000  # of its cosine; from `vae_cooldown_from` on, the rate decreases to zero at `vae_colour_from`
    )
    vae_cooldown_from: int = 1500
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
    prior_windows: int = 2  # of each photograph
    prior_exemplars: int = 3  # crops of each window's object
    prior_steps: int = 1400
    prior_batch: int = 16
    prior_lr: float = 1e-3
    prior_drop: float = 0.1
    prior_text: float = 0.5  # share of contexts that are names
    prior_context_noise: float = 0.15  # of the contexts' standard deviation
