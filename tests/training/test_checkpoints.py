import logging

import torch

from pbe.training.checkpoints import list_checkpoints, load_newest, save_checkpoint


def state(step):
    return {"step": step, "model": {"w": torch.full((3,), float(step))}, "records": [[1, 0.5]]}


def test_what_was_saved_comes_back(tmp_path):
    save_checkpoint(tmp_path, 5, state(5), keep=2)
    loaded = load_newest(tmp_path)
    assert loaded["step"] == 5
    assert torch.equal(loaded["model"]["w"], torch.full((3,), 5.0))


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3, 11):
        save_checkpoint(tmp_path, step, state(step), keep=2)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000003", "step-00000011"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, caplog):
    save_checkpoint(tmp_path, 1, state(1), keep=2)
    damaged = save_checkpoint(tmp_path, 2, state(2), keep=2)
    content = bytearray((damaged / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "state.pt").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert load_newest(tmp_path)["step"] == 1
    assert str(damaged) in caplog.text


def test_what_a_killed_writer_left_is_not_a_checkpoint(tmp_path):
    (tmp_path / ".step-00000009.123").mkdir()
    (tmp_path / "step-00000008").mkdir()
    assert load_newest(tmp_path) is None
