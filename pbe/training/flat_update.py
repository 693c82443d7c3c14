"""The update of one worker that has all weights: everything that has the weights' size is one flat buffer.

The parameters are views of a buffer, and so are their gradients: clearing them is one operation, their norm one
reduction, and AdamW with the moving average one elementwise function (`optimizer.update_`), compiled to one kernel. On
a CPU, torch's fused AdamW runs over chunks that fit the cache. With bf16 weights, fp32 masters lie beside them: an
update below the resolution of bf16 still counts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pbe import settings
from pbe.training.optimizer import (
    MOMENTS,
    Parts,
    Rates,
    adamw_rates,
    average_share,
    build_adamw8bit,
    follow_,
    rate_factor,
    update_,
    update_on_cpu_,
)

_ALIGNMENT = 64  # elements: every parameter begins at a multiple of 128 bytes, as fast matrix kernels need
_CHUNK = {"cpu": 1 << 18, "cuda": 1 << 26}  # elements that an update which is not compiled takes at a time


class FlatUpdate:
    """AdamW, or AdamW8bit, with clipping, moving average and masters over the trained parameters of a module.

    Converts the module's weights to `dtype` and moves the parameters into flat buffers, on the device where they are;
    their memory format stays. `root` contains every module that has one of the parameters. Without `owns_gradients`
    something else, such as DDP, sets the parameters' gradients, and they are copied into the flat buffer.
    """

    def __init__(
        self,
        module: nn.Module,
        root: nn.Module,
        train: settings.Train,
        dtype: torch.dtype = torch.float32,
        *,
        owns_gradients: bool = True,
    ) -> None:
        self.root, self.train, self.owns_gradients = root, train, owns_gradients
        named = dict(module.named_parameters())
        self.parameters = {name: p for name, p in named.items() if p.requires_grad}
        self.device = next(iter(self.parameters.values())).device
        self._layout = _Layout(self.parameters, train)
        self.weights = self._layout.buffer(self.device)
        self.low = self._layout.buffer(self.device, dtype) if dtype != torch.float32 else None
        self.gradients = self._layout.buffer(self.device, dtype)
        sums = dtype != torch.float32 and (train.accumulate > 1 or train.optimizer == "adamw8bit")
        self._sum = self._layout.buffer(self.device) if sums else None
        self._views = list(self._layout.views(self.gradients).values())
        self._fill(named, dtype)
        self.average = None if train.average == "none" else self._copy_to(train.average)
        self._is_swapped = False
        self._moments: tuple[Tensor, ...] = ()
        self._optimizer: torch.optim.Optimizer | None = None
        if train.optimizer == "adamw":
            self._moments = self._layout.buffer(self.device), self._layout.buffer(self.device)
        else:
            self._optimizer = self._build_8bit()
        compiles = self.device.type == "cuda" and train.compile is not False
        by_device = update_ if self.device.type == "cuda" else update_on_cpu_
        self._update_ = torch.compile(update_, dynamic=False) if compiles else by_device
        self._parts = self._divide(None if compiles else _CHUNK[self.device.type])
        self._rates: list[Rates] = []
        self._rates_on_gpu: Tensor | None = None
        if self.device.type == "cuda":
            self._rates_on_gpu = torch.zeros(len(self._layout.groups), len(Rates._fields), device=self.device)
            self._rates = [Rates(*row) for row in self._rates_on_gpu.unbind()]

    @torch.no_grad()
    def _fill(self, named: dict[str, nn.Parameter], dtype: torch.dtype) -> None:
        """Copy the parameters into the buffers and make views of them; frozen ones keep their values for delivery."""
        masters = self._layout.views(self.weights)
        views = masters if self.low is None else self._layout.views(self.low)
        for name, p in self.parameters.items():
            masters[name].copy_(p)
            views[name].copy_(p)
            p.data = views[name]
        if self.owns_gradients:
            for p, view in zip(self.parameters.values(), self._views, strict=True):
                p.grad = view
        self._full: dict[nn.Parameter, Tensor] = {}  # with bf16 weights: the fp32 ones
        if self.low is not None:
            self._full = {p: masters[name] for name, p in self.parameters.items()}
            for name, p in named.items():
                if name not in self.parameters:
                    self._full[p] = p.data.to("cpu")
                    p.data = p.data.to(dtype)

    def _copy_to(self, place: str) -> Tensor:
        return self.weights.to("cpu" if place == "cpu" else self.device, copy=True)

    def _divide(self, chunk: int | None) -> list[tuple[int, Parts]]:
        """Return the ranges to update at once, with the number of their group."""
        parts = []
        gradients = self.gradients if self._sum is None else self._sum
        average = self.average if self.train.average == "device" else None
        moments = self._moments or (self.weights, self.weights)  # 8-bit moments are the optimizer's own
        for number, (start, stop, _) in enumerate(self._layout.groups):
            for at in range(start, stop, chunk or stop - start):
                cut = slice(at, min(stop, at + (chunk or stop - start)))
                tensors = (gradients, self.weights, *moments, average, self.low)
                parts.append((number, Parts(*(None if t is None else t[cut] for t in tensors))))  # type: ignore[arg-type]
        return parts

    def _build_8bit(self) -> torch.optim.Optimizer:
        weights = self._layout.ranges(self.weights)
        gradients = self._layout.ranges(self.gradients if self._sum is None else self._sum)
        flat = {name: nn.Parameter(weight) for name, weight in weights.items()}
        for name, parameter in flat.items():
            parameter.grad = gradients[name]
        groups = [([flat[name] for name in names], factor) for factor, names in self._layout.names_by_factor.items()]
        return build_adamw8bit(groups, self.train, self.device)

    @property
    def can_be_captured(self) -> bool:
        """Whether `compute` may be part of a CUDA graph."""
        return self._optimizer is None and self.owns_gradients

    @torch.no_grad()
    def zero_grad(self) -> None:
        """Clear the gradients before the first micro-batch of a step."""
        if self._sum is not None:
            self._sum.zero_()
        self._clear()

    def _clear(self) -> None:
        if self.owns_gradients:
            self.gradients.zero_()
            return
        for p in self.parameters.values():
            p.grad = None

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Take the gradients of one micro-batch; called after each backward pass. bf16 gradients are summed in fp32."""
        if not self.owns_gradients:
            torch._foreach_copy_(self._views, [p.grad for p in self.parameters.values()])  # type: ignore[misc]
        if self._sum is not None:
            self._sum.add_(self.gradients)
            self._clear()

    def step(self, step: int, rate: float) -> Tensor:
        """Clip the gradients, update weights and average; return the gradient norm before clipping, a 0-d tensor.

        `step` is counted from 0, `rate` is its learning rate. A GPU may still be computing when it returns.
        """
        self.prepare(step, rate)
        norm = self.compute()
        self.finish(step)
        return norm

    def prepare(self, step: int, rate: float) -> None:
        """Set the rates of a step: the part of `step` before `compute`."""
        rates = [adamw_rates(step, rate * factor, self.train) for _, _, factor in self._layout.groups]
        if self._optimizer:
            for group in self._optimizer.param_groups:
                group["lr"] = rate * group["factor"]
        if self._rates_on_gpu is None:
            self._rates = rates
        else:
            self._rates_on_gpu.copy_(torch.tensor(rates, dtype=torch.float32))

    @torch.no_grad()
    def compute(self) -> Tensor:
        """Clip and update on the device, with the rates of `prepare`; return the norm. Waits for nothing."""
        norms = [torch.linalg.vector_norm(parts.gradients, dtype=torch.float32) for _, parts in self._parts]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        clip: Tensor = (self.train.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        if self._optimizer:
            (self.gradients if self._sum is None else self._sum).mul_(clip)
            self._optimizer.step()
        for number, parts in self._parts:
            rates = self._rates[number]
            if self._optimizer:
                follow_(parts.weights, parts.average, parts.low, rates.share)
            else:
                self._update_(parts, clip, rates)
        return norm

    @torch.no_grad()
    def finish(self, step: int) -> None:
        """Update an average that is kept on the CPU: the part of `step` after `compute`."""
        share = average_share(step, self.train)
        if self.average is None or self.train.average != "cpu" or not share:
            return
        for average, weights in self._pairs(self.average):
            average.lerp_(weights.to("cpu"), share)

    def _pairs(self, average: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        chunk = _CHUNK[self.device.type]
        return zip(average.split(chunk), self.weights.split(chunk), strict=True)

    def averaged_weights(self) -> dict[str, Tensor]:
        """Return the averaged weights by name, in fp32; without averaging, the weights themselves."""
        in_weights = self.average is None or self._is_swapped
        return self._layout.views(self.weights if in_weights or self.average is None else self.average)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Have the averaged weights in the module, in fp32, for the block."""
        self._exchange()
        full = {p: nn.Parameter(t.to(self.device), requires_grad=False) for p, t in self._full.items()}
        self._replace(full)
        try:
            yield
        finally:
            self._replace({new: p for p, new in full.items()})
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        """Exchange weights and average, in place and a chunk at a time to save memory."""
        if self.average is None:
            return
        for average, weights in self._pairs(self.average):
            kept = weights.clone()
            weights.copy_(average)
            average.copy_(kept)
        self._is_swapped = not self._is_swapped

    def _replace(self, replacements: dict[nn.Parameter, nn.Parameter]) -> None:
        """Put other parameters in the modules. Their data must not change dtype: DDP's hooks would be lost."""
        for module in self.root.modules():
            for name, p in module._parameters.items():
                if p is not None and p in replacements:
                    module._parameters[name] = replacements[p]

    @torch.no_grad()
    def copy_average_to_model(self) -> None:
        """Leave the averaged weights in the module, in fp32, to be delivered. Training cannot continue after it."""
        if self.average is not None:
            self.weights.copy_(self.average)
        self._replace({p: nn.Parameter(t, requires_grad=p.requires_grad) for p, t in self._full.items()})

    def state(self) -> dict[str, Any]:
        """Return the fp32 weights, average and moments by name, for a checkpoint; they are views, not copies."""
        state: dict[str, Any] = {"model": self._layout.views(self.weights)}
        if self.average is not None:
            state["average"] = self._layout.views(self.average)
        if self._optimizer:
            return state | {"optimizer": self._optimizer.state_dict()}
        return state | {name: self._layout.views(t) for name, t in zip(MOMENTS, self._moments, strict=True)}

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        if self._optimizer:
            self._optimizer.load_state_dict(state["optimizer"])
        for part, views in self.state().items():
            if part != "optimizer":
                for name, view in views.items():
                    view.copy_(state[part][name])
        if self.low is not None:
            self.low.copy_(self.weights)


class _Layout:
    """Where each parameter lies in the flat buffers: parameters with the same factor of the learning rate together."""

    def __init__(self, parameters: dict[str, nn.Parameter], train: settings.Train) -> None:
        factors = {name: rate_factor(name, train) for name in parameters}
        self.names_by_factor: dict[float, list[str]] = {}
        for name, factor in factors.items():
            self.names_by_factor.setdefault(factor, []).append(name)
        self.groups: list[tuple[int, int, float]] = []  # start, stop and factor
        self._shapes = {name: (p.shape, p.stride()) for name, p in parameters.items()}
        self._at: dict[str, int] = {}
        self.size = 0
        for factor, names in self.names_by_factor.items():
            start = self.size
            for name in names:
                self._at[name] = self.size
                self.size += -(-parameters[name].numel() // _ALIGNMENT) * _ALIGNMENT
            self.groups.append((start, self.size, factor))

    def buffer(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a buffer of zeros; between the parameters it stays zero."""
        return torch.zeros(self.size, device=device, dtype=dtype)

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """Return the parameters' parts of a buffer in their shapes and memory formats, in the parameters' order."""
        return {
            name: buffer.as_strided(shape, stride, self._at[name]) for name, (shape, stride) in self._shapes.items()
        }

    def ranges(self, buffer: Tensor) -> dict[str, Tensor]:
        """Return the parameters' parts of a buffer as 1-D tensors."""
        return {name: buffer[self._at[name] :][: shape.numel()] for name, (shape, _) in self._shapes.items()}
