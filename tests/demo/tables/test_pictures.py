"""Which pictures are painted, and the cases with irregular masks."""

from pathlib import Path

import numpy as np

from pbe.demo.tables.benches import write_irregular_bench
from pbe.demo.tables.pictures import sources_of
from pbe.demo.tables.scores import BOX_BENCH, IRREGULAR_BENCH, Source
from pbe.demo.tables.variants import ABLATION, BOX_MASKS, FULL
from pbe.evaluation.benches.bench import Case, Origin, write_case, write_index
from pbe.evaluation.benches.bench_folder import read_bench
from tests.support import parameters


def test_models_without_guidance_paint_once_and_the_full_method_at_every_scale() -> None:
    assert sources_of(ABLATION[0], 5.0, (1.0, 5.0)) == [Source("baseline", 1.0)]
    assert sources_of(FULL, 5.0, (1.0, 5.0)) == [
        Source("guidance", 1.0), Source("guidance", 5.0), Source("guidance", 5.0, IRREGULAR_BENCH),
    ]  # fmt: skip
    assert [s.bench for s in sources_of(BOX_MASKS, 5.0, (1.0, 5.0))] == [BOX_BENCH, IRREGULAR_BENCH]
    names = [s.method(seed) for v in ABLATION for s in sources_of(v, 5.0, (1.0, 5.0)) for seed in (0, 1)]
    assert len(set(names)) == len(names)


def test_irregular_masks_replace_the_boxes_of_the_same_cases(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for case_id in range(6):
        mask = np.zeros((64, 64), np.uint8)
        mask[20:44, 16:40] = 1
        picture = rng.integers(0, 256, (64, 64, 3), np.uint8)
        write_case(tmp_path / "box", Case(case_id, picture, mask, picture[:20, :30]))
    write_index(tmp_path / "box", [Origin(i, "a", f"b{i}", "c", "Circle") for i in range(6)])
    bench = read_bench(tmp_path / "box")
    for name in ("first", "second"):
        write_irregular_bench(bench, tmp_path / name, parameters.mask(), seed=3)
    irregular = read_bench(tmp_path / "first")
    shapes = set()
    for case_id in bench.ids:
        old, new = bench.case(case_id), irregular.case(case_id)
        np.testing.assert_array_equal(new.source, old.source)
        np.testing.assert_array_equal(new.exemplar, old.exemplar)
        x0, y0, x1, y1 = new.box
        assert new.mask.sum() < (x1 - x0) * (y1 - y0)  # no box
        assert new.mask[22:42, 18:38].all()  # the middle of the box is repainted
        shapes.add(new.mask.tobytes())
        assert (
            irregular.files(case_id).mask.read_bytes()
            == (tmp_path / "second" / irregular.files(case_id).mask.relative_to(tmp_path / "first")).read_bytes()
        )
    assert len(shapes) == 6
    assert irregular.origins == bench.origins
