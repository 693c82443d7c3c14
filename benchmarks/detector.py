"""Does a detector find more when pictures that the painter made are added to its few real ones?

    .venv/bin/python benchmarks/detector.py --fod-a FOLDER --model MODEL_FOLDER [--work reports/detector]

An inspector has five clips of each kind of object on pavement, and a painter. `pbe batch` paints ten pictures for each
real one: its object on the pavement of the other real pictures. A detector, a linear layer on frozen features
(`detector_head`), is trained on the real pictures alone and with the painted ones, and looks for the objects in clips
that it has not seen (`detector_data`); the other arms are in ARMS. Every arm but the first is trained for the same
number of steps; where there are extra pictures, half of what a step sees is real.

Writes docs/detector.json, docs/detector.md, and two figures. --work keeps the painted pictures and the features, so
that a run that was stopped continues.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detector_data import (
    HELD_BACK_PER_CLIP,
    PAINTED_PER_FRAME,
    Clip,
    Example,
    Pasting,
    augmented,
    draw_folds,
    image_sides,
    plan_pastings,
    read_clips,
    tight_crop,
)
from detector_head import (
    FeatureGrid,
    Features,
    Head,
    TrainingSet,
    cached_features,
    detect,
    train_head,
    training_set,
)
from detector_metrics import LEAST_IOU, Detections, centre_is_in, compare, iou
from detector_report import write_figures, write_page
from numpy.typing import NDArray
from PIL import Image as PillowImage
from sizes import machine

from pbe.dataset.images import read_image
from pbe.errors import UserError
from pbe.evaluation.baselines.pasting import copy_paste
from pbe.runtime.files import digest_folder, read_json, write_json, write_text
from pbe.serving.batch.rows import box_to_mask
from pbe.serving.commands.main import main as pbe
from pbe.serving.commands.progress import progress_bar
from pbe.settings import load_settings
from pbe.types import Box

ROOT = Path(__file__).parents[1]
ARMS = {
    "real": "real pictures",
    "longer": "real pictures, trained as long as those below",
    "augmented": "and 10 times as many augmented: mirrored, turned, cut closer, lighter or darker",
    "pasted": "and 10 times as many with the object pasted into another picture",
    "painted": "and 10 times as many painted",
    "frames": "11 real frames of each clip instead of one",
}
REFERENCE = "painted"


@dataclass(frozen=True)
class Pool:
    """Pictures with their features; `folds` says from which fold's clips a picture is made."""

    examples: Sequence[Example]
    folds: Sequence[int]
    features: Features


def main() -> None:
    options = parse()
    started = time.perf_counter()
    torch.set_num_threads(options.threads)
    clips = read_clips(options.fod_a)
    labels = sorted({clip.label for clip in clips})
    folds = draw_folds(clips, np.random.default_rng(options.seed))
    pools, pastings, painting_s = make_pools(options, folds)
    held_back, tests = test_pool(options, clips)
    arms = {name: [] for name in ARMS}  # type: dict[str, list[Detections]]
    heads: dict[str, Head] = {}
    with progress_bar("training", len(folds) * len(ARMS), "head") as progress:
        for run in range(len(folds)):
            trained = {id(clip) for fold, of_fold in enumerate(folds) for clip, _ in of_fold if fold != run}
            is_test = np.array([id(held_back[clip]) not in trained for clip in tests.folds])
            for arm in ARMS:
                head = train_arm(arm, run, pools, labels, options)
                arms[arm].append(detections(head, tests, np.flatnonzero(is_test), labels))
                if run == 0:
                    heads[arm] = head
                progress(run * len(ARMS) + list(ARMS).index(arm) + 1, len(folds) * len(ARMS))
    unseen = np.array([clip.unseen for clip in held_back])
    groups = {"unseen": unseen, "held_back": np.ones(len(unseen), bool)}
    results = {
        name: compare(arms, REFERENCE, which, options.draws, np.random.default_rng(options.seed))
        for name, which in groups.items()
    }
    report = describe(options, clips, folds, labels, pastings, results, arms, held_back, painting_s)
    report["seconds"] = round(time.perf_counter() - started)
    write_json(options.out / "detector.json", report)
    shown = [(clip, n) for n, clip in enumerate(held_back) if clip.unseen]
    write_figures(options.out, report, pastings, painted_folder(options), options.work / "pasted",
                  examples_of(shown, tests, heads, labels))  # fmt: skip
    write_page(options.out / "detector.md", report)
    print((options.out / "detector.md").read_text())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fod-a", type=Path, required=True, metavar="FOLDER", help="FOD-A with scenes.csv")
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the painter")
    parser.add_argument("--work", type=Path, default=ROOT / "reports" / "detector", metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", metavar="FOLDER")
    parser.add_argument("--num-steps", type=int, default=8, help="sampling steps (default: 8)")
    parser.add_argument("--guidance-scale", type=float, default=5.0)
    parser.add_argument("--epochs-steps", type=int, default=100, help="training steps of the first arm (default: 100)")
    parser.add_argument("--per-frame", type=int, default=PAINTED_PER_FRAME, help="pictures made for each real one")
    parser.add_argument("--draws", type=int, default=2000, help="of the bootstrap (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def make_pools(
    options: argparse.Namespace, folds: Sequence[Sequence[tuple[Clip, Example]]]
) -> tuple[dict[str, Pool], list[Pasting], float]:
    """Return the pictures of each arm, all made here but the real ones, and how long painting took."""
    work = options.work
    pad_frac = load_settings(ROOT / "params.yaml").method.exemplar.pad_frac
    rng = np.random.default_rng(options.seed)
    pastings = plan_pastings(folds, work / "exemplars", pad_frac, options.per_frame, rng)
    painted, painting_s = paint(options, pastings)
    known = [(fold, frame) for fold, of_fold in enumerate(folds) for _, frame in of_fold]
    made: dict[str, tuple[list[Example], list[int]]] = {
        "real": ([frame for _, frame in known], [fold for fold, _ in known]),
        "frames": (
            [frame for of_fold in folds for clip, _ in of_fold for frame in clip.spread(options.per_frame + 1)],
            [n for n, of_fold in enumerate(folds) for clip, _ in of_fold for _ in clip.spread(options.per_frame + 1)],
        ),
        "painted": (painted, [pasting.fold for pasting in pastings]),
        "pasted": ([paste(work / "pasted", each) for each in pastings], [pasting.fold for pasting in pastings]),
        "augmented": (
            [augment(work / "augmented", n, frame, rng) for _, frame in known for n in range(options.per_frame)],
            [fold for fold, _ in known for _ in range(options.per_frame)],
        ),
    }
    grid = FeatureGrid()
    pools = {}
    for name, (examples, of_fold) in made.items():
        cache = work / "features" / f"{painted_folder(options).name if name == 'painted' else name}.npz"
        images = [example.image for example in examples]
        with progress_bar(f"features of {name}", len(images), "picture") as progress:
            pools[name] = Pool(examples, of_fold, cached_features(cache, images, grid, progress))
    return pools, pastings, painting_s


def painted_folder(options: argparse.Namespace) -> Path:
    """Return where this model's pictures are: each model has its own folder."""
    digest = digest_folder(options.model)[:8]
    return Path(options.work / f"painted-{digest}-{options.num_steps}-{options.guidance_scale:g}")


def paint(options: argparse.Namespace, pastings: Sequence[Pasting]) -> tuple[list[Example], float]:
    """Paint all pictures by `pbe batch`; raises UserError unless it has painted every one."""
    rows, out = options.work / "rows.jsonl", painted_folder(options)
    write_text(rows, "".join(json.dumps(batch_row(each)) + "\n" for each in pastings))
    started = time.perf_counter()
    arguments = ["--rows", rows, "--out", out, "--model", options.model, "--num-steps", options.num_steps]
    if code := pbe(["batch", *map(str, arguments), "--guidance-scale", str(options.guidance_scale)]):
        raise SystemExit(code)
    seconds = time.perf_counter() - started
    examples = painted_examples(out)
    if len(examples) != len(pastings):
        raise UserError(f"{out}: has {len(examples)} boxes, not {len(pastings)}")
    return examples, seconds


def batch_row(pasting: Pasting) -> dict[str, Any]:
    return {
        "name": pasting.name,
        "source": str(pasting.source.image.resolve()),
        "box": pasting.box,
        "exemplar": str(pasting.exemplar.resolve()),
        "label": pasting.frame.label,
        "seed": pasting.seed,
        "others": [{"label": label, "box": box} for label, box in pasting.others],
    }


def painted_examples(folder: Path) -> list[Example]:
    """Return the painted pictures with the boxes of their COCO file."""
    coco = read_json(folder / "annotations" / "instances_train.json")
    names = {row["id"]: row["name"] for row in coco["categories"]}
    boxes: dict[int, dict[bool, list[tuple[str, Box]]]] = defaultdict(lambda: {True: [], False: []})
    for row in coco["annotations"]:
        x, y, width, height = row["bbox"]
        box = x, y, x + width, y + height
        boxes[row["image_id"]][row["painted"]].append((names[row["category_id"]], box))
    examples = []
    for image in coco["images"]:
        ((label, box),) = boxes[image["id"]][True]
        examples.append(Example(folder / image["file_name"], label, box, tuple(boxes[image["id"]][False])))
    return examples


def paste(folder: Path, pasting: Pasting) -> Example:
    """Write the source with the object's own box stretched into the painted box, as a copy and paste."""
    source = read_image(pasting.source.image)
    mask = box_to_mask(pasting.box, *source.shape[:2])
    result = copy_paste(source, mask, tight_crop(pasting.frame), np.random.default_rng(0))
    path = folder / f"{pasting.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(result).save(path)
    return Example(path, pasting.frame.label, pasting.box, pasting.others)


def augment(folder: Path, number: int, frame: Example, rng: np.random.Generator) -> Example:
    image, box = augmented(read_image(frame.image), frame.box, rng)
    path = folder / f"{frame.image.stem}-{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(image).save(path)
    return Example(path, frame.label, box)


def test_pool(options: argparse.Namespace, clips: Sequence[Clip]) -> tuple[list[Clip], Pool]:
    """Return the clips, and frames of every one: a run takes those of the clips that it does not train on.

    The pool's `folds` are the numbers of the clips.
    """
    frames = [(n, frame) for n, clip in enumerate(clips) for frame in clip.spread(HELD_BACK_PER_CLIP)]
    images = [frame.image for _, frame in frames]
    with progress_bar("features of held-back clips", len(images), "picture") as progress:
        features = cached_features(options.work / "features" / "held_back.npz", images, FeatureGrid(), progress)
    return list(clips), Pool([frame for _, frame in frames], [n for n, _ in frames], features)


def train_arm(
    arm: str, run: int, pools: Mapping[str, Pool], labels: Sequence[str], options: argparse.Namespace
) -> Head:
    """Train a head on the pictures of an arm of all folds but `run`."""
    sets = {name: training_of(pools[name], run, labels) for name in {"real", arm} & set(pools)}
    long = options.epochs_steps * (options.per_frame + 1)
    num_steps = options.epochs_steps if arm == "real" else long
    base = sets["frames"] if arm == "frames" else sets["real"]
    extra = sets[arm] if arm in ("augmented", "pasted", "painted") else None
    return train_head(base, extra, len(labels), num_steps, options.seed + run)


def training_of(pool: Pool, run: int, labels: Sequence[str]) -> TrainingSet:
    places = [n for n, fold in enumerate(pool.folds) if fold != run]
    return training_set(pool.features[places], [pool.examples[n] for n in places], labels)


def detections(head: Head, tests: Pool, places: NDArray[np.int64], labels: Sequence[str]) -> Detections:
    """Return the head's detections in the held-back pictures at `places`."""
    probabilities = head(tests.features[places])
    shape = len(places), len(labels)
    scores, centred, overlaps = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
    truth = np.array([labels.index(tests.examples[n].label) for n in places])
    for row, place in enumerate(places):
        there = box_in_shares(tests.examples[place])
        for label in range(len(labels)):
            scores[row, label], box = detect(probabilities[row, ..., label])
            if label == truth[row]:
                centred[row, label] = centre_is_in(box, there)
                overlaps[row, label] = iou(box, there) >= LEAST_IOU
    return Detections(scores, centred, overlaps, truth, np.array([tests.folds[n] for n in places]))


def box_in_shares(example: Example) -> tuple[float, float, float, float]:
    width, height = image_sides(example.image)
    x0, y0, x1, y1 = example.box
    return x0 / width, y0 / height, x1 / width, y1 / height


def describe(
    options: argparse.Namespace,
    clips: Sequence[Clip],
    folds: Sequence[Sequence[tuple[Clip, Example]]],
    labels: Sequence[str],
    pastings: Sequence[Pasting],
    results: Mapping[str, Any],
    arms: Mapping[str, Sequence[Detections]],
    held_back: Sequence[Clip],
    painting_s: float,
) -> dict[str, Any]:
    """Return everything that the page says."""
    by_clip: dict[str, dict[str, float]] = {}
    for number, clip in enumerate(held_back):
        if clip.unseen:
            by_clip[clip.label] = {
                arm: float(np.mean([run.found()[run.clips == number].mean() for run in runs]))
                for arm, runs in arms.items()
            }
    found_by_run = {arm: [round(float(run.found().mean()), 4) for run in runs] for arm, runs in arms.items()}
    return {
        "arms": dict(ARMS),
        "classes": {
            label: {
                "clips": sum(clip.label == label for clip in clips),
                "known": sum(clip.label == label for fold in folds for clip, _ in fold),
            }
            for label in labels
        },
        "runs": len(folds),
        "real": [sum(len(fold) for n, fold in enumerate(folds) if n != run) for run in range(len(folds))],
        "painted": len(pastings),
        "per_frame": options.per_frame,
        "held_back_clips": {
            "unseen": sum(clip.unseen for clip in held_back),
            "all_of_a_run": [len(np.unique(run.clips)) for run in arms[REFERENCE]],
        },
        "held_back_frames": HELD_BACK_PER_CLIP,
        "sampling": {"num_steps": options.num_steps, "guidance_scale": options.guidance_scale},
        "training_steps": {"real": options.epochs_steps, "others": options.epochs_steps * (options.per_frame + 1)},
        "model": {"folder": options.model.name, "digest": digest_folder(options.model)[:16]},
        "draws": options.draws,
        "results": dict(results),
        "found_in_unseen_clips": by_clip,
        "found_by_run": found_by_run,
        "painting_s": round(painting_s),
        "machine": machine(),
        "command": "python benchmarks/detector.py --fod-a FOLDER --model FOLDER",
    }


def examples_of(
    shown: Sequence[tuple[Clip, int]], tests: Pool, heads: Mapping[str, Head], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the middle frame of each clip with the best detection of two arms, in run 0."""
    found = []
    for _, number in shown:
        places = [n for n, clip in enumerate(tests.folds) if clip == number]
        place = places[len(places) // 2]
        entry: dict[str, Any] = {"example": tests.examples[place]}
        for arm in ("longer", REFERENCE):
            probabilities = heads[arm](tests.features[place : place + 1])[0]
            boxes = [detect(probabilities[..., label]) for label in range(len(labels))]
            best = max(range(len(labels)), key=lambda label: boxes[label][0])
            entry[arm] = {"label": labels[best], "score": boxes[best][0], "box": boxes[best][1]}
        found.append(entry)
    return found


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
