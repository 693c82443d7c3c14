"""Time of each phase of curation on photographs that are frames of clips, and how many images and boxes are left.

    .venv/bin/python benchmarks/curate_clips.py FOLDER [--group-file scenes.csv --group-column scene] [--max-aspect 8]

FOLDER holds Pascal VOC's layout, such as FOD-A's (pixels counted from --voc-origin). The script acquires and filters it
into a temporary folder, then curates it twice in the same process: near duplicates within a group, and among all
images. Each run prints the CPU seconds of each phase, which other work on the machine hardly changes, and the counts by
reason; nothing is asserted.
"""

import argparse
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from pbe.acquisition.download import acquire
from pbe.curation.examination import in_threads
from pbe.curation.selection import PHASES, CurationReport, curate
from pbe.filtering.box_filter import filter_boxes
from pbe.method.conditioner import Conditioner
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.mongod import running_mongod
from pbe.settings import Curate, load_settings
from pbe.types import Progress, no_progress

ROOT = Path(__file__).parents[1]
SETTINGS = load_settings(ROOT / "params.yaml")


def timed_curation(folder: Path, settings: Curate, uri: str, tower: Conditioner) -> tuple[list[float], CurationReport]:
    """Curate `folder`/raw and `folder`/boxes; return the CPU seconds of each phase and the counts."""
    started: list[float] = []

    def start_phase(_: str) -> Progress:
        started.append(time.process_time())
        return no_progress

    report = curate(
        folder / "raw",
        folder / "boxes/boxes.parquet",
        folder / "curated",
        settings,
        in_threads(tower.embed, len(os.sched_getaffinity(0))),
        database_uri=uri,
        home=folder / ".fiftyone",
        dataset="clips",
        embed_px=tower.exemplar_px,
        bars=start_phase,
    )
    started.append(time.process_time())
    return [end - start for start, end in pairwise(started)], report


def print_result(name: str, seconds: list[float], report: CurationReport) -> None:
    phases = ", ".join(f"{phase} {took:.1f} s" for phase, took in zip(PHASES, seconds, strict=True))
    print(f"{name}: {sum(seconds):.1f} s: {phases}")
    for split, counts in report.images.items():
        shown = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
        print(f"    {split}: images {shown}; {report.boxes[split]} boxes kept", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--voc-origin", type=int, default=1, choices=(0, 1))
    parser.add_argument("--group-file")
    parser.add_argument("--group-column", default="group")
    parser.add_argument("--max-aspect", type=float, default=SETTINGS.filter.max_aspect)
    parser.add_argument("--max-brightness", type=float, default=SETTINGS.curate.max_brightness)
    parser.add_argument("--tower", type=Path, default=ROOT / "data/tiny/image_encoder")
    options = parser.parse_args()
    source = SETTINGS.acquire.replace(
        source="voc",
        root=str(options.folder),
        voc_origin=options.voc_origin,
        group_file=options.group_file,
        group_column=options.group_column,
    )
    tower = Conditioner.from_tower(options.tower, context_dim=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.process_time()
        acquire(source, SETTINGS.seed, folder / "raw")
        rules = SETTINGS.filter.replace(max_aspect=options.max_aspect)
        filtered = filter_boxes(folder / "raw", folder / "boxes", rules, SETTINGS.seed)
        print(f"acquired and filtered in {time.process_time() - started:.1f} s: {filtered.as_dict()}", flush=True)
        home = folder / ".fiftyone"
        with running_mongod(home) as uri, connected_fiftyone(uri, home):  # its imports take seconds, not counted
            for group_by in ("group", None):
                settings = SETTINGS.curate.replace(group_by=group_by, max_brightness=options.max_brightness)
                print_result(f"group_by {group_by or 'null'}", *timed_curation(folder, settings, uri, tower))


if __name__ == "__main__":
    main()
