"""The measures of benchmarks/detector.py against cases computed by hand, and what it may paint for which run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage


@pytest.fixture(autouse=True)
def _benchmarks_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")


def test_average_precision_of_a_ranking_by_hand() -> None:
    from detector_metrics import average_precision

    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32)
    is_right = np.array([True, False, True, False, False])
    once = np.ones(5)
    # of 4 objects: precision 1 up to recall 1/4, then 2/3 up to 2/4, then nothing
    assert average_precision(scores, is_right, 4, once) == pytest.approx((1 + 2 / 3) / 4)
    assert average_precision(scores[::-1], is_right[::-1], 4, once) == pytest.approx((1 + 2 / 3) / 4)
    # right, right, wrong after a wrong one: the envelope is 2/3 from the start
    assert average_precision(scores[:3], np.array([False, True, True]), 2, once[:3]) == pytest.approx(2 / 3)
    # the second picture twice: 1, then 2 wrong, then 2 of 4
    assert average_precision(scores[:3], is_right[:3], 2, np.array([1.0, 2, 1])) == pytest.approx((1 + 2 / 4) / 2)


def test_a_picture_is_found_when_its_best_detection_has_the_class_and_its_centre_in_the_box() -> None:
    from detector_metrics import Detections, centre_is_in, found_share, iou, precisions

    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.7], [0.2, 0.3]], np.float32)
    labels = np.array([0, 0, 1, 1])
    centred = np.array([[True, False], [True, False], [False, True], [False, False]])
    detections = Detections(scores, centred, np.zeros((4, 2), bool), labels, np.array([0, 0, 1, 2]))
    assert detections.found().tolist() == [1, 0, 0, 0]

    once = np.array([1.0, 1, 1])
    assert found_share([detections], once, [0]) == pytest.approx((1 / 2 + 0 + 0) / 3)  # each clip counts once
    # class 0: right .9 (weight 1/2), wrong .8 (1), right .4 (1/2), wrong .2 (1): 1/2 * 1 + 1/2 * 1/2
    # class 1: right .7 (1), wrong .6 (1/2), .3 (1), .1 (1/2), of 2 objects: 1/2 * 1
    assert precisions([detections], once) == {"ap_centre": pytest.approx((0.75 + 0.5) / 2), "ap50": 0}
    assert found_share([detections], np.array([3.0, 0, 1]), [0]) == pytest.approx(3 / 8)

    assert centre_is_in((0, 0, 4, 4), (2, 2, 3, 3))
    assert not centre_is_in((0, 0, 6, 6), (2, 2, 3, 3))
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(2 / 6)
    assert iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0


def test_the_lead_of_an_arm_over_itself_is_zero_and_over_a_worse_one_is_its_interval() -> None:
    from detector_metrics import Detections, compare

    labels, clips = np.zeros(40, np.int64), np.repeat(np.arange(4), 10)

    def arm(right: int) -> list[Detections]:
        centred = (np.arange(40) % 10 < right)[:, None]
        return [Detections(np.ones((40, 1), np.float32), centred, centred, labels, clips)] * 2

    arms = {"good": arm(9), "bad": arm(4)}
    compared = compare(arms, "good", np.ones(4, bool), 50, np.random.default_rng(0))
    assert compared["good"]["lead"] == {"value": 0, "low": 0, "high": 0}
    assert compared["bad"]["lead"] == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})  # every clip says the same


def test_a_detection_is_the_region_around_the_most_probable_cell() -> None:
    from detector_head import GRID, box_in_cells, detect

    probabilities = np.zeros((GRID, GRID), np.float32)
    probabilities[4:8, 10:12] = 0.5
    probabilities[5, 11] = 0.8
    probabilities[15:, 0] = 0.7  # another region, less probable
    score, box = detect(probabilities)
    assert score == pytest.approx(0.8)
    assert box == (10 / GRID, 4 / GRID, 12 / GRID, 8 / GRID)
    assert box_in_cells((150, 60, 180, 120), (300, 300)) == (10, 4, 12, 8)
    assert box_in_cells((299, 0, 300, 1), (300, 300)) == (19, 0, 20, 1)  # at least one cell


def test_training_finds_the_class_of_a_cell_though_a_box_fills_its_picture() -> None:
    import torch
    from detector_head import GRID, TrainingSet, train_head

    targets = torch.zeros(3, GRID, GRID, dtype=torch.long)
    targets[0, 3:9, 3:9], targets[1, 5:9, 9:19], targets[2] = 1, 2, 1
    features = torch.nn.functional.one_hot(targets, 3).float() + torch.rand(3, GRID, GRID, 3) / 10
    parts = TrainingSet(features[:2], targets[:2]), TrainingSet(features[1:], targets[1:])
    head = train_head(*parts, num_classes=2, num_steps=300, seed=0)
    probabilities = head(features.numpy().astype(np.float16))
    for label in (1, 2):
        assert (probabilities[..., label - 1][targets == label] > 0.5).all()
        assert (probabilities[..., label - 1][targets != label] < 0.5).all()


def test_a_painted_box_is_free_or_covers_the_old_object_with_the_new_proportions() -> None:
    from detector_data import covering_box, free_box

    rng = np.random.default_rng(0)
    for _ in range(20):
        x0, y0, x1, y1 = free_box((0, 0, 40, 80), (7, 7, 37, 107), (100, 100), rng) or (0, 0, 0, 0)
        assert (x1 - x0, y1 - y0) == (30, 100)
        assert 40 <= x0 <= 70
    assert free_box((0, 0, 80, 80), (7, 7, 37, 107), (100, 100), rng) is None
    assert free_box((0, 0, 1, 1), (0, 0, 101, 9), (100, 100), rng) is None

    assert covering_box((100, 100, 140, 120), (0, 0, 10, 10), (300, 300)) == (100, 90, 140, 130)
    assert covering_box((0, 0, 40, 20), (0, 0, 10, 10), (300, 300)) == (0, 0, 40, 40)  # moved into the picture
    assert covering_box((10, 10, 290, 20), (0, 0, 10, 40), (300, 300)) == (10, 0, 290, 300)  # cut off


def test_no_picture_for_a_run_shows_a_clip_that_it_leaves_out(tmp_path: Path) -> None:
    from detector_data import Clip, Example, draw_folds, plan_pastings

    rng = np.random.default_rng(0)
    clips = []
    for label, count in (("Hammer", 8), ("Wire", 5), ("Pliers", 6)):
        for number in range(count):
            path = tmp_path / f"{label}{number}.png"
            PILImage.fromarray(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(path)
            frame = Example(path, label, (5, 5, 15, 20))
            clips.append(Clip(f"{label}/{number}", label, number == 0 and label != "Wire", (frame, frame)))
    folds = draw_folds(clips, rng)
    assert [len(fold) for fold in folds] == [3, 3, 3, 3, 3, 1]  # 7 Hammers, 5 Wires and 5 Pliers for training
    assert not any(clip.unseen for fold in folds for clip, _ in fold)
    pastings = plan_pastings(folds[:5], tmp_path / "exemplars", 0.06, 4, rng)
    assert len(pastings) == 15 * 4
    for each in pastings:
        own = {clip.label: clip.frames[0].image for clip, _ in folds[each.fold]}
        assert own[each.frame.label] == each.frame.image
        assert own[each.source.label] == each.source.image != each.frame.image
        x0, y0, x1, y1 = each.box
        is_free = x0 >= 15 or y0 >= 20 or x1 <= 5 or y1 <= 5
        assert each.others == (((each.source.label, each.source.box),) if is_free else ())
