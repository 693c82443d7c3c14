"""A painter as the backbone: training continues from it, and switches that do not match it are named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pbe.errors import UserError
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
def ours(trained: Painter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    trained.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def published(trained: Painter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    write_published(trained, folder)
    return folder


@pytest.mark.parametrize("layout", ["ours", "published"])
def test_a_painter_as_the_backbone_is_the_painter_at_step_0(layout: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(layout)
    was, resumed = Painter.from_pretrained(folder), build_painter(folder, 32, 7)
    assert resumed.image_px == 32
    assert resumed.mask_channel == was.mask_channel == {"ours": "repaint", "published": "keep"}[layout]
    wanted, got = was.state_dict(), resumed.state_dict()
    assert wanted.keys() == got.keys()
    assert all(torch.equal(tensor, got[name]) for name, tensor in wanted.items())
    assert resumed.unet.conv_in.weight.requires_grad
    assert resumed.conditioner.uncond_vector.requires_grad
    assert not any(p.requires_grad for p in resumed.conditioner.model.parameters())


@pytest.mark.parametrize("layout", ["ours", "published"])
def test_its_encoders_have_the_outputs_of_the_backbones(
    layout: str, backbone: Path, request: pytest.FixtureRequest
) -> None:
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
def test_switches_that_do_not_describe_it_are_named(ours: Path, switches: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_painter(ours, 64, 0, **switches)


def test_a_painter_without_a_part_is_named(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text((ours / "model_index.json").read_text())
    with pytest.raises(UserError, match=r"lacks its part unet/; it needs unet, vae, scheduler, image_encoder$"):
        build_painter(tmp_path, 64, 0)
