"""The update of the weights after the backward passes of a step, as the trainer sees it."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor


class WeightUpdate(Protocol):
    """Gradients, AdamW, the moving average of the weights and, with bf16 weights, their fp32 masters.

    A step calls `zero_grad`, then for each micro-batch the backward pass and `add_gradients`, then `step`.
    """

    def zero_grad(self) -> None:
        """Clear the gradients before the first micro-batch of a step."""

    def add_gradients(self) -> None:
        """Take the gradients of one micro-batch; called after each backward pass. bf16 gradients are summed in fp32."""

    def step(self, step: int, rate: float) -> Tensor:
        """Clip the gradients, update weights and average; return the gradient norm before clipping, a 0-d tensor.

        `step` is counted from 0, `rate` is its learning rate. A GPU may still be computing when it returns.
        """

    def averaged_weights(self) -> dict[str, Tensor]:
        """Return the averaged weights by name, in fp32; without averaging, the weights themselves."""

    def swapped_in(self) -> AbstractContextManager[None]:
        """Have the averaged weights in the module, in fp32, for the block."""

    def copy_average_to_model(self) -> None:
        """Leave the averaged weights in the module, in fp32, to be delivered. Training cannot continue after it."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, for a checkpoint."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
