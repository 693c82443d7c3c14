"""The measures of `detector.py`, and their intervals by a bootstrap over clips and runs.

found   share of pictures whose best detection has the object's class and its centre in the object's box
AP      average precision of a class over all pictures, the mean over classes; a detection is right when its centre lies
        in the object's box (`ap_centre`) or its intersection over union is at least 0.5 (`ap50`)

Frames of a clip are nearly alike, so that clips are drawn and not frames; all arms are measured on the same draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Corners = tuple[float, float, float, float]
LEAST_IOU = 0.5


@dataclass(frozen=True)
class Detections:
    """The detections of one arm in one run: one for each picture and class.

    `is_centred` and `overlaps` say whether a detection of the picture's own class is right; else they are False.
    """

    scores: NDArray[np.float32]  # (N, classes)
    is_centred: NDArray[np.bool_]  # (N, classes)
    overlaps: NDArray[np.bool_]  # (N, classes)
    labels: NDArray[np.int64]  # (N,), the class that is there
    clips: NDArray[np.int64]  # (N,)

    def found(self) -> NDArray[np.float64]:
        """Return for each picture whether its best detection is right, 0 or 1."""
        best = self.scores.argmax(1)
        return self.is_centred[np.arange(len(best)), best].astype(np.float64)


def centre_is_in(box: Corners, within: Corners) -> bool:
    """Return whether the centre of a box lies in another."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return within[0] <= x < within[2] and within[1] <= y < within[3]


def iou(a: Corners, b: Corners) -> float:
    """Return the intersection of two boxes over their union."""
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return across / (areas - across)


def average_precision(
    scores: NDArray[np.float32], is_right: NDArray[np.bool_], num_objects: float, weights: NDArray[np.float64]
) -> float:
    """Return the area under precision over recall, precision made monotonic as in Pascal VOC from 2010 on.

    A detection counts `weights` times, as do the `num_objects` objects that there are.
    """
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(weights[order] * is_right[order])
    total = np.cumsum(weights[order])
    precision = np.divide(right, total, out=np.zeros_like(right), where=total > 0)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(right, prepend=0.0) * envelope).sum() / num_objects)


def mean_average_precision(detections: Detections, right: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    """Return the mean over the classes of which there are pictures."""
    values = []
    for label in range(detections.scores.shape[1]):
        num_objects = float(weights[detections.labels == label].sum())
        if num_objects:
            values.append(average_precision(detections.scores[:, label], right[:, label], num_objects, weights))
    return float(np.mean(values))


def found_share(arm: Sequence[Detections], clip_weights: NDArray[np.float64], runs: Sequence[int]) -> float:
    """Return `found` over some of an arm's runs; a clip, by its number, counts `clip_weights` times.

    Every clip has the same weight, however many frames of it there are.
    """
    values = []
    for run in runs:
        weights = _frame_weights(arm[run], clip_weights)
        if weights.any():
            values.append(float(np.average(arm[run].found(), weights=weights)))
    return float(np.mean(values))


def precisions(arm: Sequence[Detections], clip_weights: NDArray[np.float64]) -> dict[str, float]:
    """Return `ap_centre` and `ap50` over all runs, weighted as in `found_share`."""
    weighted = [(run, _frame_weights(run, clip_weights)) for run in arm]
    return {
        "ap_centre": float(np.mean([mean_average_precision(run, run.is_centred, w) for run, w in weighted])),
        "ap50": float(np.mean([mean_average_precision(run, run.overlaps, w) for run, w in weighted])),
    }


def compare(
    arms: Mapping[str, Sequence[Detections]],
    reference: str,
    clips: NDArray[np.bool_],
    draws: int,
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> dict[str, dict[str, Any]]:
    """Return the measures of each arm, and the `lead` of the arm `reference` over it in `found`.

    `clips` says which clips count. `found` and `lead` have bootstrap intervals: a draw takes clips and runs with
    replacement. A draw of clips changes which classes compete in the average precisions, which have none.
    """
    chosen, num_runs = np.flatnonzero(clips), len(arms[reference])
    drawn: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(draws):
        weights = np.bincount(rng.choice(chosen, len(chosen)), minlength=len(clips)).astype(np.float64)
        runs = rng.integers(num_runs, size=num_runs).tolist()
        for name, arm in arms.items():
            drawn[name].append(found_share(arm, weights, runs))
    once = clips.astype(np.float64)
    whole = {name: found_share(arm, once, range(num_runs)) for name, arm in arms.items()}
    leads = {name: np.subtract(drawn[reference], drawn[name]) for name in arms}
    return {
        name: {
            "found": _interval(whole[name], drawn[name], confidence),
            "lead": _interval(whole[reference] - whole[name], leads[name], confidence),
            **precisions(arms[name], once),
        }
        for name in arms
    }


def _frame_weights(detections: Detections, clip_weights: NDArray[np.float64]) -> NDArray[np.float64]:
    frames = np.bincount(detections.clips, minlength=len(clip_weights))
    return np.asarray(clip_weights[detections.clips] / frames[detections.clips])


def _interval(value: float, samples: Sequence[float] | NDArray[np.float64], confidence: float) -> dict[str, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return {"value": value, "low": float(low), "high": float(high)}
