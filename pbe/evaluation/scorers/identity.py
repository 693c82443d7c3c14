"""The scorer of identity and class, by one encoder that the painter has never seen."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pbe.dataset.images import read_image
from pbe.evaluation.benches.bench import Bench, Case
from pbe.evaluation.encoders.encode import batches, encode_batch
from pbe.evaluation.encoders.protocol import FeatureEncoder, Features
from pbe.evaluation.foregrounds import FindObject
from pbe.evaluation.metrics.class_agreement import ClassMeans
from pbe.evaluation.metrics.identity import crop, identity_scores, show_object
from pbe.evaluation.scoring.case_scores import CaseBatch
from pbe.types import Image, Mask

Column = NDArray[np.float64]


class IdentityScorer:
    """Identity, that of the object alone, and class agreement: the encoder sees each crop once.

    An exemplar's object comes from the bench, or from `find_object` where the bench has no mask of it. A result's
    object comes from `find_object`; without it, a result shows what was repainted. `foreground_identity` is NaN for a
    case without a mask of the exemplar's object, `class_agreement` for one without a label or without `class_means`.
    """

    columns = ("identity", "foreground_identity", "class_agreement")

    def __init__(
        self,
        encoder: FeatureEncoder,
        class_means: ClassMeans | None = None,
        find_object: FindObject | None = None,
    ) -> None:
        self._encoder, self._class_means, self._find_object = encoder, class_means, find_object
        classes = class_means.digest if class_means else "no classes"
        objects = find_object.name if find_object else "masks of the bench"
        self.key = f"{encoder.name} {encoder.digest}, {classes}, {objects}"

    def score(self, batch: CaseBatch, results: Sequence[Image]) -> Mapping[str, Column]:
        """Score results by their crops at the masks' boxes; see `CaseScorer`."""
        name = f"exemplars, {self.key}"
        exemplars = batch.once(name, lambda: encode_batch(self._encoder, [case.exemplar for case in batch.cases]))
        shapes = batch.once(f"shapes, {name}", lambda: [self._shape(case) for case in batch.cases])
        masked = [n for n, shape in enumerate(shapes) if shape is not None]
        crops = [crop(result, box) for result, box in zip(results, batch.boxes, strict=True)]
        alone = [self._alone(crops[n], batch, n) for n in masked]
        features = encode_batch(self._encoder, crops + alone)
        foreground = np.full(len(batch), np.nan)
        if masked:
            objects = batch.once(f"objects, {name}", lambda: self._objects(batch, shapes))
            foreground[masked] = identity_scores(features[len(crops) :], objects)
        features = features[: len(crops)]
        columns = identity_scores(features, exemplars), foreground, self._agreement(batch, features)
        return dict(zip(self.columns, columns, strict=True))

    def _shape(self, case: Case) -> Mask | None:
        """Return the mask of the exemplar's object; None where it is not known, or nothing was found."""
        shape = case.exemplar_mask
        if shape is None and self._find_object is not None:
            shape = self._find_object(case.exemplar)
        return shape if shape is not None and shape.any() else None

    def _objects(self, batch: CaseBatch, shapes: Sequence[Mask | None]) -> Features:
        pairs = zip(batch.cases, shapes, strict=True)
        return encode_batch(self._encoder, [show_object(c.exemplar, shape) for c, shape in pairs if shape is not None])

    def _alone(self, result: Image, batch: CaseBatch, number: int) -> Image:
        """Return a result's crop that shows its object, or all that was repainted where no object is found."""
        x0, y0, x1, y1 = batch.boxes[number]
        repainted = batch.cases[number].mask[y0:y1, x0:x1]
        found = self._find_object(result) & repainted if self._find_object is not None else repainted
        return show_object(result, found if found.any() else repainted)

    def _agreement(self, batch: CaseBatch, features: Features) -> Column:
        if self._class_means is None or batch.origins is None:
            return np.full(len(batch), np.nan)
        labels = [origin.exemplar_label for origin in batch.origins]
        return self._class_means.agreement(features, labels, [origin.exemplar_box_id for origin in batch.origins])


def class_means_of(bench: Bench, encoder: FeatureEncoder, batch_size: int) -> ClassMeans | None:
    """Return the classifier of a bench's exemplars, each box encoded once; None for a bench without labels."""
    first = {origin.exemplar_box_id: origin for origin in reversed(bench.origins or ()) if origin.exemplar_label}
    origins = sorted(first.values(), key=lambda origin: origin.case_id)
    if not origins:
        return None
    exemplars = (read_image(bench.files(origin.case_id).exemplar) for origin in origins)
    features = np.concatenate([encode_batch(encoder, each) for each in batches(exemplars, batch_size)])
    return ClassMeans.of(features, [o.exemplar_label for o in origins], [o.exemplar_box_id for o in origins])
