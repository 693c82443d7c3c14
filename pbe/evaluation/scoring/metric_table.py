"""Every metric's title, direction, digits and unit: what the report, the gate and the tables need to know of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class MetricSpec:
    """How a metric is shown, and which of two values is the better one."""

    title: str
    higher_is_better: bool
    digits: int
    unit: str = ""


METRICS: Mapping[str, MetricSpec] = {
    "fid": MetricSpec("FID", False, 3),
    "kid": MetricSpec("KID x 1000", False, 3),
    "qs": MetricSpec("QS", True, 2),
    "clip_score": MetricSpec("CLIP score", True, 2),
    "identity": MetricSpec("identity", True, 2),
    "foreground_identity": MetricSpec("identity of the object alone", True, 2),
    "class_agreement": MetricSpec("class agreement", True, 1, "%"),
    "copy_paste_score": MetricSpec("copy-paste score", False, 1),
    "seam_visibility": MetricSpec("seam visibility", False, 3),
    "background_psnr": MetricSpec("background PSNR", True, 2, "dB"),
    "background_ssim": MetricSpec("background SSIM", True, 4),
    "background_lpips": MetricSpec("background LPIPS", False, 4),
    "ring_psnr": MetricSpec("PSNR of the ring around the mask", True, 2, "dB"),
    "ring_ssim": MetricSpec("SSIM of the ring around the mask", True, 4),
    "ring_lpips": MetricSpec("LPIPS of the ring around the mask", False, 4),
    "unmasked_max_abs_diff": MetricSpec("largest change outside the mask", False, 0, "grey levels"),
    "diversity": MetricSpec("diversity over seeds", True, 2),
    "pixel_diversity": MetricSpec("diversity over seeds, of pixels", True, 2, "grey levels"),
}  # in the order of tables
ACCURACY = "_accuracy"  # ends the name of an attribute's metric, such as shape_accuracy
OFFICIAL = "_official"  # ends the name of a metric by the authors' tools, where a report has both protocols


def metric_spec(metric: str) -> MetricSpec:
    """Return the entry of a metric; raises KeyError for one that is neither in METRICS nor an attribute's accuracy."""
    if metric.endswith(OFFICIAL):
        spec = metric_spec(metric.removesuffix(OFFICIAL))
        return replace(spec, title=f"{spec.title}, official tools")
    if metric.endswith(ACCURACY):
        return MetricSpec(metric.removesuffix(ACCURACY).replace("_", " ") + " is right", True, 1, "%")
    return METRICS[metric]
