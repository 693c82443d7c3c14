"""All scorers of single cases that a bench and the given weights allow."""

from pathlib import Path

import torch

from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.encoders.local import open_identity_encoder
from pbe.evaluation.foregrounds import SalientObject
from pbe.evaluation.metrics.lpips import Lpips
from pbe.evaluation.scorers.identity import IdentityScorer, class_means_of
from pbe.evaluation.scorers.pixels import BackgroundScorer, CopyPasteScorer, SeamScorer
from pbe.evaluation.scoring.case_scores import CaseScorer

_CPU = torch.device("cpu")


def open_scorers(
    bench: Bench,
    *,
    identity: str,
    lpips: Path | None = None,
    foreground: Path | None = None,
    batch_size: int,
    device: torch.device = _CPU,
) -> list[CaseScorer]:
    """Return the scorers of background, seam and copying, and that of identity unless `identity` is "none".

    `identity`, `lpips` and `foreground` are those of the section `evaluate`. Encodes the exemplars of a bench that has
    labels. Raises UserError when a folder or a file does not hold what its setting says.
    """
    scorers: list[CaseScorer] = [
        BackgroundScorer(Lpips(lpips, device) if lpips else None),
        SeamScorer(),
        CopyPasteScorer(),
    ]
    encoder = open_identity_encoder(identity, device)
    if encoder is not None:
        find_object = SalientObject(foreground) if foreground else None
        scorers.append(IdentityScorer(encoder, class_means_of(bench, encoder, batch_size), find_object))
    return scorers
