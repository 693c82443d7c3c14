"""Random and damaged inputs of an edit: each is edited or is a UserError of one line, and nothing unmasked changes.

    .venv/bin/python benchmarks/fuzz_edit.py                  # 2,000 edits, at most 10 minutes
    .venv/bin/python benchmarks/fuzz_edit.py --num 200 --seed 7

The seed is printed, so that a run can be repeated. Prints how many were edited, the errors by kind, and the peak
memory. Exits with 1 at the first traceback, warning or changed pixel.
"""

import argparse
import random
import re
import resource
import secrets
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from fuzz_edit_inputs import check_edit

_MAX_GROWTH_BYTES = 1 << 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--seconds", type=float, default=600.0, help="the run ends after as many")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    before, start = _peak_bytes(), time.monotonic()
    results = Counter[str]()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(options.num):
            if time.monotonic() - start > options.seconds:
                break
            with ExitStack() as on_error:
                on_error.callback(print, f"input {number} of seed {options.seed}", file=sys.stderr)
                message = check_edit(random.Random(f"{options.seed} {number}"), Path(folder) / "out")
                on_error.pop_all()
            assert "\n" not in message, message
            results[re.sub(r"\d+", "N", message)[:70]] += 1
    growth = _peak_bytes() - before
    for message, count in results.most_common():
        print(f"{count:6} {message}")
    print(f"{results.total()} inputs in {time.monotonic() - start:.0f} s, peak memory {growth / 2**20:.0f} MiB more")
    if growth > _MAX_GROWTH_BYTES:
        raise SystemExit("error: memory is not bounded")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
