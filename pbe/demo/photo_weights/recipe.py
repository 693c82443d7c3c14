"""The hyperparameters of the recipe for photographs."""

from dataclasses import dataclass

IMAGE_PX = 128
EXEMPLAR_PX = 64
CONTEXT_DIM = 160


@dataclass(frozen=True)
class ColourPhase:
    """Steps in which the autoencoder learns colours; the learning rate decreases linearly to zero."""

    steps: int
    rate: float  # at the start, as a share of `vae_lr`
    weight: float  # of the colours' error
    reordered_frac: float  # share of crops whose channels get another order


@dataclass(frozen=True)
class PhotoRecipe:
    """Every number that determines the weights. On a CPU each part takes one thread, so that sums keep their order."""

    seed: int = 30
    vae_channels: tuple[int, ...] = (16, 48, 96)
    vae_steps: int = 2000  # of the first phase
    vae_horizon: int = 3000  # of its cosine
    vae_cooldown_from: int = 1500  # the step from which the rate decreases to zero, at the end of the first phase
    vae_colour_phases: tuple[ColourPhase, ...] = (ColourPhase(700, 0.6, 20.0, 0.5), ColourPhase(600, 1.0, 60.0, 0.75))
    vae_batch: int = 16
    vae_crop_px: int = 64
    vae_lr: float = 1e-3
    vae_perceptual: float = 0.15
    vae_object_probability: float = 0.6  # of a close-up of the object; else the window has the short side
    towers_steps: int = 1000
    towers_batch: int = 64  # pairs of crops
    towers_lr: float = 1e-3
    towers_text: float = 0.3
    towers_thumbnail: float = 2.0
    prior_windows: int = 6  # of each photograph
    prior_exemplars: int = 3  # crops of each window's object
    prior_steps: int = 7500
    prior_batch: int = 16
    prior_lr: float = 1e-3
    prior_drop: float = 0.1
    prior_text: float = 0.5  # share of contexts that are names
    prior_context_noise: float = 0.15  # of the contexts' standard deviation
