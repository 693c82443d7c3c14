import torch

from pbe.method.guidance import drop_context, guided


def predict(noisy, timesteps, context):
    return noisy * 0.1 + context.mean(dim=(1, 2)).view(-1, 1, 1, 1) + timesteps.view(-1, 1, 1, 1) * 0.001


NOISY, STEPS = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([5, 9])
CONTEXT, UNCOND = torch.full((2, 1, 8), 2.0), torch.full((1, 1, 8), -1.0)


def test_scale_one_is_the_conditional_prediction():
    torch.testing.assert_close(guided(predict, CONTEXT, UNCOND, 1.0)(NOISY, STEPS), predict(NOISY, STEPS, CONTEXT))


def test_scale_zero_is_the_unconditional_prediction():
    expected = predict(NOISY, STEPS, UNCOND.expand(2, 1, 8))
    torch.testing.assert_close(guided(predict, CONTEXT, UNCOND, 0.0)(NOISY, STEPS), expected)


def test_scale_five_goes_five_times_the_difference():
    uncond, cond = predict(NOISY, STEPS, UNCOND.expand(2, 1, 8)), predict(NOISY, STEPS, CONTEXT)
    torch.testing.assert_close(guided(predict, CONTEXT, UNCOND, 5.0)(NOISY, STEPS), uncond + 5 * (cond - uncond))


def test_drop_replaces_whole_conditions_of_single_samples():
    mixed = drop_context(CONTEXT, UNCOND, torch.tensor([True, False]))
    assert (mixed[0] == -1).all()
    assert (mixed[1] == 2).all()
