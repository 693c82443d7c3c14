"""The files that scoring writes, made up: what the report reads (`pbe.evaluation.report.results`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pbe.evaluation.names import CASE_SCORES, COMPARISON, CONDITIONS
from pbe.evaluation.scoring.intervals import bootstrap_counts, difference_interval, mean_interval
from pbe.runtime.files import write_json

DRAWS = 200
MEANS = {
    "paint_by_example": (45.0, 80.0, 1.4, 30.0, 30.0),
    "copy_paste": (90.0, 99.0, 2.5, 99.0, 100.0),
    "source": (12.0, 3.0, 1.3, 10.0, 100.0),
    "poisson": (80.0, 90.0, 1.5, 90.0, 25.0),
    "text_inpainting": (33.0, 40.0, 1.4, 12.0, 30.0),
    "stock": (44.8, 79.5, 1.4, 30.0, 30.0),
}  # of the columns below
COLUMNS = ("identity", "clip_score", "seam_visibility", "copy_paste_score", "background_psnr")
FID = {"fid": {"value": 0.0119, "low": 0.0104, "high": 0.0139}}


def made_up_scores(ids: Sequence[int], methods: Sequence[str], seed: int = 0) -> pl.DataFrame:
    """Return case scores with a row for each case and method."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=len(ids))
    frames = []
    for method in methods:
        means = MEANS.get(method, MEANS["text_inpainting"])
        columns: dict[str, Any] = {"case_id": list(ids), "method": [method] * len(ids)}
        for name, mean in zip(COLUMNS, means, strict=True):
            columns[name] = mean + 0.12 * abs(mean) * (shared + rng.normal(size=len(ids)) / 2)
        columns["label"] = [("Star", "Ring", "Moon")[i % 3] for i in range(len(ids))]
        columns["mask_frac"] = np.linspace(0.02, 0.6, len(ids))
        columns["exemplar_px"] = np.linspace(16.0, 300.0, len(ids))
        frames.append(pl.DataFrame(columns))
    return pl.concat(frames)


def write_evaluation(out: Path, ids: Sequence[int], methods: Sequence[str]) -> dict[str, Any]:
    """Write the files that scoring writes into `out`, and return the content of metrics.json."""
    out.mkdir(parents=True, exist_ok=True)
    scores = made_up_scores(ids, methods)
    scores.write_parquet(out / CASE_SCORES)
    counts = bootstrap_counts(len(ids), DRAWS, seed=0)
    columns = {m: {c: scores.filter(pl.col("method") == m)[c].to_numpy() for c in COLUMNS} for m in methods}
    rows = {
        m: {c: _keys(mean_interval(v, counts, 0.95)) for c, v in found.items()} | FID for m, found in columns.items()
    }
    subject = methods[0]
    differences = {
        m: {c: _keys(difference_interval(columns[subject][c], columns[m][c], counts, 0.95)) for c in COLUMNS}
        | {"fid": {"value": 0.0012, "low": -0.0024, "high": 0.0054}}
        for m in methods[1:]
    }
    write_json(
        out / COMPARISON,
        {
            "subject": subject,
            "confidence": 0.95,
            "draws": DRAWS,
            "methods": rows,
            "differences": differences,
            "floor": {"fid": {"value": 0.0041, "low": 0.0032, "high": 0.0055}},
        },
    )
    conditions = {"bench_digest": "0b" * 32, "encoder": {"name": "tower", "digest": "a1" * 16}, "num_steps": 8}
    write_json(out / CONDITIONS, {**conditions, "protocol": "corrected", "guidance_scale": 5.0, "seed": 0})
    values = {m: {metric: e["value"] for metric, e in row.items()} for m, row in rows.items()}
    return {
        "methods": {m: {**row, "qs": 99.9, "unmasked_max_abs_diff": 0} for m, row in values.items()},
        "features": "the painter's own CLIP tower, ViT-4x128/8 at 32 px",
        "num_cases": len(ids),
        "num_real_images": 3720,
        "qs_components": 14,
    }


def sweep_metrics(num_cases: int, scales: Sequence[float] = (1.0, 5.0, 7.0)) -> dict[str, Any]:
    """Return the keys of metrics.json that a painter's evaluation has beside those of `write_evaluation`."""
    rows = {f"{s:g}": {"clip_score": 60.0 + 5 * s, "shape_accuracy": 50.0 + 6 * s} for s in scales}
    return {
        "guidance_scale": 5.0,
        "num_steps": 8,
        "max_magnification": 2.0,
        "num_reused_boxes": 0,
        "unguided": {"fid": 0.0288, "clip_score": 63.0, "unmasked_max_abs_diff": 0},
        "guidance_sweep": {"num_cases": num_cases, "scales": rows},
        "classifier_accuracy": {"shape_accuracy": 100.0},
    }


def _keys(found: object) -> Mapping[str, float]:
    return {key: round(value, 4) for key, value in vars(found).items()}
