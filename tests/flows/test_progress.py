"""A line of progress says how far a loop is, how it goes and how long it still takes."""

import re

import pytest

from flows.progress import stage_progress


def test_a_finished_loop_prints_one_line_with_its_note(capsys: pytest.CaptureFixture[str]) -> None:
    bar = stage_progress("train")("steps")
    bar(1, 4, "loss 0.9")
    bar(4, 4, "loss 0.5")
    line = r"train: steps 4/4 \(100 %, loss 0\.5, 00:00 elapsed, 00:00 left\)\n"
    assert re.fullmatch(line, capsys.readouterr().err)


def test_a_loop_may_report_the_same_count_again_and_a_new_total(capsys: pytest.CaptureFixture[str]) -> None:
    bar = stage_progress("encode")("shards")
    for done, total in ((0, 2), (1, 2), (1, 3), (3, 3)):
        bar(done, total)
    assert capsys.readouterr().err.startswith("encode: shards 3/3 (100 %, ")
