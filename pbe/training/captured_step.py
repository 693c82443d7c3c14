"""A whole training step as one CUDA graph: thousands of kernels are launched at once."""

from collections.abc import Callable

import torch
from torch import Tensor

from pbe.training.painting_loss import Batch

_WARM_UP_STEPS = 3  # libraries choose kernels, compilers compile, and autograd makes its buffers in the first steps

Compute = Callable[[list[Batch]], tuple[Tensor, Tensor]]  # batches => losses and gradient norm


class CapturedStep:
    """Computes a step: the first ones as usual, which warms up; then one is captured, and all later ones replay it.

    Every tensor that `compute` reads or writes between steps must stay where it is, every batch must have the same
    shapes, and `compute` must not wait for the GPU. The warm-up steps are real steps: none is computed twice.
    """

    def __init__(self, compute: Compute, device: torch.device) -> None:
        self.compute, self.device = compute, device
        self._stream = torch.cuda.Stream(device)
        self._inputs: list[Batch] = []
        self._outputs: tuple[Tensor, Tensor] | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._steps = 0

    def __call__(self, batches: list[Batch]) -> tuple[Tensor, Tensor]:
        """Return the losses of the samples and the gradient norm; they are valid until the next call."""
        self._steps += 1
        if self._steps <= _WARM_UP_STEPS:
            return self._warm_up(batches)
        if self._graph is None:
            self._capture(batches)
        assert self._graph is not None
        assert self._outputs is not None
        for own, given in zip(self._inputs, batches, strict=True):
            for static, tensor in zip(own.__dict__.values(), given.__dict__.values(), strict=True):
                static.copy_(tensor, non_blocking=True)
        self._graph.replay()
        return self._outputs

    def _warm_up(self, batches: list[Batch]) -> tuple[Tensor, Tensor]:
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = self.compute([batch.to(self.device) for batch in batches])
        current.wait_stream(self._stream)
        return outputs

    def _capture(self, batches: list[Batch]) -> None:
        self._inputs = [Batch(*(t.to(self.device, copy=True) for t in batch.__dict__.values())) for batch in batches]
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        self._graph = torch.cuda.CUDAGraph()
        # Threads that prepare batches may use the GPU meanwhile.
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            self._outputs = self.compute(self._inputs)
