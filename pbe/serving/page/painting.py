"""Painting for a page: jobs of the dispatcher, one for each seed, and what the page shows of them until they end."""

import asyncio
import base64
import itertools
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from pbe.dataset.mask_images import decode_mask
from pbe.errors import UserError
from pbe.serving.editor import Edit, Edited, EditOptions, Exemplar, Region
from pbe.serving.page.held import HeldExemplar, HeldSource, HeldVariant, hold_variant
from pbe.serving.page.sentences import sentence
from pbe.serving.page.store import PageStore
from pbe.serving.page.views import close_up_box, crop, encode_preview
from pbe.serving.page.visitors import Visitors
from pbe.serving.request_images import image_bytes
from pbe.serving.service.dispatcher import Dispatcher
from pbe.serving.service.jobs import Job
from pbe.types import Box, Image, Mask

POLL_S = 0.1
MAX_STRIPS = 1000

Shown = dict[str, Any]  # the value of the page's viewer
_runs = itertools.count(1)


@dataclass(frozen=True)
class PaintRequest:
    """What a person asks for: the values of the two editors, and the options."""

    source: Mapping[str, Any]  # {page, token, mask}
    exemplar: Mapping[str, Any]
    model: str | None
    num_variants: int
    seed: int
    options: EditOptions


@dataclass(frozen=True)
class _Inputs:
    page: str
    source: HeldSource
    mask: Mask
    exemplar: Exemplar

    def edit(self, seed: int, options: EditOptions) -> Edit:
        return Edit(self.source.picture, (Region(self.mask, (self.exemplar,)),), seed, options)


class _Variant:
    """A variant that is being painted; the dispatcher's threads set its preview."""

    def __init__(self, seed: int, box: Box) -> None:
        self.seed, self.box = seed, box
        self.preview = ""
        self.shown: Shown = {"seed": seed, "token": None}
        self.job: Job | None = None

    def set_preview(self, image: Image) -> None:
        self.preview = "data:image/jpeg;base64," + base64.b64encode(encode_preview(crop(image, self.box))).decode()

    def show(self) -> Shown:
        return self.shown if self.shown["token"] else self.shown | {"preview": self.preview}


class PagePainter:
    """Paints for the sessions of a page through one dispatcher."""

    def __init__(self, dispatcher: Dispatcher, store: PageStore, visitors: Visitors) -> None:
        self._dispatcher, self._store, self._visitors = dispatcher, store, visitors
        self._jobs: dict[str, list[Job]] = {}
        self._lock = threading.Lock()

    async def paint(self, session: str, user: str | None, request: PaintRequest) -> AsyncIterator[Shown]:
        """Paint all variants and yield what the page shows of them, until all have ended."""
        run, started = next(_runs), time.monotonic()
        variants: list[_Variant] = []
        try:
            with self._visitors.painting(user, request.num_variants) as owner:
                inputs = await asyncio.to_thread(self._read, request)
                self._store.link(session, inputs.page)
                variants += _variants(inputs, request)
                await asyncio.to_thread(self._submit, session, owner or session, variants, inputs, request)
                yield _shown(run, "running", "Waiting for the model…")
                async for shown in self._follow(variants, inputs, run, started):
                    yield shown
        except UserError as error:
            yield _shown(run, "failed", "Not painted", error=sentence(error))
        finally:  # also when the browser has gone
            self._end(session, variants)
            if not self._store.is_open(session):  # a variant may have been done after its tab was closed
                self._store.forget(token for variant in variants if (token := variant.shown["token"]))

    def cancel(self, session: str) -> None:
        """Cancel the jobs of a session."""
        with self._lock:
            jobs = self._jobs.get(session, [])
            for job in jobs:
                job.cancel()

    def close(self, session: str) -> None:
        """Cancel the jobs of a session whose tab was closed, and delete its pictures."""
        self.cancel(session)
        self._store.close(session)

    def _read(self, request: PaintRequest) -> _Inputs:
        if not request.source.get("token"):
            raise UserError("Choose a picture first, then mark the part to repaint.")
        if not request.source.get("mask"):
            raise UserError("Mark the part of the picture to repaint, with the brush, the rectangle or the lasso.")
        if not request.exemplar.get("token"):
            raise UserError("Choose a picture of the object to paint.")
        source = self._store.get(str(request.source["token"]), HeldSource)
        exemplar = self._store.get(str(request.exemplar["token"]), HeldExemplar)
        mask = _join(request.source["mask"], source.picture.shown, "mask")
        if not mask.any():
            raise UserError("The mask marks nothing: mark the part of the picture to repaint.")
        object_mask = _join(request.exemplar["mask"], exemplar.image, "mask of the object")
        used = object_mask if object_mask.any() else None
        return _Inputs(str(request.source["page"]), source, mask, Exemplar(exemplar.image, used))

    def _submit(
        self, session: str, owner: str, variants: Sequence[_Variant], inputs: _Inputs, request: PaintRequest
    ) -> None:
        for variant in variants:
            edit = inputs.edit(variant.seed, request.options)
            job = self._dispatcher.submit(edit, request.model, owner=owner, on_preview=variant.set_preview)
            variant.job = job
            with self._lock:
                self._jobs.setdefault(session, []).append(job)

    async def _follow(
        self, variants: list[_Variant], inputs: _Inputs, run: int, started: float
    ) -> AsyncIterator[Shown]:  # fmt: skip
        height, width = inputs.mask.shape
        left, top, right, bottom = variants[0].box
        sizes: _Sizes = {"size": [width, height], "close_size": [right - left, bottom - top]}
        last: Shown = {}
        waiting = list(variants)
        while waiting:
            await asyncio.sleep(POLL_S)
            for variant in [each for each in waiting if _job(each).future.done()]:
                waiting.remove(variant)
                if _job(variant).future.cancelled():
                    yield _shown(run, "cancelled", "Cancelled", variants, **sizes)
                    return
                try:
                    await asyncio.to_thread(self._keep, variant, inputs)
                except UserError as error:
                    yield _shown(run, "failed", "Not painted", variants, error=sentence(error), **sizes)
                    return
            shown = _shown(run, "running", _progress_message(variants), variants, _progress(variants), **sizes)
            if waiting and shown != last:
                last = shown
                yield shown
        yield _shown(run, "done", _done_message(variants, time.monotonic() - started), variants, 1.0, **sizes)

    def _keep(self, variant: _Variant, inputs: _Inputs) -> None:
        """Hold the result of a job for the page; raises the error that ended the job."""
        job = _job(variant)
        edited: Edited = job.future.result()
        held = hold_variant(inputs.source, inputs.mask, edited.picture, variant.seed)
        variant.shown = {
            "seed": variant.seed,
            "token": self._store.add(inputs.page, held),
            "changed_outside": edited.num_changed_outside,
            "changed_inside": _num_changed(held),
            "outside": int(inputs.mask.size - np.count_nonzero(inputs.mask)),
            "notes": list(edited.notes),
            "facts": _facts(variant.seed, job, edited),
        }

    def _end(self, session: str, variants: Sequence[_Variant]) -> None:
        ended = _jobs(variants)
        for job in ended:
            job.cancel()
        with self._lock:
            left = [job for job in self._jobs.pop(session, []) if job not in ended]
            if left:
                self._jobs[session] = left


def failed(error: str) -> Shown:
    """Return what the page shows when painting ended with an error."""
    return _shown(next(_runs), "failed", "Not painted", error=error)


def _variants(inputs: _Inputs, request: PaintRequest) -> list[_Variant]:
    box = close_up_box(inputs.mask)
    return [_Variant(request.seed + number, box) for number in range(request.num_variants)]


def _jobs(variants: Sequence[_Variant]) -> list[Job]:
    return [variant.job for variant in variants if variant.job is not None]


def _job(variant: _Variant) -> Job:
    assert variant.job is not None
    return variant.job


def _join(strips: object, image: Image, name: str) -> Mask:
    """Return the mask (H, W) of an image from PNG strips as data URLs, from top to bottom; no strip marks nothing."""
    height, width = image.shape[:2]
    if not isinstance(strips, list) or len(strips) > MAX_STRIPS:
        raise UserError("The page sent no mask: reload the page.")
    if not strips:
        return np.zeros((height, width), np.uint8)
    decoded = [decode_mask(image_bytes(strip, name), name) for strip in strips]
    if any(strip.shape[1] != width for strip in decoded) or sum(map(len, decoded)) != height:
        raise UserError("The mask has another size than the picture: reload the page.")
    return np.concatenate(decoded)


def _num_changed(variant: HeldVariant) -> int:
    left, top, right, bottom = variant.box
    differs = variant.source.picture.pixels[top:bottom, left:right] != variant.pixels
    differs = differs.any(axis=-1) if differs.ndim == 3 else differs
    return int(np.count_nonzero(differs & (variant.mask == 1)))


def _facts(seed: int, job: Job, edited: Edited) -> dict[str, str]:
    model = job.model
    return {
        "Seed": str(seed),
        "Model": model.id + (f", version {model.version}" if model.version else ""),
        "SHA-256": edited.digest,
    }


def _progress(variants: Sequence[_Variant]) -> float:
    return sum(job.progress for job in _jobs(variants)) / len(variants)


def _progress_message(variants: Sequence[_Variant]) -> str:
    positions = [job.position for job in _jobs(variants) if job.status == "queued"]
    if len(positions) == len(variants):
        before = min(positions) - 1
        return f"Waiting for {before} other edit{'s' * (before > 1)}…" if before > 0 else "Waiting for the model…"
    return f"Painting… {100 * _progress(variants):.0f} %"


def _done_message(variants: Sequence[_Variant], seconds: float) -> str:
    count = f"{len(variants)} variants" if len(variants) > 1 else "Painted"
    return f"{count} in {seconds:.1f} s"


class _Sizes(TypedDict):
    size: Sequence[int]
    close_size: Sequence[int]


def _shown(
    run: int,
    state: str,
    message: str,
    variants: Sequence[_Variant] = (),
    progress: float = 0.0,
    *,
    error: str = "",
    size: Sequence[int] = (1, 1),
    close_size: Sequence[int] = (1, 1),
) -> Shown:
    return {
        "run": run,
        "state": state,
        "message": message,
        "error": error,
        "progress": round(progress, 3),
        "variants": [variant.show() for variant in variants],
        "size": list(size),
        "close_size": list(close_size),
    }
