"""Random and damaged inputs of an edit; `benchmarks/fuzz_edit.py` tries many more."""

import random
from collections import Counter
from pathlib import Path

from tests.support.edit_fuzzing import check_edit


def test_every_input_is_edited_or_is_an_error_of_one_line(tmp_path: Path) -> None:
    results = Counter(check_edit(random.Random(number), tmp_path / "out") for number in range(150))
    assert 20 < results["edited"] < 130
    assert not [message for message in results if "\n" in message]
