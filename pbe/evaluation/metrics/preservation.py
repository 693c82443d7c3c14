"""How well pixels outside the mask are preserved."""

import numpy as np

from pbe.types import Image, Mask


def unmasked_max_abs_diff(result: Image, source: Image, mask: Mask) -> int:
    """Return the largest change of any channel where mask == 0, in grey levels 0..255; 0 when every pixel is masked.

    Raises ValueError when the sizes of result and source differ.
    """
    if result.shape != source.shape:
        raise ValueError(f"the result has shape {result.shape}, its source {source.shape}")
    difference = np.abs(result.astype(np.int16) - source.astype(np.int16))[mask == 0]
    return int(difference.max()) if difference.size else 0
