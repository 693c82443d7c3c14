"""Classifier-free guidance: its identities, and dropped conditions."""

import math

import torch
from torch import Tensor

from pbe.method.diffusion import alphas_cumprod
from pbe.method.guidance import GuidanceInterval, drop_context, guided


def predict(noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
    scaled = noisy * 0.1 + timesteps.view(-1, 1, 1, 1) * 0.001
    return scaled.repeat(len(context) // len(noisy), 1, 1, 1) + context.mean(dim=(1, 2)).view(-1, 1, 1, 1)


NOISY, STEPS = torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([5, 9, 700])
CONTEXT, V = torch.tensor([2.0, 3.0, 4.0]).view(3, 1, 1).expand(3, 1, 8), torch.full((1, 1, 8), -1.0)


def test_scale_one_is_the_conditional_prediction_in_a_single_call_of_the_batch() -> None:
    sizes = []

    def counting(noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        sizes.append(len(noisy))
        return predict(noisy, timesteps, context)

    assert torch.equal(guided(counting, CONTEXT, V, 1.0)(NOISY, STEPS), predict(NOISY, STEPS, CONTEXT))
    assert sizes == [3]


def test_scale_zero_is_the_unconditional_prediction() -> None:
    expected = predict(NOISY, STEPS, V.expand(3, 1, 8))
    torch.testing.assert_close(guided(predict, CONTEXT, V, 0.0)(NOISY, STEPS), expected)


def test_scale_five_adds_five_times_the_difference_to_the_unconditional_prediction() -> None:
    uncond, cond = predict(NOISY, STEPS, V.expand(3, 1, 8)), predict(NOISY, STEPS, CONTEXT)
    torch.testing.assert_close(guided(predict, CONTEXT, V, 5.0)(NOISY, STEPS), uncond + 5 * (cond - uncond))


def test_dropping_replaces_the_whole_condition_of_single_samples() -> None:
    context = CONTEXT.expand(3, 7, 8)
    mixed = drop_context(context, V, torch.tensor([True, False, True]))
    assert mixed.shape == (3, 7, 8)
    assert (mixed[[0, 2]] == -1).all()
    assert torch.equal(mixed[1], context[1])


def test_v_takes_the_contexts_precision() -> None:
    assert drop_context(CONTEXT.bfloat16(), V, torch.tensor([True, False, True])).dtype == torch.bfloat16


ALPHAS = alphas_cumprod()


def level(timestep: int) -> float:
    """Return the noise level sigma of a timestep, as `GuidanceInterval` computes it."""
    alpha_bar = float(ALPHAS[timestep])
    return math.sqrt((1 - alpha_bar) / alpha_bar)


def test_an_interval_of_all_levels_is_no_interval() -> None:
    everything = GuidanceInterval(0.0, float("inf"), ALPHAS)
    for timestep in (0, 1, 500, 999):
        steps = torch.full((3,), timestep)
        expected = guided(predict, CONTEXT, V, 5.0)(NOISY, steps)
        assert torch.equal(guided(predict, CONTEXT, V, 5.0, everything)(NOISY, steps), expected)


def test_outside_of_the_interval_the_conditional_prediction_is_taken_alone() -> None:
    contexts = []

    def recording(noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        contexts.append(len(context))
        return predict(noisy, timesteps, context)

    denoise = guided(recording, CONTEXT, V, 5.0, GuidanceInterval(level(300), level(600), ALPHAS))
    for timestep in (300, 601):  # the lower end is outside
        steps = torch.full((3,), timestep)
        assert torch.equal(denoise(NOISY, steps), predict(NOISY, steps, CONTEXT))
    for timestep in (301, 600):
        steps = torch.full((3,), timestep)
        assert torch.equal(denoise(NOISY, steps), guided(predict, CONTEXT, V, 5.0)(NOISY, steps))
    assert contexts == [3, 3, 6, 6]
