"""The memory that an edit of a large photograph needs beside the model: reading, painting and encoding as PNG.

    .venv/bin/python benchmarks/edit_memory.py [--width 4000 --height 3000] [--num-steps 4]

A photograph of docs/examples is enlarged, and three regions of it, the largest of a third of its short side, are
painted in a new process with the bundled painter. Prints the process's resident memory with the model loaded and
warmed up, its peak during the edit above that, and the seconds of each part. Linux only.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

ROOT = Path(__file__).parents[1]
SHEET = ROOT / "docs" / "examples" / "sheet"
MIB = 1024  # KiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--num-steps", type=int, default=4)
    parser.add_argument("--edit", type=Path, help=argparse.SUPPRESS)  # the folder in the child process
    options = parser.parse_args()
    if options.edit:
        return measure(options.edit, options.num_steps)
    with tempfile.TemporaryDirectory() as folder:
        size = (options.width, options.height)
        PillowImage.open(SHEET / "source.jpg").resize(size).save(Path(folder) / "source.jpg", quality=92)
        subprocess.run([sys.executable, __file__, f"--edit={folder}", f"--num-steps={options.num_steps}"], check=True)


def measure(folder: Path, num_steps: int) -> None:
    """Edit the picture of the folder in this process, and print its memory."""
    from pbe.method.painter import Painter
    from pbe.serving.editor import Edit, EditOptions, Editor, Exemplar, Region, picture_of, read_exemplar, read_source
    from pbe.serving.pictures import encode_png

    exemplar = Exemplar(read_exemplar(SHEET / "exemplar.png"))
    editor = Editor(Painter.from_pretrained(ROOT / "data" / "photo-painter"))
    small = np.zeros((200, 200, 3), np.uint8)
    options = EditOptions(num_steps=num_steps)
    ones = np.ones((200, 200), np.uint8)
    editor.edit(Edit(picture_of(small), (Region(ones, (exemplar,)),), options=options))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = memory_kib("VmRSS")
    start = time.perf_counter()
    source = read_source(folder / "source.jpg")
    height, width = source.shown.shape[:2]
    short = min(height, width)
    regions = []
    for number, side in enumerate((short // 3, short // 12, short // 40)):
        mask = np.zeros((height, width), np.uint8)
        left = (1 + 4 * number) * width // 12
        mask[short // 8 : short // 8 + side, left : left + side] = 1
        regions.append(Region(mask, (exemplar,)))
    edit = Edit(source, tuple(regions), options=options)
    read = time.perf_counter()
    prepared = editor.prepare(edit)
    cut = time.perf_counter()
    squares = editor.paint_all(prepared)
    painted = time.perf_counter()
    edited = editor.finish(prepared, squares)
    finished = time.perf_counter()
    encode_png(edited.picture)
    encoded = time.perf_counter()
    assert edited.num_changed_outside == 0
    print(f"{width} x {height}, {len(regions)} regions: {before // MIB} MiB with the model, and at most "
          f"{(memory_kib('VmHWM') - before) // MIB} MiB more")  # fmt: skip
    print(f"seconds: read {read - start:.2f}, check and cut {cut - read:.2f}, paint {painted - cut:.2f}, "
          f"put back and compare {finished - painted:.2f}, PNG {encoded - finished:.2f}")  # fmt: skip


def memory_kib(name: str) -> int:
    """Return a value of this process's status in KiB."""
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(name))
    return int(line.split()[1])


if __name__ == "__main__":
    main()
