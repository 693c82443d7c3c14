"""The class names of a bench's exemplars: those that its cases.csv says, otherwise CLIP's choice.

    name = argmax over l of cos(CLIP(x_r), CLIP("a photo of a l"))

The names to choose from are those that the bench has of other cases, or COCO's 80 classes, which COCOEE's exemplars are
of (zero-shot classification, Radford et al., 2021, section 3.1).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.encoders.clip import ClipEncoder
from pbe.evaluation.encoders.resizing import stretch
from pbe.evaluation.labels import words_of
from pbe.method.pretrained import load_tower
from pbe.runtime.files import digest_files, digest_folder, read_json, write_json
from pbe.types import Progress, no_progress

COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
_BATCH_SIZE = 32


def can_name(folder: Path) -> bool:
    """Return whether a folder holds all of CLIP: both towers and the tokenizer."""
    config = folder / "config.json"
    return (
        config.is_file()
        and read_json(config).get("model_type") == "clip"
        and any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    )


def known_names(bench: Bench) -> dict[int, str]:
    """Return the class names that cases.csv says, by case id."""
    return {origin.case_id: origin.exemplar_label for origin in bench.origins or () if origin.exemplar_label}


def name_exemplars(
    bench: Bench, clip: Path, cache: Path, device: torch.device, progress: Progress = no_progress
) -> dict[int, str]:
    """Return a class name of every exemplar by case id: the known ones, and those that CLIP in `clip` chooses.

    The choice is kept in the file `cache` until an exemplar, a known name or CLIP changes. `progress` counts exemplars.
    """
    known = known_names(bench)
    unknown = [case_id for case_id in bench.ids if case_id not in known]
    if not unknown:
        return known
    names = sorted(set(known.values())) or list(COCO_CLASSES)
    exemplars = digest_files(bench.files(case_id).exemplar for case_id in unknown)
    key = {"exemplars": exemplars, "clip": digest_folder(clip), "names": names, "ids": unknown}
    if not (cache.is_file() and read_json(cache).get("key") == key):
        chosen = _choose(bench, unknown, names, clip, device, progress)
        write_json(cache, {"key": key, "chosen": chosen})
    chosen = read_json(cache)["chosen"]
    return known | dict(zip(unknown, chosen, strict=True))


def _choose(
    bench: Bench, ids: Sequence[int], names: Sequence[str], clip: Path, device: torch.device, progress: Progress
) -> list[str]:
    encoder, words = ClipEncoder(clip, device), _encode_names(names, clip)
    chosen: list[str] = []
    for start in range(0, len(ids), _BATCH_SIZE):
        exemplars = [bench.case(case_id).exemplar for case_id in ids[start : start + _BATCH_SIZE]]
        features = encoder(np.stack([stretch(exemplar, encoder.input_px) for exemplar in exemplars]))
        chosen += [names[int(best)] for best in (features @ words.T).argmax(1)]
        progress(len(chosen), len(ids))
    return chosen


@torch.inference_mode()
def _encode_names(names: Sequence[str], clip: Path) -> NDArray[np.float32]:
    """Return CLIP's features of the prompts, (N, D) of unit norm."""
    tokenizer = CLIPTokenizer.from_pretrained(clip)
    tokens = tokenizer([f"a photo of a {words_of(name)}" for name in names], padding=True, return_tensors="pt")
    tower = load_tower(CLIPTextModelWithProjection, clip).eval()
    features = tower(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).text_embeds.numpy()
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), np.float32)
