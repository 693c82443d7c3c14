"""Adapters: merged they are what they were applied, they train, stack, resume, and belong to an architecture."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from pbe.errors import UserError
from pbe.method.adapters import CONFIG, WEIGHTS, digest_painter, merge_adapter, read_adapter
from pbe.method.initialization import build_painter
from pbe.method.painter import Painter
from pbe.training.batches import BatchSource
from pbe.training.loop import Trainer
from pbe.training.lora import add_adapters, take_adapter, write_adapter
from pbe.training.painting_loss import PaintingLoss
from tests.support import parameters
from tests.support.tiny_painter import changed_painter
from tests.training.test_loop import fetch, run, weights


def adapted(backbone: Path, rank: int = 3, seed: int = 1, bottleneck: bool = True) -> Painter:
    """Return a painter with adapters that change something."""
    painter = changed_painter(backbone) if bottleneck else build_painter(backbone, 64, 0, bottleneck=False)
    add_adapters(painter, rank, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in PaintingLoss(painter).trained().values():
            p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    return painter


def written(painter: Painter, folder: Path) -> Path:
    adapter = take_adapter(painter)
    assert adapter
    write_adapter(painter, adapter, folder)
    return folder


def losses(painter: Painter) -> Tensor:
    source = BatchSource(8, fetch, parameters.train(num_workers=1, batch_size=4), 0)
    with torch.no_grad():
        return PaintingLoss(painter)(source.batches(0, 0)[0])


def trainer(backbone: Path, **changes: Any) -> Trainer:
    defaults = {"num_workers": 1, "batch_size": 4, "steps": 8, "lr": 5e-3, "checkpoint_every": 3, "lora_rank": 2}
    train = parameters.train(**defaults | changes)
    painter = build_painter(backbone, 64, 0)
    add_adapters(painter, train.lora_rank, 0)
    return Trainer(painter, BatchSource(40, fetch, train, 0), train, 0, "cpu")


@pytest.mark.parametrize("bottleneck", [True, False])
def test_a_merged_adapter_is_the_applied_one(backbone: Path, tmp_path: Path, bottleneck: bool) -> None:
    painter = adapted(backbone, bottleneck=bottleneck)
    applied = losses(painter)
    folder = written(painter, tmp_path / "adapter")
    base = losses(painter)
    merge_adapter(painter, read_adapter(folder))
    torch.testing.assert_close(losses(painter), applied, rtol=1e-5, atol=1e-5)
    assert (base - applied).abs().max() > 1e-3


def test_peft_applies_the_written_adapter_to_the_base(backbone: Path, tmp_path: Path) -> None:
    painter = adapted(backbone)
    applied = losses(painter)
    folder = written(painter, tmp_path / "adapter")
    PeftModel.from_pretrained(painter, folder)
    torch.testing.assert_close(losses(painter), applied, rtol=0, atol=0)


def test_a_new_adapter_changes_nothing_and_its_base_comes_back(backbone: Path) -> None:
    painter = changed_painter(backbone)
    before, state = losses(painter), {k: v.clone() for k, v in painter.state_dict().items()}
    add_adapters(painter, 4, 0)
    assert torch.equal(losses(painter), before)
    assert all(".lora_" in name for name in PaintingLoss(painter).trained())
    take_adapter(painter)
    assert painter.state_dict().keys() == state.keys()
    assert all(torch.equal(v, state[k]) for k, v in painter.state_dict().items())
    assert take_adapter(painter) is None


def test_with_one_token_queries_and_keys_over_it_get_no_adapter(backbone: Path) -> None:
    for bottleneck, has_queries in ((True, False), (False, True)):
        painter = adapted(backbone, bottleneck=bottleneck)
        names = {name.rsplit(".lora_", 1)[0] for name in PaintingLoss(painter).trained()}
        assert any(n.endswith("attn1.to_q") and n.startswith("unet.") for n in names)
        assert any(n.endswith("attn2.to_v") for n in names)
        assert {"unet.conv_in", "proj_out"} <= names
        assert any(n.endswith("attn2.to_q") for n in names) is has_queries
        assert any(n.startswith("mapper.") and n.endswith("attn1.to_k") for n in names) is has_queries


def test_only_adapters_are_trained_kept_and_averaged_and_the_loss_falls(backbone: Path, tmp_path: Path) -> None:
    learning = trainer(backbone, steps=40, batch_size=8, lora_rank=4, lr=1e-2, checkpoint_every=40)
    base = {k: v.clone() for k, v in learning.painter.state_dict().items() if ".lora_" not in k}
    run(learning, tmp_path)
    seen = [r.loss for r in learning.records]
    assert sum(seen[-10:]) < 0.95 * sum(seen[:10])
    state = learning.painter.state_dict()
    assert all(torch.equal(state[k], v) for k, v in base.items())
    assert all(".lora_" in name for name in learning.update.averaged_weights())
    assert any(not torch.equal(v, weights(learning)[k]) for k, v in learning.update.averaged_weights().items())


def test_adapters_resume_to_the_same_bits(backbone: Path, tmp_path: Path) -> None:
    whole, resumed = trainer(backbone), trainer(backbone)
    run(whole, tmp_path / "whole")
    run(trainer(backbone), tmp_path / "killed", stop_after=5)
    run(resumed, tmp_path / "killed")
    for a, b in (
        (weights(whole), weights(resumed)),
        (whole.update.averaged_weights(), resumed.update.averaged_weights()),
    ):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_two_adapters_add_up_in_any_order(backbone: Path, tmp_path: Path) -> None:
    folders = [written(adapted(backbone, rank, rank), tmp_path / str(rank)) for rank in (2, 5)]
    one, two = (read_adapter(folder) for folder in folders)
    states = []
    for order in ([(one, 0.5), (two, 2.0)], [(two, 2.0), (one, 0.5)]):
        painter = changed_painter(backbone)
        for adapter, weight in order:
            merge_adapter(painter, adapter, weight)
        states.append(painter.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-5, atol=1e-5)
    name = "conditioner.proj_out"
    change = sum(w * a.scale * a.factors[name][1] @ a.factors[name][0] for a, w in ((one, 0.5), (two, 2.0)))
    base = changed_painter(backbone).state_dict()[f"{name}.weight"]
    torch.testing.assert_close(states[0][f"{name}.weight"], base + change, rtol=1e-5, atol=1e-5)


def test_an_adapter_names_its_base(backbone: Path, tmp_path: Path) -> None:
    painter = adapted(backbone)
    folder = written(painter, tmp_path / "adapter")
    painter.save_pretrained(tmp_path / "base")
    assert read_adapter(folder).traits["base"] == digest_painter(Painter.from_pretrained(tmp_path / "base"))
    merge_adapter(painter, read_adapter(folder))
    assert read_adapter(folder).traits["base"] != digest_painter(painter)


def damage(folder: Path, config: dict[str, Any] | None = None, tensors: dict[str, Tensor] | None = None) -> None:
    if config:
        (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | config))
    if tensors:
        save_file(load_file(folder / WEIGHTS) | tensors, folder / WEIGHTS)


PROJECTION = "base_model.model.conditioner.proj_out"


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"peft_type": "IA3"}, None, "peft_type is IA3; only LORA is supported"),
        ({"use_dora": True}, None, "use_dora is True; only False is supported"),
        ({"r": 0}, None, "r is 0 and lora_alpha is 3"),
        (None, {"a.weight": torch.zeros(1)}, r"a\.weight is not a pair of lora_A and lora_B"),
        (None, {f"{PROJECTION}.lora_B.weight": torch.zeros(7, 3)}, r"\(7, 3\) of conditioner\.proj_out do not fit"),
        (None, {f"{PROJECTION}.lora_A.weight": torch.full((3, 16), torch.nan)}, "holds NaN or infinite values"),
        (
            None,
            {f"unet.x.lora_{factor}.weight": torch.zeros(3, 3) for factor in "AB"},
            r"changes the layer unet\.x, which this painter does not have",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_applied_is_named(
    backbone: Path, tmp_path: Path, config: dict[str, Any] | None, tensors: dict[str, Tensor] | None, message: str
) -> None:
    painter = adapted(backbone)
    folder = written(painter, tmp_path / "adapter")
    damage(folder, config, tensors)
    with pytest.raises(UserError, match=message):
        merge_adapter(painter, read_adapter(folder))


def test_an_adapter_of_another_mask_channel_is_refused_and_a_folder_without_one(backbone: Path, tmp_path: Path) -> None:
    painter = adapted(backbone)
    folder = written(painter, tmp_path / "adapter")
    painter.mask_channel = "keep"
    with pytest.raises(UserError, match="trained on a painter with mask_channel 'repaint'; this one has 'keep'"):
        merge_adapter(painter, read_adapter(folder))
    with pytest.raises(UserError, match=r"not an adapter \(adapter_config\.json is missing\)"):
        read_adapter(tmp_path)
