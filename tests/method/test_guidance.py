"""Classifier-free guidance: its identities, and dropped conditions."""

import torch
from torch import Tensor

from pbe.method.guidance import drop_context, guided


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
