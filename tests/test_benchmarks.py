"""Benchmarks that check as well: the one-GPU benchmark at a tiny size, and short fuzz runs. They run as commands."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from pbe import layout
from pbe.errors import UserError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.skipif(torch.cuda.is_available(), reason="takes minutes at full size on a GPU")
def test_the_gpu_benchmark_runs_at_a_tiny_size_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr("sys.argv", ["gpu.py", "--out", str(tmp_path / "rows.json")])
    runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")
    assert "no GPU: a tiny size ran on the CPU" in capsys.readouterr().out
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert {row["section"] for row in rows} == {"checks", "train", "images", "encode", "edit", "lora"}
    checks = [row for row in rows if row["section"] == "checks"]
    assert len(checks) == 7
    assert all(row["holds"] for row in checks)
    measured = [row for row in rows if "value" in row and row["section"] != "checks"]
    assert len(measured) >= 6
    assert all(row["value"] > 0 and row["measured_mfu"] > 0 for row in measured)


def test_the_gpu_benchmark_skips_what_would_not_fit_and_saves_each_row_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from gpu_report import Peaks, Report

    times = iter([0.0, 10.0, 11.0, 12.0, 13.0])
    peaks = Peaks("NVIDIA H100 80GB HBM3", 989e12, 750e12, 3e12)
    report = Report(tmp_path / "rows.json", 20.0, peaks, clock=lambda: next(times))
    assert report.fits("train", "batch 32", 9.0)
    assert not report.fits("train", "batch 64", 10.0)
    report.rate("train", "batch 32", 150.0, "images/s", 2.375e12)
    skipped, row = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert "needs about 10 s, 9 s are left" in skipped["skipped"]
    assert row["times_peer"] == pytest.approx(150 / 135.7)
    assert row["mfu"] == pytest.approx(150 * 2.375 / 989)
    assert row["measured_mfu"] == pytest.approx(150 * 2.375 / 750)


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop", "attention"),
        ("sm90_xmma_wgrad_implicit_gemm_indexed_bf16f32_bf16f32_f32_nhwckrsc_nhwc", "convolution"),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", "matrix"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm>", "matrix"),
        ("triton_red_fused_native_group_norm_silu_3", "norm"),
        ("void cudnn::engines_precompiled::nchwToNhwcKernel<__nv_bfloat16>", "copy"),
        ("Memcpy DtoD (Device -> Device)", "copy"),
        ("triton_poi_fused_add_mul_7", "elementwise"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimizer"),
    ],
)  # fmt: skip
def test_the_kernels_of_a_step_are_grouped_by_kind(monkeypatch: pytest.MonkeyPatch, kernel: str, kind: str) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from gpu_profile import kind_of

    assert kind_of(kernel) == kind


def test_training_and_encoding_need_no_library_of_another_stage() -> None:
    """The GPU machine of a cluster may have torch and the models' libraries only."""
    code = """if True:
        import importlib, sys
        for name in ("ray", "mlflow", "fiftyone", "polars", "prefect", "dvc", "boto3", "obstore", "gradio", "fastapi"):
            sys.modules[name] = None  # type: ignore[assignment]  # importing it raises ModuleNotFoundError
        for name in sys.argv[1:]:
            importlib.import_module(name)
    """
    modules = [
        "pbe.method.painter", "pbe.method.initialization", "pbe.training.loop", "pbe.training.painting_loss",
        "pbe.training.batches", "pbe.latents.frozen_encoders", "pbe.latents.samples", "pbe.latents.latent_cache",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def run_benchmark(name: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_damaged_set_of_own_data_is_imported_or_an_error_of_one_line_and_loses_no_image() -> None:
    output = run_benchmark("fuzz_readers.py", "--num", "100", "--seed", "1")
    assert re.findall(r"^(\w+): 10 sets", output, re.MULTILINE) == [
        "coco", "csv", "cvat", "datumaro", "huggingface", "label_studio", "labelme", "masks", "voc", "yolo",
    ]  # fmt: skip


def test_every_input_of_an_edit_is_edited_or_an_error_of_one_line() -> None:
    output = run_benchmark("fuzz_edit.py", "--num", "150", "--seed", "1")
    edited = re.search(r"^ *(\d+) edited$", output, re.MULTILINE)
    assert edited is not None
    assert 20 < int(edited[1]) < 130


def test_the_tables_of_photographs_have_intervals_over_clips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import photographs

    curated, bench = tmp_path / layout.CURATED, tmp_path / layout.BENCH
    for folder in (curated, bench):
        folder.mkdir(parents=True)
    boxes = {"box_id": [f"{i}" for i in range(8)], "group": ["a"] * 4 + ["b"] * 2 + [None, None]}
    pl.DataFrame(boxes).write_parquet(curated / "boxes.parquet")
    cases = {"case_id": range(8), "source_box_id": boxes["box_id"], "exemplar_box_id": boxes["box_id"][::-1]}
    pl.DataFrame(cases).write_csv(bench / "cases.csv")
    clips = photographs.draw_clips(tmp_path)
    assert list(clips.sources) == [2, 2, 2, 2, 3, 3, 0, 1]  # a box without a clip is a clip of its own
    assert clips.means(np.full(8, 5.0)) == (5.0, 5.0, 5.0)
    by_clip, apart = (
        high - low
        for _, low, high in (clips.means(np.array([0.0] * 4 + [1.0] * 4)), clips.means(np.array([0.0, 1.0] * 4)))
    )
    assert by_clip > 1.5 * apart  # what all cases of a clip share varies more than what differs within clips
    value, _, high = clips.means(np.array([1.0] * 4 + [np.nan] * 4))
    assert value == high == pytest.approx(1.0)


def test_the_tables_of_photographs_replace_what_is_between_the_marks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import photographs

    page = tmp_path / "page.md"
    first, last = photographs.MARKS
    page.write_text(f"before\n{first}\nold\n{last}\nafter\n")
    photographs.write_between_marks(page, "| new |")
    photographs.write_between_marks(page, "| newer |")
    assert page.read_text() == f"before\n{first}\n\n| newer |\n\n{last}\nafter\n"
    assert first in (BENCHMARKS.parent / "docs/photographs.md").read_text()
    page.write_text("no marks")
    with pytest.raises(UserError, match=r"page\.md: needs the lines"):
        photographs.write_between_marks(page, "| new |")
