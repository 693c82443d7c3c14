"""What `pbe edit` costs beside the painting itself, against `import torch`, and what help costs.

    .venv/bin/python benchmarks/start_up.py [--model MODEL_FOLDER] [--repeat 5]

Every number is the least processor time of several processes, in seconds (user and system, of all threads): other
programs on the machine hardly change it. The edit is docs/examples/can, by default with the bundled painter.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CAN = ROOT / "docs/examples/can"
LIMITS = {"help": 0.5, "edit": 2.5}

EDIT = """
import sys, time
from pbe.serving.commands import main, variants

paint, painting_s = variants.paint_variants, []

def timed(*arguments):
    started = time.process_time()
    results = list(paint(*arguments))
    painting_s.append(time.process_time() - started)
    return results

from pbe.serving.commands import edit
edit.paint_variants = timed
code = main.main(sys.argv[1:])
print("painting", sum(painting_s), file=sys.stderr)
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="photo", metavar="FOLDER")
    parser.add_argument("--repeat", type=int, default=5, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = [f"--{name}={CAN / file}" for name, file in
                  (("source", "source.jpg"), ("mask", "mask.png"), ("exemplar", "exemplar.png"))]  # fmt: skip
        edit = ["-c", EDIT, "edit", *images, f"--out={folder}/can.png", f"--model={options.model}", "--device=cpu"]
        module = ["-m", "pbe.serving.commands.main"]
        python, torch = (least_s(["-c", code], options.repeat) for code in ("pass", "import torch"))
        help_s, edit_help_s = (least_s([*module, *words, "--help"], options.repeat) for words in ([], ["edit"]))
        beside = min(processor_s(edit) for _ in range(options.repeat))
    print(f"python {python:.2f} s, pbe --help {help_s:.2f} s, pbe edit --help {edit_help_s:.2f} s "
          f"(at most {LIMITS['help']}), import torch {torch:.2f} s")  # fmt: skip
    print(f"pbe edit beside the painting {beside:.2f} s: {beside / torch:.2f} times import torch "
          f"(at most {LIMITS['edit']})")  # fmt: skip


def least_s(arguments: list[str], repeat: int) -> float:
    return min(processor_s(arguments) for _ in range(repeat))


def processor_s(arguments: list[str]) -> float:
    """Return the processor time of a Python process, without the painting that it reports."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    painting = sum(float(line.split()[1]) for line in ended.stderr.splitlines() if line.startswith("painting "))
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - painting


if __name__ == "__main__":
    main()
