"""What any model has to beat: pasting the exemplar, and doing nothing (section 4.2).

Copy-and-paste scores high on CLIP and looks wrong; the untouched source looks right and shows no exemplar.
"""

import numpy as np

from pbe.evaluation.bench import Case, Image
from pbe.method.exemplars import resize


def copy_paste(case: Case) -> Image:
    """The exemplar stretched to the mask's bounding box, pasted where mask == 1; (H, W, 3) uint8."""
    x0, y0, x1, y1 = case.box
    result = case.source.copy()
    pasted = resize(case.exemplar, y1 - y0, x1 - x0)
    region = result[y0:y1, x0:x1]
    region[:] = np.where(case.mask[y0:y1, x0:x1, None] == 1, pasted, region)
    return result


def source(case: Case) -> Image:
    """The source, untouched."""
    return case.source
