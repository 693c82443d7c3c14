"""Damaged sets of own data, imported: each is read or is a UserError of one line, and no image is lost silently.

    .venv/bin/python benchmarks/fuzz_readers.py                  # 2,000 sets, at most 10 minutes
    .venv/bin/python benchmarks/fuzz_readers.py --num 200 --seed 7 --source yolo

Hypothesis draws the damage from the seed that is printed, so that a run can be repeated. Prints how many sets were
imported and which errors there were, and the peak memory. Exits with 1 at the first traceback or lost image.
"""

import argparse
import random
import resource
import secrets
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import hypothesis
from fuzz_damage import check, damage
from fuzz_sets import FORMATS
from hypothesis import HealthCheck, Phase, strategies

_MAX_GROWTH_BYTES = 1 << 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--num", type=int, default=2000, help="sets to import, shared by the formats")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--source", choices=sorted(FORMATS), action="append", help="formats to damage; all by default")
    parser.add_argument("--seconds", type=float, default=600.0, help="the run ends after as many")
    args = parser.parse_args()
    print(f"seed {args.seed}")
    sources = args.source or sorted(FORMATS)
    before, start = _peak_bytes(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = Counter[str]()
        for source in sources:
            deadline = start + args.seconds * (sources.index(source) + 1) / len(sources)
            found = fuzz(source, Path(folder) / source, args.num // len(sources), args.seed, deadline)
            results.update(found)
            print(f"{source}: {found.total()} sets, {found['imported']} imported, {len(found) - 1} different errors")
    growth = _peak_bytes() - before
    print(f"{results.total()} sets in {time.monotonic() - start:.0f} s, peak memory {growth / 2**20:.0f} MiB more")
    if growth > _MAX_GROWTH_BYTES:
        raise SystemExit("error: memory is not bounded")


def fuzz(source: str, folder: Path, num: int, seed: int, deadline: float = float("inf")) -> Counter[str]:
    """Import `num` damaged sets of a format, and return how many ended in each way."""
    results = Counter[str]()
    folder.mkdir(parents=True)
    FORMATS[source].build(folder / "valid")
    assert check(source, folder / "valid", folder / "out-valid") == "imported"

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=num, deadline=None, database=None, phases=[Phase.generate],
                         suppress_health_check=list(HealthCheck))  # fmt: skip
    @hypothesis.given(strategies.integers(0, 2**64 - 1))
    def import_damaged(number: int) -> None:
        if time.monotonic() > deadline:
            return
        rng, root = random.Random(number), folder / "set"
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(folder / "out", ignore_errors=True)
        shutil.copytree(folder / "valid", root)
        done = [damage(root, rng) for _ in range(rng.choice((1, 1, 2, 3)))]
        hypothesis.note(f"{source}: {'; '.join(done)}")
        results[_kind(check(source, root, folder / "out"))] += 1

    import_damaged()
    return results


def _kind(message: str) -> str:
    """Return a message without the numbers and names that differ between sets."""
    return "".join("#" if character.isdigit() else character for character in message.rsplit("/", 1)[-1])[:80]


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
