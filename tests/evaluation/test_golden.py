"""Both protocols against numbers that an independent script computed: see golden/make_golden.py."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from pbe.dataset.images import read_image
from pbe.dataset.mask_images import read_mask
from pbe.evaluation.encoders.loading import open_encoder
from pbe.evaluation.metrics.clip_score import clip_scores
from pbe.evaluation.reference.opening import open_reference
from pbe.evaluation.scoring.protocols import open_protocols

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = tmp_path_factory.mktemp("golden") / "bench"
    script.write_inputs(folder)
    return folder


def test_all_numbers_of_both_protocols_are_those_of_the_independent_script(inputs: Path) -> None:
    golden = json.loads((GOLDEN / "golden.json").read_text())
    ids = np.load(inputs / "id_list.npy")
    results = [read_image(inputs / "results" / f"{i:012d}.png") for i in ids]
    masks = [read_mask(inputs / "Mask_bbox_3500" / f"{i:012d}_mask.png") for i in ids]
    exemplars = [read_image(inputs / "Ref_3500" / f"{i:012d}_ref.png") for i in ids]
    found: dict[str, float | None] = {}
    for protocol in open_protocols("both", open_encoder(inputs / "clip")):
        features, cache = protocol.features, inputs / f"{protocol.name}.safetensors"
        reference = open_reference(
            inputs / "real", inputs, 48, features, limit=1000, seed=0, official=True, cache=cache
        )
        assert reference.num_images == 330
        whole = features.whole(results)
        scores = clip_scores(features.boxes(results, masks), features.exemplars(exemplars))
        found |= protocol.set_metrics(whole, reference) | protocol.clip_score(scores)
        np.testing.assert_allclose(scores[:3], golden[f"first_clip_scores{protocol.suffix}"], rtol=TOLERANCE)
        np.testing.assert_allclose(whole[0], golden["first_result"], rtol=TOLERANCE)
    expected = {name: value for name, value in golden.items() if not name.startswith("first_")}
    assert found == pytest.approx(expected, rel=TOLERANCE)
