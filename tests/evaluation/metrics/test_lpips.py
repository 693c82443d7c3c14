"""LPIPS, against its formula written out for torchvision's AlexNet with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from pbe.errors import UserError
from pbe.evaluation.metrics.lpips import Lpips, lpips_in

Image = NDArray[np.uint8]

WIDTHS = (64, 192, 384, 256, 256)


def alexnet_features() -> nn.Sequential:
    """Return `torchvision.models.alexnet().features`."""
    return nn.Sequential(
        nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
    )


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return alexnet_features().requires_grad_(False)


@pytest.fixture(scope="module")
def heads() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, width, 1, 1, generator=generator) for width in WIDTHS]


@pytest.fixture(scope="module")
def folder(network: nn.Sequential, heads: list[torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lpips")
    tensors = {f"features.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save(tensors | {"classifier.1.weight": torch.zeros(2, 2)}, root / "alexnet-owt-7be5be79.pth")
    torch.save({f"lin{n}.model.1.weight": head for n, head in enumerate(heads)}, root / "alex.pth")
    return root


@pytest.fixture(scope="module")
def pair() -> tuple[Image, Image]:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
    return first, np.clip(first + rng.integers(-40, 41, first.shape), 0, 255).astype(np.uint8)


def written_out(network: nn.Sequential, heads: list[torch.Tensor], pair: tuple[Image, Image]) -> list[torch.Tensor]:
    x = torch.stack([torch.from_numpy(image) for image in pair]).permute(0, 3, 1, 2).double() / 255 * 2 - 1
    x = (x - torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)) / torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    maps = []
    for number, module in enumerate(network.double()):
        x = module(x)
        if number in (1, 4, 7, 9, 11):
            a, b = (F.normalize(each, dim=0) for each in x)
            maps.append(torch.einsum("chw,c->hw", (a - b) ** 2, heads[len(maps)].flatten().double()))
    network.float()
    return maps


def test_the_distance_is_the_formulas(
    folder: Path, network: nn.Sequential, heads: list[torch.Tensor], pair: tuple[Image, Image]
) -> None:
    maps = written_out(network, heads, pair)
    assert Lpips(folder).distance(*pair) == pytest.approx(sum(float(each.mean()) for each in maps), rel=1e-4)


def test_the_mean_in_a_region_is_that_of_the_enlarged_maps(
    folder: Path, network: nn.Sequential, heads: list[torch.Tensor], pair: tuple[Image, Image]
) -> None:
    maps = written_out(network, heads, pair)
    enlarged = sum(F.interpolate(each[None, None], (64, 80), mode="bilinear")[0, 0].numpy() for each in maps)
    where = np.zeros((64, 80), np.bool_)
    where[5:20, 30:60] = True
    assert lpips_in(Lpips(folder), *pair, where) == pytest.approx(np.asarray(enlarged)[where].mean(), rel=1e-4)


def test_equal_pictures_have_distance_0_and_an_empty_region_none(folder: Path, pair: tuple[Image, Image]) -> None:
    lpips, first = Lpips(folder), pair[0]
    assert lpips.distance(first, first) == 0.0
    assert lpips_in(lpips, first, first, np.ones((64, 80), np.bool_)) == 0.0
    assert np.isnan(lpips_in(lpips, *pair, np.zeros((64, 80), np.bool_)))


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate.lpips is a folder with alexnet\*.pth and alex.pth or vgg16"):
        Lpips(tmp_path)
    torch.save({}, tmp_path / "alexnet.pth")
    (tmp_path / "alex.pth").write_bytes((folder / "alex.pth").read_bytes())
    with pytest.raises(UserError, match=r"not torchvision's AlexNet: 'features\.0\.weight'"):
        Lpips(tmp_path)
    (tmp_path / "alexnet.pth").write_bytes((folder / "alexnet-owt-7be5be79.pth").read_bytes())
    torch.save({"lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}, tmp_path / "alex.pth")
    with pytest.raises(UserError, match="not LPIPS's weights for AlexNet"):
        Lpips(tmp_path)
    (tmp_path / "alex.pth").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"alex\.pth: is damaged"):
        Lpips(tmp_path)
