"""Painting for a page, without a browser."""

import asyncio
import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from pbe.serving.editor import EditOptions, read_exemplar, read_source
from pbe.serving.page.held import HeldExemplar, HeldSource, HeldVariant
from pbe.serving.page.painting import PaintRequest
from pbe.types import Mask
from tests.serving.page.conftest import RunningPage


def strip(mask: Mask) -> str:
    """Return a mask as the browser sends it."""
    stream = io.BytesIO()
    PillowImage.fromarray(mask * np.uint8(255)).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


@pytest.fixture
def mask(pictures: Path) -> Mask:
    return np.asarray(PillowImage.open(pictures / "m.png")) // 255


@pytest.fixture
def request_(running: RunningPage, pictures: Path, mask: Mask) -> PaintRequest:
    store = running.page.store
    source = store.add("key", HeldSource(read_source(pictures / "s.png"), "s.png"))
    exemplar = store.add("key", HeldExemplar(read_exemplar(pictures / "e.jpg"), "e.jpg"))
    return PaintRequest(
        {"page": "key", "token": source, "mask": [strip(mask[:50]), strip(mask[50:])]},
        {"page": "key", "token": exemplar, "mask": []},
        model=None,
        num_variants=2,
        seed=3,
        options=EditOptions(num_steps=2),
    )


def paint(running: RunningPage, request: PaintRequest, session: str = "session") -> list[dict[str, Any]]:
    async def collect() -> list[dict[str, Any]]:
        return [shown async for shown in running.page.painter.paint(session, None, request)]

    return asyncio.run(collect())


def test_variants_are_held_for_the_page(running: RunningPage, request_: PaintRequest, mask: Mask) -> None:
    shown = paint(running, request_)
    assert [shown[0]["state"], shown[-1]["state"]] == ["running", "done"]
    first, second = shown[-1]["variants"]
    assert [first["seed"], second["seed"]] == [3, 4]
    assert first["changed_outside"] == 0
    assert 0 < first["changed_inside"] <= mask.sum()
    assert first["outside"] == mask.size - mask.sum()
    held = running.page.store.get(first["token"], HeldVariant)
    assert np.array_equal(held.whole_mask, mask)
    assert first["facts"]["SHA-256"] != second["facts"]["SHA-256"]


NOTHING, OTHER_SIZE, NARROW = np.zeros((80, 96), np.uint8), np.ones((79, 96), np.uint8), np.ones((80, 95), np.uint8)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ({"token": None}, "Choose a picture first, then mark the part to repaint."),
        ({"token": "x" * 22}, "The server no longer holds this picture: drop it on the page again."),
        ({"mask": []}, "Mark the part of the picture to repaint, with the brush, the rectangle or the lasso."),
        ({"mask": [strip(NOTHING)]}, "The mask marks nothing: mark the part of the picture to repaint."),
        ({"mask": [strip(OTHER_SIZE)]}, "The mask has another size than the picture: reload the page."),
        ({"mask": [strip(NARROW)]}, "The mask has another size than the picture: reload the page."),
        ({"mask": "text"}, "The page sent no mask: reload the page."),
        ({"mask": [3]}, "Mask: is int; send the bytes of a PNG or JPEG file, or their base64."),
        ({"mask": ["data:image/png;base64,AAAA"]}, "Mask: "),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_painted_is_one_sentence(
    running: RunningPage, request_: PaintRequest, source: dict[str, Any], error: str
) -> None:
    shown = paint(running, replace(request_, source={**request_.source, **source}))[-1]
    assert shown["state"] == "failed"
    assert shown["error"].lower().startswith(error.lower())
    assert "\n" not in shown["error"]


def test_an_option_out_of_range_is_one_sentence(running: RunningPage, request_: PaintRequest) -> None:
    shown = paint(running, replace(request_, options=EditOptions(num_steps=5000)))[-1]
    assert shown["error"] == "Number of steps is 5000: give a whole number from 1 to 1000."
    assert running.dispatcher.state.queued + running.dispatcher.state.running == 0


def test_a_variant_of_a_closed_tab_is_not_held(running: RunningPage, request_: PaintRequest) -> None:
    async def close_at_the_end() -> list[str]:
        tokens: list[str] = []
        async for shown in running.page.painter.paint("closing", None, request_):
            tokens += [each["token"] for each in shown["variants"] if each["token"]]
            if shown["state"] == "done":
                running.page.store._pages.pop("closing")
        return tokens

    tokens = asyncio.run(close_at_the_end())
    assert tokens
    assert not any(running.page.store.holds(token) for token in tokens)
