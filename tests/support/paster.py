"""A painter for tests that pastes the exemplar, and needs no model."""

from collections.abc import Sequence

import numpy as np

from pbe.evaluation.baselines import baseline_result
from pbe.evaluation.benches.bench import Bench, result_path, write_image
from pbe.evaluation.painting.processes import PaintJob
from pbe.types import Progress, no_progress


class Paster:
    """Blends the source with the pasted exemplar, more of it the larger the guidance scale; counts painted cases."""

    def __init__(self) -> None:
        self.num_painted = 0

    def __call__(self, bench: Bench, jobs: Sequence[PaintJob], *, progress: Progress = no_progress) -> None:
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
            for case_id in bench.ids[: job.num_cases]:
                path, case = result_path(job.folder, case_id), bench.case(case_id)
                if not path.is_file():
                    amount = min(1.0, job.guidance_scale / 5)
                    blended = case.source * (1 - amount) + baseline_result("copy_paste", 0, case) * amount
                    write_image(path, blended.round().astype(np.uint8))
                    self.num_painted += 1
                    progress(self.num_painted, sum(job.num_cases for job in jobs))
