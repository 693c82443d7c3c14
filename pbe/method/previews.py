"""Previews while the sampler runs: the clean latents that its last prediction points to, decoded every few steps.

y_0 = (y_t - sqrt(1 - a_t) eps) / sqrt(a_t)
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

NUM_PREVIEWS = 5  # of a painting of many steps: decoding one takes about as long as a step or two
_LEAST_SIGNAL = 1e-4  # alpha_bar below it: the estimate would be divided by almost 0


class Previews:
    """Remembers the last prediction, and calls `show` with clean latents (B, 4, h, w) at some of the steps."""

    def __init__(self, show: Callable[[Tensor], None], alphas_cumprod: Tensor, num_steps: int) -> None:
        self._show = show
        self._alphas_cumprod = alphas_cumprod
        self._every = math.ceil(num_steps / (NUM_PREVIEWS + 1))
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def note(self, noisy: Tensor, noise: Tensor, timesteps: Tensor) -> None:
        """Remember the noise that the denoiser predicts in noisy latents."""
        self._last = noisy, noise, self._alphas_cumprod[timesteps[0]]

    def after_step(self, done: int, num_steps: int) -> None:
        """Show the estimate if it is this step's turn; the last step's is the result."""
        if self._last is None or done % self._every or done == num_steps:
            return
        noisy, noise, alpha_bar = self._last
        if alpha_bar > _LEAST_SIGNAL:
            self._show((noisy - torch.sqrt(1 - alpha_bar) * noise) / alpha_bar.sqrt())
