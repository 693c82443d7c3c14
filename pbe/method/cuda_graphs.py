"""CUDA graphs of a function of tensors: recorded once for each combination of shapes, then replayed as one launch."""

import threading
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

_WARM_UP_CALLS = 2  # before a recording: libraries choose kernels and allocate workspaces in the first calls
_MAX_GRAPHS = 4  # each keeps its activations on the GPU


class CudaGraphs:
    """A function of tensors that replays CUDA graphs; the most recently used shapes are kept.

    The function may read no value of a tensor on the CPU, and tensors that it uses beside its inputs, such as weights,
    must stay where they are. One thread at a time records or replays. Without gradients.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self._recorded: OrderedDict[tuple[object, ...], _Recording] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *inputs: Tensor) -> Tensor:
        key = tuple((tuple(t.shape), t.stride(), t.dtype, t.device) for t in inputs)
        with self._lock:
            if key not in self._recorded:
                if len(self._recorded) == _MAX_GRAPHS:
                    self._recorded.popitem(last=False)
                self._recorded[key] = _Recording(self.function, inputs)
            self._recorded.move_to_end(key)
            return self._recorded[key].replay(inputs)


class _Recording:
    """The graph of one call: it reads its own inputs and writes its own output."""

    def __init__(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
        self.inputs = tuple(t.clone() for t in inputs)
        with torch.cuda.device(inputs[0].device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP_CALLS):
                    function(*self.inputs)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.output = function(*self.inputs)

    def replay(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.output.clone()
