"""Computes golden.json: FID, QS, CLIP score and KID of a small bench, by the published formulas and libraries alone.

It imports nothing of this project: Pillow resizes, transformers encodes, scipy roots, scikit-learn fits and scores. Run
it from the repository's root, and only to add a number:

    python tests/evaluation/golden/make_golden.py
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import linalg
from sklearn.mixture import GaussianMixture
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

NUM_CASES, NUM_REAL = 53, 330  # three results fill no batch of 50; 330 images support 20 components
SIDE, INPUT = 48, 16
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DIMENSIONS = 8
IDS = [7 * i + 3 for i in range(NUM_CASES)]
GOLDEN = Path(__file__).parent / "golden.json"


def photograph(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Smooth colours, a sharp edge and grain: what resizing changes."""
    y, x = np.mgrid[0:height, 0:width] / 48
    waves = rng.uniform(0.5, 6, (3, 2))
    channels = [np.sin(a * x + b * y + rng.uniform(0, 6)) for a, b in waves]
    out = 128 + 80 * np.stack(channels, -1) + 60 * (x > rng.uniform(0.2, 0.8))[..., None]
    return np.clip(out + rng.normal(0, 12, out.shape), 0, 255).astype(np.uint8)


def write_inputs(folder: Path) -> None:
    """Write a bench in COCOEE's layout, results, real images and a CLIP folder: the same at every call."""
    rng = np.random.default_rng(14)
    for part in ("GT_3500", "Mask_bbox_3500", "Ref_3500", "results", "real", "clip"):
        (folder / part).mkdir(parents=True)
    np.save(folder / "id_list.npy", np.array(IDS, np.int64))
    for case in IDS:
        source = photograph(SIDE, SIDE, rng)
        exemplar = photograph(*rng.integers(10, 60, 2), rng)
        x0, y0 = rng.integers(0, 20, 2)
        x1, y1 = np.array([x0, y0]) + rng.integers(3, 28, 2)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[y0:y1, x0:x1] = 255
        result = source.copy()
        result[y0:y1, x0:x1] = Image.fromarray(exemplar).resize((x1 - x0, y1 - y0))
        Image.fromarray(source).save(folder / "GT_3500" / f"{case:012d}_GT.png")
        Image.fromarray(mask).save(folder / "Mask_bbox_3500" / f"{case:012d}_mask.png")
        Image.fromarray(exemplar).save(folder / "Ref_3500" / f"{case:012d}_ref.png")
        Image.fromarray(result).save(folder / "results" / f"{case:012d}.png")
    for number in range(NUM_REAL):
        Image.fromarray(photograph(*rng.integers(40, 90, 2), rng)).save(folder / "real" / f"{number:06d}.png")
    clip_model(rng).save_pretrained(folder / "clip")


def clip_model(rng: np.random.Generator) -> CLIPVisionModelWithProjection:
    """A small CLIP tower whose weights are numpy's, so that they do not depend on torch's version."""
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=INPUT,
        patch_size=8,
        projection_dim=DIMENSIONS,
    )
    model = CLIPVisionModelWithProjection(config).eval()
    state = model.state_dict()
    for name in sorted(name for name in state if not name.endswith("position_ids")):
        scale = 0.02 if name.startswith("visual_projection") else 0.1 if name.endswith("bias") else 0.7
        weight = rng.normal(0, scale, tuple(state[name].shape)).astype(np.float32)
        state[name] = torch.from_numpy(np.abs(weight) if "norm" in name else weight)
    model.load_state_dict(state)
    return model


def encode(model: CLIPVisionModelWithProjection, pixels: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """(B, 3, 16, 16) normalised => (B, 8)"""
    with torch.no_grad():
        return model(pixel_values=torch.as_tensor(np.array(pixels), dtype=torch.float32)).image_embeds.double().numpy()


def normalised(image: Image.Image) -> NDArray[np.float64]:
    return ((np.asarray(image, np.float32) / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)


def short_side(image: Image.Image, side: int, resampling: Image.Resampling) -> Image.Image:
    """torchvision's Resize(side) and CenterCrop(side) of a Pillow image."""
    width, height = image.size
    size = (side, int(side * height / width)) if width < height else (int(side * width / height), side)
    image = image.resize(size, resampling)
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def clip_preprocess(image: Image.Image) -> NDArray[np.float64]:
    return normalised(short_side(image, INPUT, Image.BICUBIC))


def read(folder: Path, name: str) -> Image.Image:
    return Image.open(folder / name).convert("RGB")


def crops(folder: Path) -> tuple[list[NDArray[np.floating]], list[NDArray[np.floating]]]:
    """The repainted boxes: as the official tool cuts and resizes them, and as they should be."""
    official, corrected = [], []
    for case in IDS:
        result = read(folder, f"results/{case:012d}.png")
        rows, columns = np.nonzero(np.asarray(Image.open(folder / "Mask_bbox_3500" / f"{case:012d}_mask.png")) == 255)
        x0, y0, x1, y1 = columns.min(), rows.min(), columns.max(), rows.max()
        tensor = torch.as_tensor(normalised(result), dtype=torch.float32)[None, :, y0:y1, x0:x1]
        resized = torch.nn.functional.interpolate(tensor, (INPUT, INPUT), mode="bilinear", align_corners=False)
        official.append(resized[0].numpy())
        whole_box = result.crop((x0, y0, x1 + 1, y1 + 1)).resize((INPUT, INPUT), Image.BICUBIC)
        corrected.append(normalised(whole_box))
    return official, corrected


def frechet(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s1 + s2 - 2 * np.real(linalg.sqrtm(s1 @ s2)))


def quality(mixture: GaussianMixture, features: NDArray[np.float64]) -> float:
    return 100 * np.clip(mixture.score_samples(features) / 300, 0, 1).mean()


def cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return 100 * ((a / np.linalg.norm(a, axis=1)[:, None]) * (b / np.linalg.norm(b, axis=1)[:, None])).sum(1)


def kid(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The unbiased estimate, pair by pair."""

    def kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        return (np.dot(x, y) / len(x) + 1) ** 3

    within = [np.mean([kernel(x, y) for i, x in enumerate(z) for j, y in enumerate(z) if i != j]) for z in (a, b)]
    return sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b])


def compute(folder: Path) -> dict[str, float | list[float]]:
    model = CLIPVisionModelWithProjection.from_pretrained(folder / "clip").eval()
    results = encode(model, [clip_preprocess(read(folder, f"results/{case:012d}.png")) for case in IDS])
    squares = [short_side(read(folder, f"real/{n:06d}.png"), SIDE, Image.BILINEAR) for n in range(NUM_REAL)]
    real = encode(model, [clip_preprocess(square) for square in squares])
    exemplars = [read(folder, f"Ref_3500/{case:012d}_ref.png").resize((INPUT, INPUT)) for case in IDS]
    exemplars = encode(model, [normalised(exemplar) for exemplar in exemplars])
    official, corrected = (encode(model, pixels) for pixels in crops(folder))
    mixture = GaussianMixture(20, covariance_type="full", max_iter=300, random_state=0).fit(real)
    return {
        "fid": frechet(results, real),
        "fid_official": frechet(results, real),
        "qs": quality(mixture, results),
        "qs_official": quality(mixture, results[: NUM_CASES // 50 * 50]),
        "clip_score": cosines(corrected, exemplars).mean(),
        "clip_score_official": cosines(official, exemplars).mean(),
        "kid": kid(results, real),
        "first_clip_scores": list(cosines(corrected, exemplars)[:3]),
        "first_clip_scores_official": list(cosines(official, exemplars)[:3]),
        "first_result": list(results[0]),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        numbers = compute(Path(folder))
    GOLDEN.write_text(json.dumps(numbers, indent=2) + "\n")
    print(GOLDEN.read_text())


if __name__ == "__main__":
    main()
