"""What several tests of the method start from."""

import pytest
import torch

from pbe.method.initialization import build_painter


@pytest.fixture(scope="module")
def trained(backbone):
    """A painter of this project, 1 = repaint, its new parts away from where they start."""
    painter = build_painter(backbone, 64, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in [*painter.unet.conv_in.parameters(), *painter.conditioner.mapper.parameters()]:
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return painter
