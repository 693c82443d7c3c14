"""Three edits of 12-megapixel photographs through command, Python, HTTP and page: the same bits, and the memory.

    .venv/bin/python benchmarks/same_bits.py [--model photo] [--size 4000x3000] [--num-steps 16]

The sources are those of docs/examples, enlarged; the page is opened in headless Chromium. Prints the digest of each
edit through each of the four, the pixels that changed outside the mask, and the largest resident memory of Python's
editor above that of the loaded model. The exit code is 1 when two digests differ or a pixel outside changed.
"""

import argparse
import base64
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw
from playwright.sync_api import sync_playwright
from running_pbe import PBE, PROJECT, running_pbe

from pbe.serving.editor import (
    Edit,
    Edited,
    EditOptions,
    Editor,
    Exemplar,
    Region,
    picture_of,
    read_exemplar,
    read_mask,
    read_source,
)

EXAMPLES = {"can": 1, "pliers": 2, "sheet": 3}  # the number of masked regions
CHROMIUM = ("/usr/bin/chromium", "/usr/bin/google-chrome")
TIMEOUT_MS = 600_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="photo")
    parser.add_argument("--size", default="4000x3000", metavar="WxH")
    parser.add_argument("--num-steps", type=int, default=16)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the page is stopped
    faults = 0
    with (
        tempfile.TemporaryDirectory() as name,
        running_pbe(Path(name) / "app.log", "app", "--model", options.model) as (url, _),
    ):
        for example, num_regions in EXAMPLES.items():
            folder = prepare(Path(name) / example, example, (width, height), num_regions)
            digests = {"command": by_command(folder, options), "HTTP": by_http(folder, url, options)}
            digests["page"] = by_page(folder, url, options)
            digests["Python"], changed, above_mb = by_python(folder, options)
            same = len(set(digests.values())) == 1
            faults += not same or changed > 0
            print(f"{example}, {num_regions} regions: {'the same bits' if same else 'DIFFERENT BITS'}, "
                  f"{changed} pixels changed outside, {above_mb:.0f} MB above the model")  # fmt: skip
            for through, digest in digests.items():
                print(f"  {through:8s} {digest}", flush=True)
    return int(faults > 0)


def prepare(folder: Path, example: str, size: tuple[int, int], num_regions: int) -> Path:
    """Write source.jpg, mask.png and exemplar.png of an example, enlarged to a size."""
    folder.mkdir()
    given = PROJECT / "docs/examples" / example
    with PillowImage.open(given / "source.jpg") as source:
        source.convert("RGB").resize(size).save(folder / "source.jpg", quality=92)
    mask = PillowImage.new("L", size)
    for number in range(num_regions):
        left, top = (number + 1) * size[0] // 5, (number + 1) * size[1] // 5
        ImageDraw.Draw(mask).rectangle((left, top, left + size[0] // 12, top + size[1] // 9), fill=255)
    mask.save(folder / "mask.png")
    (folder / "exemplar.png").write_bytes((given / "exemplar.png").read_bytes())
    return folder


def by_command(folder: Path, options: argparse.Namespace) -> str:
    command = [PBE, "edit", "--json", "--model", options.model, "--num-steps", str(options.num_steps), "--out",
               folder / "command.png", *(f"--{name}={folder / file}" for name, file in
               (("source", "source.jpg"), ("mask", "mask.png"), ("exemplar", "exemplar.png")))]  # fmt: skip
    printed = subprocess.run(command, cwd=PROJECT, check=True, text=True, stdout=subprocess.PIPE).stdout
    return str(json.loads(next(line for line in printed.splitlines() if line.startswith("{")))["digest"])


def by_http(folder: Path, url: str, options: argparse.Namespace) -> str:
    files = [("image[]", (name, (folder / name).read_bytes())) for name in ("source.jpg", "exemplar.png")]
    files.append(("mask", ("mask.png", (folder / "mask.png").read_bytes())))
    fields = {"num_steps": str(options.num_steps)}
    answer = httpx.post(f"{url}/v1/images/edits", files=files, data=fields, timeout=600).raise_for_status().json()
    picture = PillowImage.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"])))
    return picture_digest(np.asarray(picture.convert("RGB")))


def by_page(folder: Path, url: str, options: argparse.Namespace) -> str:
    """Choose the files in the page, paint, and return the digest of the picture that it offers for download."""
    binary = next((path for path in CHROMIUM if Path(path).exists()), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(url)
        page.wait_for_function("() => window.pbe?.editors.exemplar")
        page.locator("[data-role=source] [data-file=picture]").set_input_files(folder / "source.jpg")
        page.locator("[data-role=source] .pbe-state").get_by_text("source.jpg").wait_for()
        page.locator("[data-role=source] [data-file=mask]").set_input_files(folder / "mask.png")
        page.locator("[data-role=source] .pbe-state").get_by_text("% marked").wait_for()
        page.locator("[data-role=exemplar] [data-file=picture]").set_input_files(folder / "exemplar.png")
        page.locator("[data-role=exemplar] .pbe-state").get_by_text("exemplar.png").wait_for()
        page.get_by_role("button", name="More options").click()
        page.get_by_label("number input for Steps").fill(str(options.num_steps))
        page.get_by_label("number input for Steps").press("Tab")
        page.locator("#pbe-paint").click()
        page.locator(".pbe-viewer[data-state=done]").wait_for()
        with page.expect_download() as download:
            page.locator(".pbe-download").click()
        with PillowImage.open(download.value.path()) as picture:
            digest = picture_digest(np.asarray(picture.convert("RGB")))
        browser.close()
    return digest


def by_python(folder: Path, options: argparse.Namespace) -> tuple[str, int, float]:
    """Return the digest, the pixels that changed outside the mask, and MB above the model, from another process."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        edited, above_mb = edit(folder, options)
        os.write(writer, json.dumps([edited.digest, edited.num_changed_outside, above_mb]).encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    digest, changed, above_mb = json.loads(os.read(reader, 10_000))
    return digest, changed, above_mb


def edit(folder: Path, options: argparse.Namespace) -> tuple[Edited, float]:
    from pbe.serving.commands.flags import ModelFlags
    from pbe.serving.commands.loading import load_placed
    from pbe.serving.commands.model_choice import named_model

    painter = load_placed(named_model(options.model).folder, ModelFlags())
    with_model = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    region = Region(read_mask(folder / "mask.png"), (Exemplar(read_exemplar(folder / "exemplar.png")),))
    edited = Editor(painter).edit(
        Edit(read_source(folder / "source.jpg"), (region,), 0, EditOptions(num_steps=options.num_steps))
    )
    return edited, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - with_model) / 1024


def picture_digest(pixels: np.ndarray) -> str:
    return Edited(picture_of(pixels), (), 0).digest


if __name__ == "__main__":
    sys.exit(main())
