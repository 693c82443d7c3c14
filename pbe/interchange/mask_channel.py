"""A painter as the authors' code expects it: its UNet's mask channel is 1 where to keep.

A convolution is linear, so a UNet that wants m can be given 1 - m: the weights w of that channel change their sign, and
the bias takes what they would have summed to,

    w * m + b  =  (-w) * (1 - m) + (b + sum w)

At the picture's edge the sum is a little off, since the zeros that pad the picture were no mask, and are no 1 - m: the
first layer differs in a rim of one latent, there alone.
"""

import torch

from pbe.errors import UserError
from pbe.interchange.architecture import architecture_of, empty_painter
from pbe.method.painter import Painter

_WEIGHT, _BIAS = "unet.conv_in.weight", "unet.conv_in.bias"
_MASK = slice(8, 9)


@torch.no_grad()
def keeping(painter: Painter) -> Painter:
    """The same painter with a mask channel of 1 = keep; it shares every tensor but the first convolution's.

    Raises UserError for a painter without the bottleneck, which neither of the authors' layouts can say.
    """
    if not painter.conditioner.bottleneck:
        raise UserError("a model trained with method.bottleneck false has no equal in the authors' layouts")
    if painter.mask_channel == "keep":
        return painter
    state = painter.state_dict()
    weight = state[_WEIGHT].clone()
    state[_BIAS] = state[_BIAS] + weight[:, _MASK].sum((1, 2, 3))
    weight[:, _MASK] *= -1
    state[_WEIGHT] = weight
    twin = empty_painter(architecture_of(painter))
    twin.load_state_dict(state, assign=True)
    return twin
