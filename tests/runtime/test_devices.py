"""The choice of device and precision, and the messages for what a machine does not have."""

import pytest
import torch

from pbe.errors import UserError
from pbe.runtime.devices import choose_device, choose_devices, choose_precision, has_fast_bf16, precision_name

CPU = torch.device("cpu")


def have_gpus(monkeypatch: pytest.MonkeyPatch, num_gpus: int, capability: tuple[int, int] = (9, 0)) -> None:
    """Make torch report that many GPUs; their memory and kernels are not used."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


def test_auto_takes_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    have_gpus(monkeypatch, 0)
    assert choose_device("auto") == CPU
    have_gpus(monkeypatch, 2)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cpu") == CPU
    assert choose_device("cuda:1") == torch.device("cuda:1")


def test_work_is_divided_among_all_gpus_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    have_gpus(monkeypatch, 2)
    both = [torch.device("cuda:0"), torch.device("cuda:1")]
    assert choose_devices("auto") == choose_devices("cuda") == both
    assert choose_devices("cuda:1") == both[1:]
    assert choose_devices("cpu") == [CPU]
    have_gpus(monkeypatch, 0)
    assert choose_devices("auto") == [CPU]


@pytest.mark.parametrize(
    ("num_gpus", "name", "found"),
    [
        (0, "cuda", "no GPU that PyTorch can use"),
        (0, "cuda:7", "no GPU that PyTorch can use"),
        (1, "cuda:1", "one GPU, cuda:0"),
        (4, "cuda:7", "4 GPUs, cuda:0 to cuda:3"),
        (4, "cuda:300", "4 GPUs, cuda:0 to cuda:3"),
    ],
)
def test_a_gpu_that_does_not_exist_is_an_error(
    monkeypatch: pytest.MonkeyPatch, num_gpus: int, name: str, found: str
) -> None:
    have_gpus(monkeypatch, num_gpus)
    with pytest.raises(UserError) as error:
        choose_device(name, "--device")
    assert str(error.value) == f"--device '{name}': this machine has {found}; choose auto or cpu"


@pytest.mark.parametrize("name", ["gpu", "mps", "", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "cuda:0:1"])
def test_an_unknown_device_is_an_error(name: str) -> None:
    with pytest.raises(UserError) as error:
        choose_device(name)
    assert str(error.value) == f"device '{name}': unknown; choose auto, cpu, cuda or cuda:1"


@pytest.mark.parametrize(
    ("features", "dtype"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"bf16": True}, torch.bfloat16),  # of ARM
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_is_bf16_on_a_cpu_with_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, features: dict[str, bool], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert choose_precision("auto", CPU) == dtype


def test_the_capabilities_of_this_cpu_can_be_read() -> None:
    assert choose_precision("auto", CPU) == (torch.bfloat16 if has_fast_bf16(CPU) else torch.float32)


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_auto_is_bf16_on_gpus_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    have_gpus(monkeypatch, 1, capability)
    assert choose_precision("auto", torch.device("cuda")) == dtype
    assert choose_precision("fp16", torch.device("cuda")) == torch.float16


def test_fp16_on_a_cpu_and_unknown_precisions_are_errors() -> None:
    with pytest.raises(UserError) as error:
        choose_precision("fp16", CPU, "evaluate.precision")
    assert str(error.value) == "evaluate.precision 'fp16': needs a GPU; choose auto, bf16 or fp32"
    with pytest.raises(UserError) as error:
        choose_precision("fp8", CPU)
    assert str(error.value) == "precision 'fp8': unknown; choose auto, fp32, bf16, fp16"


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_a_precision_is_what_its_name_says(name: str) -> None:
    assert precision_name(choose_precision(name, CPU)) == name
