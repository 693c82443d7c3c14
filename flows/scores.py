"""The painter's main scores, which DVC compares between runs: `dvc metrics diff` and a column each of `dvc exp show`.

The stages' other reports are nested, and DVC would make hundreds of columns of them.
"""

from collections.abc import Mapping

SCORES = (
    "identity",
    "clip_score",
    "fid",
    "kid",
    "qs",
    "copy_paste_score",
    "class_agreement",
    "seam_visibility",
    "diversity",
    "shape_accuracy",
    "colour_accuracy",
    "pattern_accuracy",
)


def main_scores(scores: Mapping[str, object]) -> dict[str, object]:
    """Return the main scores among those of a method; a score that was not measured is left out."""
    return {name: scores[name] for name in SCORES if scores.get(name) is not None}
