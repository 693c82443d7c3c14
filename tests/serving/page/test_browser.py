"""The page in headless Chromium, at the sizes of a laptop and of a phone, with a real server and the tiny painter."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from playwright.sync_api import Browser, Page, Request, expect

from pbe.serving.editor import Edit, Edited, EditOptions, Exemplar, Region, read_exemplar, read_source
from pbe.serving.page.held import HeldVariant
from pbe.serving.pictures import decode_picture, encode_png
from pbe.types import Mask
from tests.serving.page.conftest import RunningPage, wait_until

SIZES = {"laptop": (1280, 800), "phone": (390, 844)}
STEPS = 3
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
expect.set_options(timeout=15_000)


@pytest.fixture(params=SIZES)
def page(request: pytest.FixtureRequest, browser: Browser, running: RunningPage) -> Iterator[Page]:
    yield from open_page(browser, running, request.param)


@pytest.fixture
def laptop(browser: Browser, running: RunningPage) -> Iterator[Page]:
    yield from open_page(browser, running, "laptop")


def open_page(browser: Browser, running: RunningPage, size: str) -> Iterator[Page]:
    """Give an open page; at the end, check that it had no error and asked no other server."""
    width, height = SIZES[size]
    is_phone = size == "phone"
    context = browser.new_context(
        viewport={"width": width, "height": height}, is_mobile=is_phone, has_touch=is_phone, accept_downloads=True
    )
    page, errors, requests = context.new_page(), list[str](), list[Request]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request))  # playwright sets an attribute of the function
    page.set_default_timeout(10_000)
    page.goto(running.url)
    expect(page.locator("#pbe-paint")).to_be_visible()
    page.wait_for_function("() => window.pbe?.editors.exemplar")
    yield page
    context.close()
    assert errors == []
    assert [each.url for each in requests if not each.url.startswith((running.url, "data:", "blob:"))] == []


def choose(page: Page, role: str, file: Path, kind: str = "picture") -> None:
    page.locator(f"[data-role={role}] [data-file={kind}]").set_input_files(file)
    expected_text = file.name if kind == "picture" else "% marked"
    expect(page.locator(f"[data-role={role}] .pbe-state")).to_contain_text(expected_text)


def drag(page: Page, role: str, *points: tuple[float, float]) -> None:
    """Drag the mouse along points, in parts of the canvas's width and height."""
    canvas = page.locator(f"[data-role={role}] canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    for number, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    page.evaluate(TWO_FRAMES)  # the canvas draws a stroke in a frame


def tool(page: Page, name: str, role: str = "source") -> None:
    page.locator(f"[data-role={role}] [data-tool={name}]").click()


def act(page: Page, name: str, role: str = "source") -> None:
    page.locator(f"[data-role={role}] [data-do={name}]").click()


def mask_of(page: Page, role: str = "source") -> Mask:
    """Return the mask that the page would send."""
    strips = page.evaluate(f"() => window.pbe.editors.{role}.exportValue()")["mask"]
    decoded = [PillowImage.open(io.BytesIO(base64.b64decode(strip.partition(",")[2]))) for strip in strips]
    return np.concatenate([np.asarray(each.convert("L")) for each in decoded]) // 128


def set_steps(page: Page, steps: int) -> None:
    page.get_by_role("button", name="More options").click()
    field = page.get_by_label("number input for Steps")
    expect(field).to_be_visible()
    page.evaluate(TWO_FRAMES)  # the options appear with their defaults, which would replace what is typed before
    field.fill(str(steps))
    field.press("Tab")
    expect(page.get_by_label("range slider for Steps")).to_have_value(str(steps))  # Gradio knows it


def paint(page: Page, state: str = "done") -> None:
    page.locator("#pbe-paint").click()
    expect(page.locator(f".pbe-viewer[data-state={state}]")).to_be_visible()


def expected(running: RunningPage, pictures: Path, mask: Mask, seed: int = 0) -> Edited:
    """Return what the editor paints, without a page."""
    exemplar = Exemplar(read_exemplar(pictures / "e.jpg"))
    edit = Edit(read_source(pictures / "s.png"), (Region(mask, (exemplar,)),), seed, EditOptions(num_steps=STEPS))
    return running.dispatcher.models.resolve(None).editor.edit(edit)


def test_a_mask_painted_with_the_mouse_is_painted_as_the_editor_paints_it(
    page: Page, running: RunningPage, pictures: Path
) -> None:
    choose(page, "source", pictures / "s.png")
    choose(page, "exemplar", pictures / "e.jpg")
    tool(page, "rectangle")
    drag(page, "source", (0.45, 0.2), (0.6, 0.7))
    tool(page, "brush")
    drag(page, "source", (0.5, 0.6), (0.62, 0.8))
    mask = mask_of(page)
    assert mask.shape == (80, 96)
    assert 300 < mask.sum() < 4000
    set_steps(page, STEPS)
    paint(page)
    expect(page.locator(".pbe-proof")).to_contain_text("0 pixels changed outside the mask")
    with page.expect_download() as download:
        page.locator(".pbe-download").click()
    assert download.value.suggested_filename == "s-seed-0.png"
    data = Path(download.value.path()).read_bytes()
    result, source = decode_picture(data, "result"), read_source(pictures / "s.png")
    edited = expected(running, pictures, mask)
    assert data == encode_png(edited.picture)
    assert edited.digest in page.locator(".pbe-facts").inner_text()
    assert result.mode == "RGBA"
    assert result.metadata.profile == source.metadata.profile != b""
    assert np.array_equal(result.pixels[mask == 0], source.pixels[mask == 0])
    assert (result.pixels[mask == 1] != source.pixels[mask == 1]).any()
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]  # type: ignore[index]
    assert page.evaluate(CUT_OFF) == []


def test_variants_are_shown_side_by_side(laptop: Page, running: RunningPage, pictures: Path) -> None:
    choose(laptop, "source", pictures / "s.png")
    choose(laptop, "source", pictures / "m.png", "mask")
    expect(laptop.locator("[data-role=source] .pbe-state")).to_contain_text("17 % marked")
    choose(laptop, "exemplar", pictures / "e.jpg")
    set_steps(laptop, STEPS)
    laptop.get_by_label("number input for Variants").fill("3")
    laptop.get_by_label("First seed").fill("5")
    laptop.keyboard.press("Control+Enter")
    expect(laptop.locator(".pbe-viewer[data-state=done]")).to_be_visible()
    expect(laptop.locator(".pbe-variants button")).to_have_text(["Seed 5", "Seed 6", "Seed 7"])
    mask = np.asarray(PillowImage.open(pictures / "m.png")) // 255
    digests = [expected(running, pictures, mask, seed).digest for seed in (5, 6, 7)]
    assert len(set(digests)) == 3
    for number, digest in enumerate(digests, 1):
        laptop.locator(".pbe-variants button").first.press(str(number))
        expect(laptop.locator(".pbe-facts")).to_contain_text(digest)
    for mode in ("before", "after", "difference"):
        laptop.locator(f"button[data-mode={mode}]").click()
        shown = laptop.locator(".pbe-below")
        expect(shown).to_have_attribute("src", f"page/variants/{variant_token(laptop)}/{mode}?close=false")
        laptop.wait_for_function("() => document.querySelector('.pbe-below').naturalWidth === 96")
    laptop.locator("[data-do=reuse]").click()
    expect(laptop.locator("[data-role=source] .pbe-state")).to_contain_text("nothing marked yet")


def variant_token(page: Page) -> str:
    return str(page.locator(".pbe-download").get_attribute("href")).removeprefix("page/variants/")


def test_the_mask_is_undone_cleared_erased_and_inverted(laptop: Page, pictures: Path) -> None:
    choose(laptop, "source", pictures / "s.png")
    tool(laptop, "lasso")
    drag(laptop, "source", (0.4, 0.3), (0.6, 0.3), (0.6, 0.6), (0.4, 0.6))
    lasso = mask_of(laptop)
    assert lasso.any()
    act(laptop, "invert")
    assert np.array_equal(mask_of(laptop), 1 - lasso)
    act(laptop, "undo")
    tool(laptop, "rectangle")
    act(laptop, "erase")
    drag(laptop, "source", (0.3, 0.2), (0.5, 0.8))
    erased = mask_of(laptop)
    assert 0 < erased.sum() < lasso.sum()
    assert not (erased & (1 - lasso)).any()
    act(laptop, "undo")
    assert np.array_equal(mask_of(laptop), lasso)
    act(laptop, "redo")
    assert np.array_equal(mask_of(laptop), erased)
    act(laptop, "clear")
    assert not mask_of(laptop).any()
    laptop.locator("[data-role=source] canvas").press("Control+z")
    assert np.array_equal(mask_of(laptop), erased)


def test_a_mask_is_painted_with_the_keyboard(laptop: Page, pictures: Path) -> None:
    choose(laptop, "source", pictures / "s.png")
    canvas = laptop.locator("[data-role=source] canvas")
    canvas.focus()
    for key in ("r", "Space", "Shift+ArrowRight", "Shift+ArrowDown", "Shift+ArrowDown", "Space"):
        laptop.keyboard.press(key)
    mask = np.zeros((80, 96), np.uint8)
    mask[40:50, 48:53] = 1  # from the middle; a long step is a twentieth of the longer side: 4.8 px
    assert np.array_equal(mask_of(laptop), mask)


def test_zooming_changes_what_is_seen_and_not_the_mask(laptop: Page, pictures: Path) -> None:
    choose(laptop, "source", pictures / "s.png")
    choose(laptop, "source", pictures / "m.png", "mask")
    before = mask_of(laptop)
    assert np.array_equal(before, np.asarray(PillowImage.open(pictures / "m.png")) // 255)
    act(laptop, "in")
    expect(laptop.locator("[data-role=source] .pbe-percent")).to_have_text("150 %")
    tool(laptop, "move")
    drag(laptop, "source", (0.4, 0.4), (0.6, 0.6))
    assert np.array_equal(mask_of(laptop), before)


@pytest.mark.parametrize("ending", ["cancel", "closed tab"])
def test_painting_is_cancelled(browser: Browser, running: RunningPage, pictures: Path, ending: str) -> None:
    opened = open_page(browser, running, "laptop")
    page = next(opened)
    choose(page, "source", pictures / "s.png")
    choose(page, "source", pictures / "m.png", "mask")
    choose(page, "exemplar", pictures / "e.jpg")
    set_steps(page, 200)
    page.get_by_label("number input for Variants").fill("8")
    before = running.dispatcher.state.counters
    page.locator("#pbe-paint").click()
    expect(page.locator(".pbe-viewer .pbe-sub")).to_contain_text("Painting")
    if ending == "cancel":
        page.keyboard.press("Escape")
        expect(page.locator(".pbe-viewer .pbe-sub")).to_have_text("Cancelled")
        expect(page.locator("#pbe-paint")).to_be_enabled()
    next(opened, None)
    wait_until(lambda: running.dispatcher.state.queued + running.dispatcher.state.running == 0)
    after = running.dispatcher.state.counters
    assert after.cancelled > before.cancelled
    assert after.done - before.done < 8
    wait_until(lambda: running.page.store.num_bytes == 0)  # a closed tab's pictures are deleted


def test_mistakes_are_one_sentence(laptop: Page, running: RunningPage, pictures: Path, tmp_path: Path) -> None:
    viewer, error = laptop.locator(".pbe-viewer .pbe-error"), laptop.locator("[data-role=source] .pbe-error")
    paint(laptop, "failed")
    expect(viewer).to_have_text("Choose a picture first, then mark the part to repaint.")
    (tmp_path / "notes.png").write_text("no picture")
    laptop.locator("[data-role=source] [data-file=picture]").set_input_files(tmp_path / "notes.png")
    expect(error).to_contain_text("notes.png: ")
    choose(laptop, "source", pictures / "s.png")
    expect(error).to_be_hidden()
    paint(laptop, "failed")
    expect(viewer).to_contain_text("Mark the part of the picture to repaint")
    tool(laptop, "rectangle")
    drag(laptop, "source", (0.4, 0.3), (0.6, 0.6))
    laptop.locator("#pbe-paint").click()
    expect(viewer).to_have_text("Choose a picture of the object to paint.")
    laptop.get_by_role("button", name="More options").click()
    laptop.get_by_label("Context in pixels").fill("many")
    laptop.locator("#pbe-paint").click()
    expect(viewer).to_have_text("Context is many: give a whole number of pixels, or nothing.")
    laptop.locator("[data-role=source] [data-file=mask]").set_input_files(pictures / "e.jpg")
    expect(error).to_have_text("e.jpg is 40 x 30 but s.png is 96 x 80: give both the same size.")
    assert [path for path in running.uploads.rglob("*") if path.is_file()] == []


def test_only_the_marked_part_of_an_exemplar_is_used(laptop: Page, running: RunningPage, pictures: Path) -> None:
    choose(laptop, "source", pictures / "s.png")
    choose(laptop, "source", pictures / "m.png", "mask")
    choose(laptop, "exemplar", pictures / "e.jpg")
    tool(laptop, "rectangle", "exemplar")
    drag(laptop, "exemplar", (0.4, 0.2), (0.6, 0.8))
    set_steps(laptop, STEPS)
    mask = np.asarray(PillowImage.open(pictures / "m.png")) // 255
    exemplar = Exemplar(read_exemplar(pictures / "e.jpg"), mask_of(laptop, "exemplar"))
    edit = Edit(read_source(pictures / "s.png"), (Region(mask, (exemplar,)),), 0, EditOptions(num_steps=STEPS))
    digest = running.dispatcher.models.resolve(None).editor.edit(edit).digest
    assert digest != expected(running, pictures, mask).digest
    paint(laptop)
    expect(laptop.locator(".pbe-facts")).to_contain_text(digest)


def test_a_picture_that_the_server_deleted_is_sent_again(laptop: Page, running: RunningPage, pictures: Path) -> None:
    choose(laptop, "source", pictures / "s.png")
    choose(laptop, "exemplar", pictures / "e.jpg")
    tool(laptop, "rectangle")
    drag(laptop, "source", (0.45, 0.2), (0.6, 0.7))
    set_steps(laptop, STEPS)
    key = laptop.evaluate("window.pbe.key")
    running.page.store.link("a session that ends", key)
    running.page.store.close("a session that ends")
    paint(laptop)
    token = variant_token(laptop)
    assert running.page.store.get(token, HeldVariant).seed == 0


def test_everything_is_reached_with_the_tab_key(laptop: Page, pictures: Path) -> None:
    choose(laptop, "source", pictures / "s.png")
    laptop.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(45):
        laptop.keyboard.press("Tab")
        reached.append(laptop.evaluate(FOCUSED))
        if reached[-1] == "pbe-paint":
            break
    order = [reached.index(name) for name in ("can", "source canvas", "brush", "mask", "pbe-paint")]
    assert order == sorted(order)


CUT_OFF = """() => {
  const right = (each) => each.getBoundingClientRect().right;
  return [...document.querySelectorAll(".pbe-panel button, .pbe-panel a")]
    .filter((each) => each.offsetParent && right(each) > right(each.closest(".pbe-panel")))
    .map((each) => each.textContent);
}"""

FOCUSED = """() => {
  const focused = document.activeElement;
  const role = focused.closest("[data-role]")?.dataset.role;
  const { example, tool } = focused.dataset;
  return example ?? tool ?? focused.dataset.do ?? (focused.tagName === "CANVAS" ? `${role} canvas` : focused.id);
}"""
