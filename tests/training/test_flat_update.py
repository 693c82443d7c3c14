"""The flat update against torch's AdamW, clip_grad_norm_ and lerp; masters, groups and averages."""

import importlib.util
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pbe.errors import UserError
from pbe.training import flat_update
from pbe.training.flat_update import FlatUpdate
from pbe.training.optimizer import (
    CONV_IN,
    Parts,
    Rates,
    adamw_rates,
    average_share,
    build_adamw8bit,
    update_,
    update_on_cpu_,
)
from tests.support import parameters


class Layers(nn.Module):
    """Parameters of the given shapes; the first one has the name of the UNet's first convolution."""

    def __init__(self, shapes: list[tuple[int, ...]], seed: int = 0, channels_last: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weights = [torch.randn(shape, generator=generator) for shape in shapes]
        if channels_last:
            weights = [w.to(memory_format=torch.channels_last) if w.ndim == 4 else w for w in weights]
        self.unet = nn.Module()
        self.unet.conv_in = nn.Module()
        self.unet.conv_in.weight = nn.Parameter(weights[0])
        self.rest = nn.ParameterList(nn.Parameter(w) for w in weights[1:])
        self.frozen = nn.Parameter(torch.randn(3, generator=generator), requires_grad=False)


def make(module: nn.Module, dtype: torch.dtype = torch.float32, **changes: Any) -> FlatUpdate:
    return FlatUpdate(module, module, parameters.train(**changes), dtype)


def set_gradients(module: nn.Module, seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        if p.requires_grad:
            assert p.grad is not None
            p.grad.copy_(size * torch.randn(p.shape, generator=generator))


class Reference:
    """AdamW, clip_grad_norm_ and lerp of torch, as the trainer used them."""

    def __init__(self, module: Layers, **changes: Any) -> None:
        self.train, self.module = parameters.train(**changes), module
        self.trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        groups = [
            {"params": [p for name, p in self.trained.items() if name != CONV_IN], "factor": 1.0},
            {"params": [self.trained[CONV_IN]], "factor": self.train.conv_in_lr_factor},
        ]
        groups = [group for group in groups if group["params"]]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=self.train.weight_decay)
        self.average = [p.detach().clone() for p in self.trained.values()]
        for p in self.trained.values():
            p.grad = torch.zeros_like(p)

    @torch.no_grad()
    def step(self, step: int, rate: float) -> Tensor:
        norm = nn.utils.clip_grad_norm_(self.trained.values(), self.train.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.step()
        every = self.train.average_every
        if (step + 1) % every == 0:
            share = 1 - min(self.train.ema_decay, (1 + step) / (10 + step)) ** every
            torch._foreach_lerp_(self.average, list(self.trained.values()), share)
        return norm


SHAPES = st.lists(st.sampled_from([(3,), (5, 7), (64,), (4, 3, 3, 3), (1, 1, 8), (6, 5, 1, 1)]), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(
    shapes=SHAPES,
    num_steps=st.integers(1, 6),
    rate=st.floats(1e-6, 0.1),
    size=st.sampled_from([1e-4, 0.1, 30.0]),
    max_grad_norm=st.sampled_from([0.5, 1e6]),
    factor=st.sampled_from([1.0, 5.0]),
    decay=st.sampled_from([0.0, 0.5, 0.9999]),
    every=st.integers(1, 3),
    kept_on=st.sampled_from(["device", "cpu"]),
    channels_last=st.booleans(),
    function=st.sampled_from([update_, update_on_cpu_]),
)
def test_an_update_is_clipping_adamw_and_lerp(
    shapes: list[tuple[int, ...]], num_steps: int, rate: float, size: float, max_grad_norm: float, factor: float,
    decay: float, every: int, kept_on: str, channels_last: bool, function: Any,
) -> None:  # fmt: skip
    changes = {
        "max_grad_norm": max_grad_norm, "conv_in_lr_factor": factor, "ema_decay": decay, "average_every": every,
        "average": kept_on, "weight_decay": 0.02, "accumulate": 1,
    }  # fmt: skip
    ours, torchs = Layers(shapes, channels_last=channels_last), Layers(shapes)
    update, reference = make(ours, **changes), Reference(torchs, **changes)
    update._update_ = function
    for step in range(num_steps):
        update.zero_grad()
        for module in (ours, torchs):
            set_gradients(module, step, size)
        update.add_gradients()
        norm = update.step(step, rate / (step + 1))
        torch.testing.assert_close(norm, reference.step(step, rate / (step + 1)), rtol=1e-6, atol=0)
    for p, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(p, other, rtol=1e-6, atol=1e-6)
    for average, other in zip(update.averaged_weights().values(), reference.average, strict=True):
        torch.testing.assert_close(average, other, rtol=1e-6, atol=1e-6)


def test_rates_may_be_tensors_as_on_a_gpu() -> None:
    train = parameters.train()
    rates = adamw_rates(7, 1e-3, train)
    results = []
    for given_rates in (rates, Rates(*(torch.tensor(rate) for rate in rates))):
        buffers = torch.randn(5, 100, generator=torch.Generator().manual_seed(0)).abs()
        update_(Parts(*buffers, buffers[0].bfloat16()), torch.tensor(0.5), given_rates)  # type: ignore[arg-type]
        results.append(buffers)
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


def test_chunks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, chunked = Layers([(40, 9), (700,)]), Layers([(40, 9), (700,)])
    one = make(whole)
    monkeypatch.setitem(flat_update._CHUNK, "cpu", 128)
    other = make(chunked)
    assert len(other._parts) > len(one._parts) == 2
    for update, module in ((one, whole), (other, chunked)):
        set_gradients(module, 0, 1e-6)  # not clipped: the norm's last bit depends on the order of its sum
        update.step(0, 1e-3)
    assert torch.equal(one.weights, other.weights)
    assert torch.equal(one.average, other.average)  # type: ignore[arg-type]


def test_parameters_keep_values_shapes_and_memory_formats() -> None:
    module = Layers([(8, 4, 3, 3), (5,)], channels_last=True)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    strides = {name: p.stride() for name, p in module.named_parameters()}
    make(module)
    for name, p in module.named_parameters():
        assert torch.equal(p, before[name])
        assert p.stride() == strides[name]
        assert p.grad is None or p.grad.stride() == p.stride()


def test_the_masters_take_updates_below_the_resolution_of_bf16() -> None:
    module = Layers([(4, 4), (64,)])
    with torch.no_grad():
        for p in module.parameters():
            p.fill_(1.0)
    update = make(module, torch.bfloat16, weight_decay=0.0, conv_in_lr_factor=1.0, ema_decay=0.0)
    for step in range(20):  # each moves by 2e-4; the next bf16 numbers below and above 1 are 0.0039 and 0.0078 away
        update.zero_grad()
        for p in update.parameters.values():
            assert p.grad is not None
            p.grad.fill_(1.0)
        update.step(step, 2e-4)
    for p in update.parameters.values():
        assert p.dtype == torch.bfloat16
        assert torch.equal(p, torch.full_like(p, 0.99609375))
    for weights in update.state()["model"].values():
        torch.testing.assert_close(weights, torch.full_like(weights, 0.996), rtol=1e-5, atol=0)


def test_bf16_gradients_of_micro_batches_are_summed_in_fp32() -> None:
    module = Layers([(4, 4)])
    update = make(module, torch.bfloat16, accumulate=300, max_grad_norm=1e6)
    update.zero_grad()
    for _ in range(300):  # in bf16 the sum of ones ends at 256
        for p in update.parameters.values():
            assert p.grad is not None
            p.grad.fill_(1.0)
        update.add_gradients()
    assert update.step(0, 1e-3).item() == pytest.approx(300 * 4)


def test_gradients_that_something_else_owns_are_copied() -> None:
    own, other = Layers([(4, 4), (7,)]), Layers([(4, 4), (7,)])
    one = make(own)
    two = FlatUpdate(other, other, parameters.train(), owns_gradients=False)
    for step in range(3):
        one.zero_grad()
        two.zero_grad()
        assert all(p.grad is None for p in two.parameters.values())
        for p in two.parameters.values():
            p.grad = torch.zeros_like(p)
        set_gradients(own, step, 1.0)
        set_gradients(other, step, 1.0)
        for update in (one, two):
            update.add_gradients()
            update.step(step, 1e-2)
    assert torch.equal(one.weights, two.weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kept_on", ["device", "cpu", "none"])
def test_the_averaged_weights_are_in_the_module_in_fp32_for_a_block_and_at_the_end(
    dtype: torch.dtype, kept_on: str
) -> None:
    module = Layers([(4, 4), (7,)])
    original = module.frozen.detach().clone()
    update = make(module, dtype, average=kept_on, ema_decay=0.9)
    for step in range(3):
        set_gradients(module, step, 1.0)
        update.step(step, 0.1)
    trained = {name: p.detach().clone() for name, p in module.named_parameters()}
    average = {name: p.clone() for name, p in update.averaged_weights().items()} | {"frozen": original}
    assert torch.equal(average[CONV_IN], trained[CONV_IN]) is (kept_on == "none" and dtype == torch.float32)
    with update.swapped_in():
        assert all(torch.equal(p, average[name]) for name, p in module.named_parameters())
        assert all(torch.equal(w, average[name]) for name, w in update.averaged_weights().items())
    assert all(torch.equal(p, trained[name]) for name, p in module.named_parameters())
    assert {p.dtype for p in module.parameters()} == {dtype}
    assert [p.grad is not None for p in module.parameters()] == [p.requires_grad for p in module.parameters()]
    update.copy_average_to_model()
    assert all(torch.equal(p, average[name]) for name, p in module.named_parameters())


def test_averaging_every_second_step_is_as_strong_as_averaging_twice() -> None:
    ends = []
    for every in (1, 2):
        train = parameters.train(ema_decay=0.5, average_every=every)
        left = 1.0
        for step in range(100, 104):
            left *= 1 - average_share(step, train)
        ends.append(left)
    assert ends[0] == pytest.approx(ends[1])


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_8_bit_moments_without_bitsandbytes_name_the_package() -> None:
    with pytest.raises(UserError, match=r"needs bitsandbytes, .* pip install 'paint-by-example\[8bit\]'"):
        build_adamw8bit([], parameters.train(optimizer="adamw8bit"), torch.device("cuda"))
