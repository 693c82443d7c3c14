"""Conversion of a painter to the mask channel that the authors' code expects: 1 where to keep.

A convolution is linear, so that a UNet that takes m can be converted to one that takes 1 - m: the weights w of the mask
channel change their sign, and their sum is added to the bias b.

    w * m + b  =  (-w) * (1 - m) + (b + sum w)

The first layer differs in a rim of one latent at the edge of the picture: there the convolution pads with zeros, which
would have to be ones after the conversion.
"""

import torch

from pbe.errors import UserError
from pbe.interchange.architecture import architecture_of, empty_painter
from pbe.method.painter import Painter

_WEIGHT, _BIAS = "unet.conv_in.weight", "unet.conv_in.bias"
_MASK = slice(8, 9)


@torch.no_grad()
def keeping(painter: Painter) -> Painter:
    """Return the painter with a mask channel of 1 = keep; it shares all tensors but those of the first convolution.

    Raises UserError for a painter without the bottleneck, which neither of the authors' layouts can describe.
    """
    if not painter.conditioner.bottleneck:
        raise UserError("a model trained with method.bottleneck false cannot be exported to the authors' layouts")
    if painter.mask_channel == "keep":
        return painter
    state = painter.state_dict()
    weight = state[_WEIGHT].clone()
    state[_BIAS] = state[_BIAS] + weight[:, _MASK].sum((1, 2, 3))
    weight[:, _MASK] *= -1
    state[_WEIGHT] = weight
    twin = empty_painter(architecture_of(painter))
    twin.load_state_dict(state, assign=True)
    twin.set_scheduler(painter.scheduler)
    return twin
