"""The exemplars of a row of `pbe batch`: pictures of one object, each with its mask if it has one."""

from pathlib import Path

from pbe.serving.batch.rows import Task
from pbe.serving.editor import Exemplar, check_mask, read_exemplar, read_mask


def read_exemplars(task: Task) -> tuple[Exemplar, ...]:
    """Return a row's exemplars; raises what `read_masked_exemplar` raises."""
    masks = task.exemplar_masks or (None,) * len(task.exemplars)
    return tuple(read_masked_exemplar(*pair) for pair in zip(task.exemplars, masks, strict=True))


def read_masked_exemplar(file: Path, mask_file: Path | None) -> Exemplar:
    """Read an exemplar and its mask; raises UserError when one cannot be read, or they do not fit together."""
    image = read_exemplar(file, f"exemplar {file}")
    if mask_file is None:
        return Exemplar(image)
    mask = read_mask(mask_file)
    names = {"mask_name": f"exemplar mask {mask_file}", "source_name": f"exemplar {file}"}
    check_mask(mask, image, use="the exemplar shows the object", **names)
    return Exemplar(image, mask)
