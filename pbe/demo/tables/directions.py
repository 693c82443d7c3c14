"""What the paper leads us to expect: which metric rises or falls from which row to which."""

from collections.abc import Sequence
from dataclasses import dataclass

from pbe.demo.tables.scores import BOX_BENCH, COPIED_WHEN_RIGHT, FID, IRREGULAR_BENCH, Source
from pbe.demo.tables.variants import ABLATION, BOX_MASKS, FULL, Variant
from pbe.evaluation.names import TEXT_CAPTION, TEXT_INPAINTING

UNGUIDED = 1.0


@dataclass(frozen=True)
class Direction:
    """A claim: the metric rises (`sign` 1) or falls (-1) from one source of pictures to another."""

    claim: str
    metric: str
    before: Source
    after: Source
    sign: int


def source_at(scale: float, variant: Variant, bench: str = BOX_BENCH) -> Source:
    """Return a variant's pictures at a guidance scale, or unguided where its model takes no guidance."""
    return Source(variant.name, scale if variant.is_guided else UNGUIDED, bench)


def expected_directions(scale: float, scales: Sequence[float]) -> list[Direction]:
    """Return all claims; `scale` is the evaluated guidance scale, `scales` those of the full method."""
    return [*_ablation(scale), *_guidance(scale, max(scales)), *_conditions(scale), *_masks(scale)]


def _ablation(scale: float) -> list[Direction]:
    baseline, prior, augmentation, bottleneck, _ = (source_at(scale, variant) for variant in ABLATION)
    return [
        Direction("the prior lowers FID", FID, baseline, prior, -1),
        Direction("augmentation lowers the copy-paste score", "copy_paste_score", prior, augmentation, -1),
        Direction(
            "augmentation lowers it where both rows have all attributes right",
            COPIED_WHEN_RIGHT,
            prior,
            augmentation,
            -1,
        ),
        Direction("augmentation lowers the CLIP score", "clip_score", prior, augmentation, -1),
        Direction("the bottleneck lowers the copy-paste score", "copy_paste_score", augmentation, bottleneck, -1),
        Direction("the bottleneck lowers FID", FID, augmentation, bottleneck, -1),
    ]


def _guidance(scale: float, most: float) -> list[Direction]:
    unguided, guided, strongest = (Source(FULL.name, each) for each in (UNGUIDED, scale, most))
    return [
        Direction(f"guidance {scale:g} raises the CLIP score over 1", "clip_score", unguided, guided, 1),
        Direction(f"guidance {scale:g} raises identity over 1", "identity", unguided, guided, 1),
        Direction(f"guidance {most:g} lowers identity below {scale:g}", "identity", guided, strongest, -1),
    ]


def _conditions(scale: float) -> list[Direction]:
    image = source_at(scale, FULL)
    texts = {TEXT_INPAINTING: "the class's name", TEXT_CAPTION: "the full caption"}
    return [
        Direction(f"the image beats {text} on {title}", metric, Source(name, scale), image, 1)
        for name, text in texts.items()
        for metric, title in (("identity", "identity"), ("clip_score", "CLIP score"))
    ]


def _masks(scale: float) -> list[Direction]:
    boxes, arbitrary = (source_at(scale, variant, IRREGULAR_BENCH) for variant in (BOX_MASKS, FULL))
    claim = "arbitrary masks in training lower the seams of irregular masks"
    return [Direction(claim, "seam_visibility", boxes, arbitrary, -1)]
