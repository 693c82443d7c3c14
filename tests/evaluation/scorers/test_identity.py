"""Identity, identity of the object alone and class agreement as columns, with an encoder whose features are pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pbe.evaluation.baselines import baseline_result
from pbe.evaluation.benches.bench import Bench, Origin
from pbe.evaluation.encoders.encode import encode_batch
from pbe.evaluation.encoders.protocol import FeatureEncoder
from pbe.evaluation.metrics.class_agreement import ClassMeans
from pbe.evaluation.metrics.identity import crop, identity_scores, show_object
from pbe.evaluation.scorers.identity import IdentityScorer, class_means_of
from pbe.evaluation.scorers.opening import open_scorers
from pbe.evaluation.scoring.case_scores import CaseBatch
from pbe.types import Image, Mask

Features = NDArray[np.float32]


class CountingEncoder:
    """The pixels at 4 x 4, and how many images were encoded."""

    name, digest, input_px, sees_tiles = "pixels", "0", 4, False

    def __init__(self) -> None:
        self.num_images = 0

    def __call__(self, images: NDArray[np.uint8]) -> Features:
        self.num_images += len(images)
        return images.reshape(len(images), -1).astype(np.float32) - 127.5


class LeftHalf:
    """Finds the object in the left half of any picture."""

    name = "left half"

    def __call__(self, image: Image) -> Mask:
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[:, : image.shape[1] // 2] = 1
        return mask


@pytest.fixture
def batch(bench: Bench) -> CaseBatch:
    return CaseBatch(tuple(bench.case(i) for i in bench.ids[:4]), (bench.origins or ())[:4])


def pastes(batch: CaseBatch) -> list[Image]:
    return [baseline_result("copy_paste", 0, case) for case in batch.cases]


def with_shape(batch: CaseBatch, number: int) -> CaseBatch:
    cases = list(batch.cases)
    shape = np.zeros(cases[number].exemplar.shape[:2], np.uint8)
    shape[1:, 2:] = 1
    cases[number] = replace(cases[number], exemplar_mask=shape)
    return CaseBatch(tuple(cases), batch.origins)


def test_identity_is_the_cosine_of_the_crop_and_the_exemplar(batch: CaseBatch) -> None:
    encoder, results = CountingEncoder(), pastes(batch)
    columns = IdentityScorer(encoder).score(batch, results)
    crops = [crop(result, box) for result, box in zip(results, batch.boxes, strict=True)]
    expected = identity_scores(encode_batch(encoder, crops), encode_batch(encoder, [c.exemplar for c in batch.cases]))
    np.testing.assert_array_equal(columns["identity"], expected)
    assert columns["identity"].min() > 90
    assert np.isnan(columns["foreground_identity"]).all()
    assert np.isnan(columns["class_agreement"]).all()


def test_exemplars_are_encoded_once_for_all_methods(batch: CaseBatch) -> None:
    encoder = CountingEncoder()
    scorer, shaped = IdentityScorer(encoder), with_shape(batch, 1)
    for results in (pastes(batch), [case.source for case in batch.cases], pastes(batch)):
        scorer.score(shaped, results)
    assert encoder.num_images == (4 + 1) + 3 * (4 + 1)


def test_the_object_alone_is_scored_where_the_bench_has_its_mask(batch: CaseBatch) -> None:
    encoder, shaped, results = CountingEncoder(), with_shape(batch, 1), pastes(batch)
    found = IdentityScorer(encoder).score(shaped, results)["foreground_identity"]
    case, (x0, y0, x1, y1) = shaped.cases[1], shaped.boxes[1]
    assert case.exemplar_mask is not None
    alone = show_object(results[1][y0:y1, x0:x1], case.mask[y0:y1, x0:x1])
    exemplar = show_object(case.exemplar, case.exemplar_mask)
    assert found[1] == identity_scores(encode_batch(encoder, [alone]), encode_batch(encoder, [exemplar]))[0]
    assert np.isnan(found[[0, 2, 3]]).all()


def test_a_network_finds_objects_where_the_bench_has_no_mask(batch: CaseBatch) -> None:
    found = IdentityScorer(CountingEncoder(), find_object=LeftHalf()).score(batch, pastes(batch))
    assert np.isfinite(found["foreground_identity"]).all()
    assert found["foreground_identity"].min() > 90


def test_a_found_object_counts_only_where_it_was_repainted(batch: CaseBatch) -> None:
    """Pixels of the box that are not masked, or not of the found object, change nothing."""
    cases = list(batch.cases)
    x0, y0, x1, y1 = batch.boxes[0]
    mask = cases[0].mask.copy()
    mask[y0 + 1 : y1 - 1, x0 + 1 : x0 + 3] = 0  # a hole in the left half
    cases[0] = replace(cases[0], mask=mask)
    shaped, scorer = CaseBatch(tuple(cases)), IdentityScorer(CountingEncoder(), find_object=LeftHalf())
    results = pastes(batch)
    before = scorer.score(shaped, results)["foreground_identity"][0]
    changed = results[0].copy()
    changed[y0 + 1 : y1 - 1, x0 + 1 : x0 + 3] = 0
    changed[y0:y1, (x0 + x1 + 1) // 2 : x1] = 0
    assert scorer.score(shaped, [changed, *results[1:]])["foreground_identity"][0] == before


def test_class_agreement_of_sources_and_pastes(bench: Bench) -> None:
    """With exemplars of two flat colours, a pasted exemplar agrees with its class; one of the other does not."""
    encoder = CountingEncoder()
    labels = ["dark", "bright", "dark", "bright"]
    grey = [np.full((8, 8, 3), 40 if label == "dark" else 220, np.uint8) for label in labels]
    cases = tuple(replace(bench.case(i), exemplar=g) for i, g in zip(bench.ids, grey, strict=False))
    origins = tuple(Origin(n, "", "", f"box {n}", label) for n, label in enumerate(labels))
    batch = CaseBatch(cases, origins)
    means = ClassMeans.of(encode_batch(encoder, grey), labels, [o.exemplar_box_id for o in origins])
    scorer = IdentityScorer(encoder, means)
    assert scorer.score(batch, pastes(batch))["class_agreement"].tolist() == [100.0] * 4
    others = CaseBatch(tuple(replace(c, exemplar=g) for c, g in zip(cases, grey[1:] + grey[:1], strict=True)))
    assert scorer.score(batch, pastes(others))["class_agreement"].tolist() == [0.0] * 4


def test_class_means_read_each_exemplar_box_once(bench: Bench) -> None:
    encoder = CountingEncoder()
    means = class_means_of(bench, encoder, batch_size=5)
    assert means is not None
    boxes = {origin.exemplar_box_id: origin.exemplar_label for origin in bench.origins or ()}
    assert dict(zip(means.box_ids, means.labels, strict=True)) == boxes
    assert encoder.num_images == len(boxes)
    assert class_means_of(replace(bench, origins=None), encoder, 5) is None


def test_the_key_tells_encoders_classes_and_networks_apart(bench: Bench, encoder: FeatureEncoder) -> None:
    means = class_means_of(bench, CountingEncoder(), 5)
    scorers = [
        IdentityScorer(CountingEncoder()),
        IdentityScorer(CountingEncoder(), means),
        IdentityScorer(CountingEncoder(), means, LeftHalf()),
    ]
    assert len({scorer.key for scorer in scorers}) == 3


def test_all_scorers_of_a_bench_have_their_own_columns(bench: Bench, tmp_path: Path) -> None:
    scorers = open_scorers(bench, identity="efficientnet_lite0", batch_size=8)
    columns = [column for scorer in scorers for column in scorer.columns]
    assert len(columns) == len(set(columns)) == 9
    assert all(scorer.key for scorer in scorers)
    batch = CaseBatch(tuple(bench.case(i) for i in bench.ids[:2]), (bench.origins or ())[:2])
    for scorer in scorers:
        assert tuple(scorer.score(batch, pastes(batch))) == scorer.columns
    assert len(open_scorers(bench, identity="none", batch_size=8)) == 3
