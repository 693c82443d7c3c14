"""Paint one edit with several seeds: windows of several variants are painted together."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pbe.serving.editor import Edited, Editor, Prepared
    from pbe.types import Image, Progress


def paint_variants(
    editor: "Editor", prepared: "Prepared", seeds: Sequence[int], on_step: "Progress"
) -> "Iterator[tuple[int, Edited, float]]":
    """Yield each seed with its result and its share of the painting time, in seconds.

    The bits are those of `Editor.edit` with this seed.
    """
    num_windows = len(prepared.windows)
    together = max(1, editor.max_batch // num_windows)
    chunks = [seeds[start : start + together] for start in range(0, len(seeds), together)]
    for number, chunk in enumerate(chunks):
        started = time.perf_counter()
        variants = [_with_seed(prepared, seed) for seed in chunk]
        squares = _paint(editor, variants, _part(on_step, number, len(chunks)))
        painted_s = time.perf_counter() - started
        for place, (seed, variant) in enumerate(zip(chunk, variants, strict=True)):
            edited = editor.finish(variant, squares[place * num_windows : (place + 1) * num_windows])
            yield seed, edited, painted_s / len(chunk)


def _with_seed(prepared: "Prepared", seed: int) -> "Prepared":
    from pbe.method.regions import region_seeds

    seeds = region_seeds(seed, prepared.regions)
    windows = tuple(replace(window, seed=each) for window, each in zip(prepared.windows, seeds, strict=True))
    return replace(prepared, edit=replace(prepared.edit, seed=seed), windows=windows)


def _paint(editor: "Editor", prepared: "Sequence[Prepared]", on_step: "Progress") -> "list[Image]":
    windows = [window for each in prepared for window in each.windows]
    starts = range(0, len(windows), editor.max_batch)
    squares: list[Image] = []
    for number, start in enumerate(starts):
        part = windows[start : start + editor.max_batch]
        squares += editor.paint(part, on_step=_part(on_step, number, len(starts)))
    return squares


def _part(on_step: "Progress", number: int, num_parts: int) -> "Progress":
    """Return a progress whose steps are those of one of `num_parts` equal parts."""

    def show(done: int, total: int, note: str = "") -> None:
        on_step(number * total + done, num_parts * total)

    return show
