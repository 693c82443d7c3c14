"""Scoring a bench in one pass against the official way: three tools that each decode and encode the pictures again.

    .venv/bin/python benchmarks/evaluation.py [--num-cases 48] [--num-methods 5] [--threads 1] [--dtypes fp32 bf16]

The official way is section 4.1's three tools as their authors wrote them: the FID tool encodes all results in batches
of 50, the QS tool does so again, and the CLIP tool encodes each repainted region and each exemplar alone. Both sides
have the same CLIP ViT-B/32, with random weights, which cost as much as trained ones, and leave out the reference images
(we keep their features; the official tools encode them each time). Several methods are scored together, as a report
needs them; the official tools take one after another. Prints seconds, memory and the ratio.
"""

import argparse
import resource
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from large_bench import write_drawn_case
from PIL import Image as PillowImage
from sizes import machine, medians_s
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pbe.evaluation.baselines.pasting import copy_paste
from pbe.evaluation.benches.bench import Bench, result_path, write_image
from pbe.evaluation.benches.bench_folder import read_bench
from pbe.evaluation.encoders.loading import open_encoder
from pbe.evaluation.scorers.paper import ClipScorer
from pbe.evaluation.scoring.case_scores import painted_method
from pbe.evaluation.scoring.cases import score_cases
from pbe.evaluation.scoring.parts import ScoreParts
from pbe.evaluation.scoring.protocols import open_protocols
from pbe.runtime.devices import DTYPES

BATCH = 50  # of the official tools
SIDE = 224
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-cases", type=int, default=48)
    parser.add_argument("--num-methods", type=int, default=5)
    parser.add_argument("--image-px", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench, results = draw(folder, options.num_cases, options.image_px)
        save_random_clip(folder / "clip")
        official = OfficialTools(folder / "clip")
        every = [results] * options.num_methods
        sides: dict[str, Callable[[], object]] = {"official": partial(official.score_all, bench, every)}
        for dtype in options.dtypes:
            sides[f"ours, {dtype}"] = partial(OnePass(folder / "clip", dtype).score_all, bench, every)
        took = medians_s(sides, options.repeats)
    for side, seconds in took.items():
        ratio = took["official"] / seconds
        result_ms = 1000 * seconds / len(bench) / options.num_methods
        print(f"{side}: {seconds:.2f} s, {result_ms:.1f} ms a result, {ratio:.2f} x")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def draw(folder: Path, num_cases: int, image_px: int) -> tuple[Bench, Path]:
    """Draw a bench, and results of copying and pasting on it; return the bench and the results' folder."""
    for case_id in range(num_cases):
        write_drawn_case(folder / "bench", image_px, case_id)
    np.save(folder / "bench" / "id_list.npy", np.arange(num_cases))
    bench, results = read_bench(folder / "bench"), folder / "results"
    results.mkdir()
    for case_id in bench.ids:
        case, rng = bench.case(case_id), np.random.default_rng(case_id)
        write_image(result_path(results, case_id), copy_paste(case.source, case.mask, case.exemplar, rng))
    return bench, results


def save_random_clip(folder: Path) -> None:
    torch.manual_seed(0)
    CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=512)).save_pretrained(folder)  # ViT-B/32 otherwise


class OfficialTools:
    """The three official tools: what they read, resize and encode, with batches as in their code."""

    def __init__(self, clip: Path) -> None:
        self.model = CLIPVisionModelWithProjection.from_pretrained(clip).eval()

    def score_all(self, bench: Bench, every: list[Path]) -> list[tuple[int, int, float]]:
        return [self.score(bench, results) for results in every]

    def score(self, bench: Bench, results: Path) -> tuple[int, int, float]:
        files = [result_path(results, case_id) for case_id in bench.ids]
        fid, quality = self.whole(files), self.whole(files)
        return len(fid), len(quality), float(np.mean([self.region(bench, results, i) for i in bench.ids]))

    def whole(self, files: list[Path]) -> Tensor:
        """Encode files in batches, as the tools of FID and of QS do."""
        batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
        return torch.cat([self.encode(torch.stack([preprocess(PillowImage.open(f)) for f in b])) for b in batches])

    def region(self, bench: Bench, results: Path, case_id: int) -> float:
        """Return the CLIP score of one case, as its tool does: one image at a time."""
        result = to_tensor(PillowImage.open(result_path(results, case_id)).convert("RGB"))
        files = bench.files(case_id)
        exemplar = to_tensor(PillowImage.open(files.exemplar).resize((SIDE, SIDE)).convert("RGB"))
        mask = cv2.imread(str(files.mask), cv2.IMREAD_GRAYSCALE)
        rows, columns = np.nonzero(mask == 255)
        crop = result[None, :, rows[0] : rows[-1], columns[0] : columns[-1]]
        resized = torch.nn.functional.interpolate(crop, (SIDE, SIDE), mode="bilinear")[0]
        a, b = (torch.nn.functional.normalize(self.encode(each[None])) for each in (resized, exemplar))
        return 100 * float(a @ b.T)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        embeds: Tensor = self.model(pixels).image_embeds
        return embeds


class OnePass:
    """Our scoring: results and cases decoded once, and whole results, regions and exemplars encoded in batches."""

    def __init__(self, clip: Path, dtype: str) -> None:
        [self.protocol] = open_protocols("corrected", open_encoder(clip, dtype=DTYPES[dtype]))

    def score_all(self, bench: Bench, every: list[Path]) -> list[float]:
        methods = [painted_method(f"method {number}", results, bench) for number, results in enumerate(every)]
        features = {self.protocol.name: self.protocol.features}
        with tempfile.TemporaryDirectory() as name:
            parts = ScoreParts(Path(name), "benchmark")
            scores = score_cases(bench, methods, [ClipScorer(self.protocol)], features, parts)
        return [float(each.columns["clip_score"].mean()) for each in scores.values()]


def preprocess(image: PillowImage.Image) -> Tensor:
    """CLIP's preprocessing: the short side to 224 px, bicubic, and the centre square."""
    scale = SIDE / min(image.size)
    resized = image.resize((round(image.width * scale), round(image.height * scale)), PillowImage.Resampling.BICUBIC)
    left, top = (resized.width - SIDE) // 2, (resized.height - SIDE) // 2
    return to_tensor(resized.crop((left, top, left + SIDE, top + SIDE)).convert("RGB"))


def to_tensor(image: PillowImage.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


if __name__ == "__main__":
    main()
