"""What all samplers share: the timesteps, and the denoiser along the probability flow (Song et al., 2021).

    y_t = sqrt(a_t) y_0 + sqrt(1 - a_t) eps,   lambda_t = log(sqrt(a_t) / sqrt(1 - a_t))

A sampler follows the flow from noise to the first level of the schedule, a_0, in steps. It differs from the others in
how it combines the predictions of several steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pbe.method.guidance import Denoise

NO_SIGNAL = 1e-6  # alpha_bar below it: noise alone; Stable Diffusion's schedule ends with 0.0047

Constrain = Callable[[Tensor, Tensor], Tensor]  # (latents, alpha_bar of their level) => latents
OnStep = Callable[[int, int], None]  # (steps done, number of steps)


def sampling_timesteps(num_steps: int, num_timesteps: int = 1000, *, from_last: bool = False) -> list[int]:
    """Return evenly spaced timesteps, the noisiest first, offset by one as in Stable Diffusion.

    With `from_last` the first is the last of the schedule ("trailing" spacing, Lin et al., 2024, table 2). Raises
    ValueError unless 1 <= num_steps <= num_timesteps.
    """
    if not 1 <= num_steps <= num_timesteps:
        raise ValueError(f"number of steps {num_steps} is not within 1 to {num_timesteps}")
    if from_last:
        return [round(num_timesteps * i / num_steps) - 1 for i in range(num_steps, 0, -1)]
    stride = num_timesteps // num_steps
    return [min(i * stride + 1, num_timesteps - 1) for i in reversed(range(num_steps))]


@dataclass(frozen=True)
class Flow:
    """A denoiser on the timesteps of a sampler.

    Step i goes from level i to level i + 1; a level is an alpha_bar, one for each of `timesteps`. `constrain` replaces
    the known part of the latents before every call of the denoiser.
    """

    denoise: Denoise
    timesteps: list[int]
    levels: list[Tensor]
    constrain: Constrain | None = None
    on_step: OnStep | None = None

    @classmethod
    def along(
        cls,
        denoise: Denoise,
        alphas_cumprod: Tensor,
        timesteps: list[int],
        constrain: Constrain | None = None,
        on_step: OnStep | None = None,
    ) -> "Flow":
        """Return the flow that calls the denoiser at `timesteps` and ends at the first level of the schedule."""
        all_timesteps = [*timesteps, 0]
        return cls(denoise, all_timesteps, [alphas_cumprod[t] for t in all_timesteps], constrain, on_step)

    @property
    def num_steps(self) -> int:
        return len(self.timesteps) - 1

    @property
    def starts_without_signal(self) -> bool:
        return bool(self.levels[0] < NO_SIGNAL)

    def predict(self, latents: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """Return the latents of level i with their known part replaced, and the noise predicted in them."""
        if self.constrain:
            latents = self.constrain(latents, self.levels[i])
        timesteps = torch.full((len(latents),), self.timesteps[i], device=latents.device)
        return latents, self.denoise(latents, timesteps)

    def finish_step(self, i: int) -> None:
        """Report that step i is done."""
        if self.on_step:
            self.on_step(i + 1, self.num_steps)

    def log_snr_step(self, i: int) -> Tensor:
        """Return h_i = lambda_(i + 1) - lambda_i, half the change of the logarithm of the signal-to-noise ratio."""
        before, after = (torch.logit(self.levels[j].double()) / 2 for j in (i, i + 1))
        return after - before


def estimate_clean(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return the estimate of y_0 that a noise prediction means: (y - sqrt(1 - a) eps) / sqrt(a)."""
    return (latents - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()


def ddim_step(latents: Tensor, noise: Tensor, alpha_bar: Tensor, alpha_bar_next: Tensor) -> Tensor:
    """Take one DDIM step: estimate y_0, and add `noise` at the next level again."""
    clean = estimate_clean(latents, noise, alpha_bar)
    return alpha_bar_next.sqrt() * clean + (1 - alpha_bar_next).sqrt() * noise


def clean_step(latents: Tensor, clean: Tensor, alpha_bar: Tensor, alpha_bar_next: Tensor) -> Tensor:
    """Take one DDIM step with an estimate of y_0 instead of the noise.

        y' = (sigma' / sigma) y + (sqrt(a') - sqrt(a) sigma' / sigma) y_0,   sigma = sqrt(1 - a)

    This is the first-order step of DPM-Solver++, whose sqrt(a') (1 - exp(-h)) is the factor of y_0.
    """
    ratio = ((1 - alpha_bar_next) / (1 - alpha_bar)).sqrt()
    return ratio * latents + (alpha_bar_next.sqrt() - alpha_bar.sqrt() * ratio) * clean
