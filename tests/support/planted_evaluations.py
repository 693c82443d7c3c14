"""Planted evaluations: scores and features drawn from known distributions, as if stage evaluate had written them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pbe import layout
from pbe.evaluation.metrics.frechet import fit_moments
from pbe.evaluation.names import COPY_PASTE, METHOD, SOURCE
from pbe.serving.registry.evaluations import Evaluation

CONDITIONS = {"bench_digest": "b" * 32, "encoder": "tower", "num_steps": 8, "metrics_code": "m" * 32}
NUM_FEATURES = 6


def planted(
    seed: int = 0,
    *,
    num_cases: int = 60,
    identity: float = 60.0,
    clip: float = 85.0,
    seam: float = 1.5,
    fid: float = 1.0,
    copied: float = 50.0,
    drift: int = 0,
    conditions: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Return an evaluation whose painter has these means, and features at a distance of `fid` from the real ones.

    What makes a case hard is drawn once, and shared by all evaluations; `seed` draws what one model adds to it.
    """
    hardness = np.random.default_rng(1).normal(size=(num_cases, 1))
    rng = np.random.default_rng([2, seed])
    real = np.random.default_rng(3).normal(size=(4000, NUM_FEATURES)).astype(np.float32)
    shared = np.random.default_rng(4).normal(size=(num_cases, NUM_FEATURES))
    means = {
        METHOD: (identity, clip, seam, copied, drift),
        COPY_PASTE: (90.0, 99.0, 3.0, 100.0, 0),
        SOURCE: (20.0, 50.0, 1.2, 10.0, 0),
    }
    shifts = {METHOD: fid, COPY_PASTE: 2.0, SOURCE: 0.0}
    frames, features = [], {}
    for method, (*scores, changed) in means.items():
        noise = hardness + 0.3 * rng.normal(size=(num_cases, len(scores)))
        names = ("identity", "clip_score", "seam_visibility", "copy_paste_score")
        columns = dict(zip(names, (np.array(scores) + noise * [3, 3, 0.1, 3]).T, strict=True))
        frames.append(
            pl.DataFrame({"case_id": np.arange(num_cases), **columns}).with_columns(
                pl.lit(method).alias("method"), pl.lit(float(changed)).alias("unmasked_max_abs_diff")
            )
        )
        moved = shared + 0.1 * rng.normal(size=shared.shape)
        moved[:, 0] += np.sqrt(shifts[method])
        features[method] = moved.astype(np.float32)
    rows = {method: {"clip_score": values[1], "fid": shifts[method]} for method, values in means.items()}
    metrics = {"methods": rows, "num_cases": num_cases}
    return Evaluation(metrics, {**CONDITIONS, **(conditions or {})}, pl.concat(frames), features, fit_moments(real))


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write the evaluation where stage evaluate writes it."""
    (folder / layout.EVALUATION).mkdir(parents=True, exist_ok=True)
    (folder / layout.METRICS).write_text(json.dumps(evaluation.metrics))
    (folder / layout.EVALUATION / "evaluation.json").write_text(json.dumps(evaluation.conditions))
    evaluation.cases.write_parquet(folder / layout.EVALUATION / "case_scores.parquet")
    assert evaluation.reference is not None
    real = {
        "real": np.zeros((2, NUM_FEATURES), np.float32),
        "real.mean": evaluation.reference.mean,
        "real.covariance": evaluation.reference.covariance,
        "real.num_images": np.array(evaluation.reference.num_images),
    }
    np.savez(folder / layout.EVALUATION / "features.npz", **real, **dict(evaluation.features))
