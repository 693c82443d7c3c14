"""A painter as the backbone: training goes on from it, and what does not fit it is named."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pbe.interchange.folder import write_published
from pbe.latents.frozen_encoders import FrozenEncoders
from pbe.method.initialization import build_painter
from pbe.method.painter import Painter
from pbe.method.training_triplet import TrainingTriplet
from tests.support.tiny_painter import changed_painter


@pytest.fixture(scope="module")
def trained(backbone: Path) -> Painter:
    return changed_painter(backbone)


@pytest.fixture(scope="module")
def ours(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    trained.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    write_published(trained, folder)
    return folder


@pytest.mark.parametrize("layout", ["ours", "published"])
def test_a_painter_goes_on_as_it_was(layout, request):
    folder = request.getfixturevalue(layout)
    was, goes_on = Painter.from_pretrained(folder), build_painter(folder, 32, 7)
    assert goes_on.image_px == 32
    assert goes_on.mask_channel == was.mask_channel == {"ours": "repaint", "published": "keep"}[layout]
    wanted, got = was.state_dict(), goes_on.state_dict()
    assert wanted.keys() == got.keys()
    assert all(torch.equal(tensor, got[name]) for name, tensor in wanted.items())
    assert goes_on.unet.conv_in.weight.requires_grad
    assert goes_on.conditioner.uncond_vector.requires_grad
    assert not any(p.requires_grad for p in goes_on.conditioner.model.parameters())


@pytest.mark.parametrize("layout", ["ours", "published"])
def test_its_encoders_say_what_the_backbones_said(layout, backbone, request):
    rng = np.random.default_rng(0)
    source, exemplars = rng.integers(0, 256, (64, 64, 3), np.uint8), rng.integers(0, 256, (1, 32, 32, 3), np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 20:50] = 1
    samples = [TrainingTriplet(source=source, mask=mask, exemplars=exemplars)]
    wanted = FrozenEncoders(backbone).encode(samples)
    got = FrozenEncoders(request.getfixturevalue(layout)).encode(samples)
    assert all(torch.equal(tensor, got[name]) for name, tensor in wanted.items())


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"prior": False}, "was trained with train.prior True; it cannot change to False"),
        ({"bottleneck": False}, "was trained with method.bottleneck True"),
        ({"guidance": False}, "train.drop_probability above 0"),
    ],
)
def test_switches_that_do_not_describe_it_are_named(ours, switches, message):
    with pytest.raises(ValueError, match=message):
        build_painter(ours, 64, 0, **switches)


def test_a_painter_without_a_part_is_named(ours, tmp_path):
    (tmp_path / "model_index.json").write_text((ours / "model_index.json").read_text())
    with pytest.raises(ValueError, match=r"lacks its part unet/; it needs unet, vae, scheduler, image_encoder$"):
        build_painter(tmp_path, 64, 0)
