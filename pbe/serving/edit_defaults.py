"""How an edit is sampled unless it asks for something else. This module imports nothing large: flags and forms need it.

At a third of the work of 50 PLMS steps, the scores are as good: docs/sampling.md.
"""

from typing import Literal

Sampler = Literal["plms", "ddim", "dpm++2m", "unipc"]  # the names in pbe.method.sampling, which imports torch

DEFAULT_SAMPLER: Sampler = "unipc"
DEFAULT_STEPS = 16
DEFAULT_INTERVAL = (0.28, 5.42)
