"""Server-sent events of an edit, as OpenAI's: `image_edit.partial_image`, then `image_edit.completed`."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from anyio import CapacityLimiter, to_thread

from pbe.serving.service.edit_tasks import EditTask
from pbe.serving.service.openai_errors import ServiceError
from pbe.serving.service.replies import EncodedEdit, base64_of, described, encode_preview, json_bytes
from pbe.types import Image

ALIVE_S = 15.0  # between comments that keep the connection open while nothing happens


class Previews:
    """The previews of one edit, from the painting's thread to the event loop; one at a time waits to be sent."""

    def __init__(self, num_wanted: int) -> None:
        self.num_wanted = num_wanted
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Image | None] = asyncio.Queue()

    def offer(self, image: Image) -> None:
        """Take a preview (H, W, 3), from any thread; it is dropped while another one waits."""
        self._loop.call_soon_threadsafe(self._put, image)

    def _put(self, image: Image) -> None:
        if self._queue.empty():
            self._queue.put_nowait(image)

    def end(self) -> None:
        """Say that no further preview comes."""
        self._queue.put_nowait(None)

    async def next(self) -> Image | None:
        """Wait for the next preview; None after the last."""
        return await self._queue.get()


async def edit_events(
    task: EditTask, previews: Previews, timeout_s: float, encoders: CapacityLimiter
) -> AsyncIterator[bytes]:
    """Yield the events of an edit until it is done or has failed; when this is cancelled, so is the edit."""
    working = asyncio.create_task(task.result(timeout_s, encoders))
    working.add_done_callback(lambda _: previews.end())
    try:
        async for event in _partial_images(task, previews, encoders):
            yield event
        yield await _last_event(task, working)
    finally:
        working.cancel()


async def _partial_images(task: EditTask, previews: Previews, encoders: CapacityLimiter) -> AsyncIterator[bytes]:
    """Yield the wanted number of previews, evenly over the sampling, and a comment where nothing happens for long."""
    number = 0
    while True:
        try:
            image = await asyncio.wait_for(previews.next(), ALIVE_S)
        except TimeoutError:
            yield b": waiting\n\n"
            continue
        if image is None:
            return
        if number < previews.num_wanted and task.progress >= (number + 1) / (previews.num_wanted + 1):
            text = await to_thread.run_sync(encode_preview, image, task.out_format, limiter=encoders)
            size = f"{image.shape[1]}x{image.shape[0]}"
            yield _event("image_edit.partial_image", {"partial_image_index": number, **_shown(text, size, task)})
            number += 1


async def _last_event(task: EditTask, working: "asyncio.Task[EncodedEdit]") -> bytes:
    try:
        encoded = await working
    except ServiceError as error:
        return _event("error", error.body)
    picture = encoded.pictures[0]
    text = await to_thread.run_sync(base64_of, picture.data)
    details = {"seed": picture.seed, "digest": picture.digest, "changed_outside_mask": picture.num_changed_outside}
    return _event("image_edit.completed", {**_shown(text, picture.size, task), **described(encoded), **details})


def _shown(text: str, size: str, task: EditTask) -> dict[str, Any]:
    return {
        "b64_json": text,
        "created_at": int(time.time()),
        "size": size,
        "quality": "auto",
        "background": "auto",
        "output_format": task.out_format.lower(),
    }


def _event(kind: str, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: ".encode() + json_bytes({"type": kind, **data}) + b"\n\n"
