"""Take docs/page.png and docs/page-phone.png: an example photograph painted on the page by the bundled painter.

python docs/page_screenshots.py [EXAMPLE]
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image as PillowImage
from playwright.sync_api import Browser, expect, sync_playwright

FOLDER = Path(__file__).parent
SIZES = {"page": (1280, 800), "page-phone": (390, 844)}
MAX_BYTES = 400_000
PAINTED_MS = 300_000


def main() -> None:
    """Serve the page, and take a picture of it at both sizes."""
    example = sys.argv[1] if len(sys.argv) > 1 else "can"
    command = [str(Path(sys.executable).with_name("pbe")), "app", "--model", "photo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found, "pbe app did not say its address"
        executable = shutil.which("chromium") or shutil.which("google-chrome")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            for name in SIZES:
                take(browser, found.group(), example, name)
        server.terminate()


def take(browser: Browser, address: str, example: str, name: str) -> None:
    """Paint an example and save a picture of the whole page, small enough for a README."""
    width, height = SIZES[name]
    page = browser.new_page(viewport={"width": width, "height": height}, is_mobile=width < 500, has_touch=width < 500)
    page.goto(address)
    page.locator(f"[data-example={example}]").click()
    expect(page.locator("[data-role=exemplar] .pbe-state")).not_to_be_empty(timeout=PAINTED_MS)
    page.get_by_label("number input for Variants").fill("3")
    page.locator("#pbe-paint").click()
    expect(page.locator(".pbe-viewer[data-state=done]")).to_be_visible(timeout=PAINTED_MS)
    page.wait_for_timeout(1_000)  # the pictures load
    file = FOLDER / f"{name}.png"
    page.screenshot(path=file, full_page=True)
    page.close()
    reduce(file)


def reduce(file: Path) -> None:
    """Make a picture narrower until its file is small enough."""
    picture = PillowImage.open(file).convert("RGB")
    width = picture.width
    while file.stat().st_size > MAX_BYTES:
        width -= 20
        size = (width, round(picture.height * width / picture.width))
        picture.resize(size, PillowImage.Resampling.LANCZOS).save(file, optimize=True)


if __name__ == "__main__":
    main()
