"""Training samples/s of one core: from JPEGs and from the latent cache, compared with the official dataset class.

    .venv/bin/python benchmarks/loader.py [--images FOLDER] [--count 48] [--repeats 3]

The peer does the work of `OpenImageDataset.__getitem__` in the official code, implemented independently: decode with
Pillow, turn the whole image into a normalised float tensor, decode it a second time for the exemplar, draw the mask as
a full-size RGB picture and turn that into a float tensor, cut the square, resize both tensors bilinearly. Its exemplar
goes through albumentations if that is installed, otherwise through the same transforms in cv2. Images are 1024 x 768
JPEGs of quality 92, generated unless a folder is given. All ways alternate in this process. Prints ratios, asserts
nothing.
"""

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image as PillowImage
from PIL import ImageDraw
from torch import Tensor
from torch.nn import functional as F

from pbe import layout
from pbe.dataset.curated_boxes import CuratedBox
from pbe.dataset.image_shards import write_tar
from pbe.dataset.images import read_image
from pbe.latents.latent_cache import INDEX, TENSORS, LatentCache, shard_name, write_shard
from pbe.latents.samples import SampleDrawer
from pbe.settings import load_settings
from pbe.training.batches import BatchSource
from pbe.types import Box, Image

WIDTH, HEIGHT, IMAGE_PX, EXEMPLAR_PX, LATENT_PX, TOKEN_WIDTH = 1024, 768, 512, 224, 64, 1024
QUALITY = 92


def draw_picture(rng: np.random.Generator) -> Image:
    """Draw noise of all scales, weaker at finer ones as in a photograph: a JPEG of about 200 KB."""
    picture = np.full((HEIGHT, WIDTH, 3), 128.0, np.float32)
    for cells, strength in ((4, 45), (12, 28), (40, 18), (130, 10), (400, 5)):
        coarse = rng.standard_normal((cells * 3 // 4, cells, 3)).astype(np.float32)
        picture += strength * cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture, 0, 255).astype(np.uint8)


def write_images(folder: Path, given: Path | None, count: int) -> list[CuratedBox]:
    """Write `count` JPEGs, as files and in a shard; return a box for each, of 2 to 80 % of the image."""
    rng = np.random.default_rng(0)
    (folder / "train").mkdir(parents=True)
    paths = sorted(given.rglob("*.jpg"))[:count] if given else []
    boxes, files = [], []
    for i in range(count):
        picture = read_image(paths[i % len(paths)]) if paths else draw_picture(rng)
        fitted = PillowImage.fromarray(picture).resize((WIDTH, HEIGHT), PillowImage.Resampling.LANCZOS)
        fitted.save(folder / "train" / f"{i}.jpg", quality=QUALITY)
        area, aspect = rng.uniform(0.02, 0.8) * WIDTH * HEIGHT, rng.uniform(0.7, 1.4)
        width = int(min((area * aspect) ** 0.5, WIDTH - 1))
        height = int(min(area / width, HEIGHT - 1))
        x0, y0 = int(rng.integers(WIDTH - width)), int(rng.integers(HEIGHT - height))
        boxes.append((x0, y0, x0 + width, y0 + height))
        files.append((str(i), (folder / "train" / f"{i}.jpg").read_bytes()))
    places = write_tar(folder / "train-00000.tar", files)
    return [CuratedBox(f"{i}_000", str(i), "train", box, places[str(i)]) for i, box in enumerate(boxes)]


class OfficialWork:
    """The work of one sample of the official dataset class."""

    def __init__(self, images: Path, seed: int = 0) -> None:
        self.images = images
        self.rng = np.random.default_rng(seed)
        self.augment = self._albumentations() if importlib.util.find_spec("albumentations") else self._cv2
        self.name = "albumentations" if importlib.util.find_spec("albumentations") else "cv2"

    def _albumentations(self) -> Callable[[Image], Image]:
        import albumentations as A

        steps = [A.Resize(EXEMPLAR_PX, EXEMPLAR_PX), A.HorizontalFlip(p=0.5), A.Rotate(limit=20), A.Blur(p=0.3)]
        whole = A.Compose([*steps, A.ElasticTransform(p=0.3)])
        return lambda crop: np.asarray(whole(image=crop)["image"], np.uint8)

    def _cv2(self, crop: Image) -> Image:
        side, rng = EXEMPLAR_PX, self.rng
        out = cv2.resize(crop, (side, side))
        if rng.random() < 0.5:
            out = out[:, ::-1]
        if rng.random() < 0.5:
            turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-20, 20), 1)
            out = cv2.warpAffine(out, turn, (side, side), borderMode=cv2.BORDER_REFLECT_101)
        if rng.random() < 0.3:
            out = cv2.blur(out, (5, 5))
        if rng.random() < 0.3:
            flow = [cv2.GaussianBlur(rng.uniform(-1, 1, (side, side)), (0, 0), 50).astype(np.float32) for _ in "xy"]
            ys, xs = np.mgrid[0:side, 0:side].astype(np.float32)
            out = cv2.remap(out, xs + flow[0], ys + flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        return np.ascontiguousarray(out)

    def _outline(self, box: Box) -> list[tuple[float, float]]:
        """Return jittered points on a curve along each edge, computed one by one in Python."""
        x0, y0, x1, y1 = box
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        outline = []
        for i, start in enumerate(corners):
            end = corners[(i + 1) % 4]
            bulge = ((start[0] + end[0]) / 2 + self.rng.integers(-30, 30), (start[1] + end[1]) / 2)
            nodes = np.asfortranarray(np.array([start, bulge, end], np.float64).T)
            for t in sorted(self.rng.choice(19, 18, replace=False) / 19):
                point = (1 - t) ** 2 * nodes[:, 0] + 2 * t * (1 - t) * nodes[:, 1] + t**2 * nodes[:, 2]
                jittered = point + self.rng.integers(-5, 6, 2)
                outline.append((float(jittered[0]), float(jittered[1])))
        return outline

    def draw(self, box: CuratedBox) -> dict[str, Tensor]:
        path = self.images / box.split / f"{box.image_id}.jpg"
        x0, y0, x1, y1 = box.xyxy
        image = to_tensor(np.array(PillowImage.open(path).convert("RGB"))).sub(0.5).div(0.5)  # all of it, as floats
        again = np.array(PillowImage.open(path).convert("RGB"))  # the second decoding
        exemplar = self.augment(again[max(0, y0 - 10) : y1 + 10, max(0, x0 - 10) : x1 + 10])
        drawn = PillowImage.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
        if self.rng.random() < 0.5:
            ImageDraw.Draw(drawn).polygon(self._outline(box.xyxy), fill=(0, 0, 0))
        else:
            ImageDraw.Draw(drawn).rectangle(box.xyxy, fill=(0, 0, 0))
        keep = 1 - (1 - to_tensor(np.array(drawn)))  # a full-size RGB float as well
        side = min(WIDTH, HEIGHT)
        left = int(self.rng.integers(max(0, x1 - side), min(x0, WIDTH - side) + 1)) if x1 - x0 < side else 0
        source, mask = (
            F.interpolate(t[None, :, :side, left : left + side], size=(IMAGE_PX, IMAGE_PX), mode="bilinear")[0]
            for t in (image, keep)
        )
        mean, deviation = torch.tensor([0.481, 0.458, 0.408]), torch.tensor([0.269, 0.261, 0.276])
        reference = to_tensor(exemplar).sub(mean[:, None, None]).div(deviation[:, None, None])
        return {"GT": source, "inpaint_image": source * mask, "inpaint_mask": mask[:1], "ref_imgs": reference}


def to_tensor(pixels: Image) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).contiguous().float().div(255)


def write_cache(
    folder: Path, num_rows: int, shard_rows: int, latent_px: int = LATENT_PX, token_width: int = TOKEN_WIDTH
) -> None:
    """Write shards in the format of `encode`; their values do not matter to a reader."""
    folder.mkdir(parents=True)
    latents, mask, tokens = (4, latent_px, latent_px), (1, latent_px, latent_px), (2, 1, token_width)
    shapes = dict(zip(TENSORS, (latents, latents, mask, tokens), strict=True))
    num_shards = -(-num_rows // shard_rows)
    for i in range(num_shards):
        count = min(shard_rows, num_rows - i * shard_rows)
        rows = {name: torch.randn(count, *shape).half() for name, shape in shapes.items()}
        write_shard(folder / shard_name(i), rows)
    index = {"rows": num_rows, "shards": num_shards, "boxes": num_rows, "shard_rows": shard_rows}
    (folder / INDEX).write_text(json.dumps(index))


def rates(ways: dict[str, Callable[[], int]], repeats: int) -> dict[str, float]:
    """Return the median samples per CPU second of each way; the ways alternate."""
    for work in ways.values():
        work()
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            start = time.process_time()
            count = work()
            seen[name].append(count / (time.process_time() - start))
    return {name: statistics.median(values) for name, values in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="use these JPEGs, resized to 1024 x 768")
    parser.add_argument("--count", type=int, default=48, help="images, each read once in a turn; at least 16")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        boxes = write_images(folder / "images", options.images, max(16, options.count))  # the drawer keeps 8
        write_cache(folder / "latents", 4096, 1024)
        official = OfficialWork(folder / "images")
        settings = load_settings(Path(__file__).parents[1] / layout.PARAMS)
        method = settings.method.replace(image_px=IMAGE_PX, close_up_probability=0.0)
        drawer = SampleDrawer(folder / "images", method, EXEMPLAR_PX, 1, seed=0)
        cache = LatentCache(folder / "latents")
        train = settings.train.replace(num_workers=1, batch_size=64, accumulate=1)
        source = BatchSource(len(cache), lambda indices, epochs: cache.rows(indices), train, seed=0)
        turn = iter(range(1_000_000))

        def draw_ours() -> int:
            return len([drawer.draw(box, variant) for variant in [next(turn)] for box in boxes])

        def read_rows() -> int:
            return sum(len(cache.rows(source.indices(next(turn))[0])["mask"]) for _ in range(16))

        def read_batches() -> int:
            return sum(len(source.batches(next(turn), 0)[0].mask) for _ in range(16))

        ways: dict[str, Callable[[], int]] = {
            "official": lambda: len([official.draw(box) for box in boxes]),
            "ours": draw_ours,
            "decode alone": lambda: len([read_image(folder / "images/train" / f"{b.image_id}.jpg") for b in boxes]),
            "cached": read_rows,
            "cached, with noise": read_batches,
        }
        kilobytes = sum(p.stat().st_size for p in (folder / "images/train").iterdir()) / len(boxes) / 1e3
        measured = rates(ways, options.repeats)
    print(
        f"{WIDTH} x {HEIGHT} JPEGs of {kilobytes:.0f} KB -> {IMAGE_PX} px, one thread; peer augments by {official.name}"
    )
    for way, rate in measured.items():
        print(f"{way:<20} {rate:9.1f} samples/s {rate / measured['official']:8.1f} x")


if __name__ == "__main__":
    main()
