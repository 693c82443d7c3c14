"""A painter of random weights that looks trained: none of its parts is where it starts."""

from pathlib import Path

import torch

from pbe.method.initialization import build_painter
from pbe.method.painter import Painter


def changed_painter(backbone: Path) -> Painter:
    """Return a painter of this project (1 = repaint) whose new parts are away from their initial values."""
    painter = build_painter(backbone, 64, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in [*painter.unet.conv_in.parameters(), *painter.conditioner.mapper.parameters()]:
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return painter
