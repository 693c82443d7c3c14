"""Paint one edit with several seeds; what does not depend on the seed is done once."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pbe.serving.editor import Edited, Editor, Prepared
    from pbe.types import Progress


def paint_variants(
    editor: "Editor", prepared: "Prepared", seeds: Sequence[int], on_step: "Progress"
) -> "Iterator[tuple[int, Edited, float]]":
    """Yield each seed with its result, which has the bits of `Editor.edit`, and the seconds it took.

    Windows of different seeds are not painted together: PyTorch rounds differently in a batch of another size.
    """
    for number, seed in enumerate(seeds):
        started = time.perf_counter()
        variant = _with_seed(prepared, seed)
        edited = editor.finish(variant, editor.paint_all(variant, on_step=_part(on_step, number, len(seeds))))
        yield seed, edited, time.perf_counter() - started


def _with_seed(prepared: "Prepared", seed: int) -> "Prepared":
    from pbe.method.regions import region_seeds

    seeds = region_seeds(seed, prepared.regions)
    windows = tuple(replace(window, seed=each) for window, each in zip(prepared.windows, seeds, strict=True))
    return replace(prepared, edit=replace(prepared.edit, seed=seed), windows=windows)


def _part(on_step: "Progress", number: int, num_parts: int) -> "Progress":
    """Return a progress whose steps are those of one of `num_parts` equal parts."""

    def show(done: int, total: int, note: str = "") -> None:
        on_step(number * total + done, num_parts * total)

    return show
