"""The baselines that any model has to beat: pasting the exemplar, and leaving the source unchanged (section 4.2).

Copy-and-paste has a high CLIP score and looks wrong; the unchanged source looks right and does not show the exemplar.
"""

import numpy as np

from pbe.method.exemplars import resize
from pbe.method.windows import mask_box
from pbe.types import Image, Mask


def source(source: Image, mask: Mask, exemplar: Image, rng: np.random.Generator) -> Image:
    """Return the unchanged source."""
    return source


def copy_paste(source: Image, mask: Mask, exemplar: Image, rng: np.random.Generator) -> Image:
    """Return the source with the exemplar, stretched to the mask's bounding box, pasted where mask == 1."""
    x0, y0, x1, y1 = mask_box(mask)
    result = source.copy()
    pasted = resize(exemplar, y1 - y0, x1 - x0)
    region = result[y0:y1, x0:x1]
    region[:] = np.where(mask[y0:y1, x0:x1, None] == 1, pasted, region)
    return result
