"""The recipe's training data: scenes of the demo world that are not in the demo's bucket, and crops of them."""

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pbe.demo.scenes import Attributes, Scene, SceneObject, draw_scene
from pbe.demo.weights.recipe import EXEMPLAR_PX, IMAGE_PX
from pbe.method.exemplars import augment_exemplar, crop_exemplar
from pbe.settings import ExemplarAugmentation
from pbe.types import Image


def draw_scenes(num_scenes: int, seed: int, max_objects: int) -> list[Scene]:
    """Draw scenes from a separate stream of random numbers; none of them is part of the demo's bucket."""
    rng = np.random.default_rng([seed, max_objects, 77])
    return [draw_scene(rng, max_objects, rare_kinds=False) for _ in tqdm(range(num_scenes), "scenes")]


def square_crop(scene: Scene, rng: np.random.Generator) -> Image:
    """Cut a random 64 x 64 window from a scene."""
    height, width = scene.image.shape[:2]
    top, left = rng.integers(0, height - IMAGE_PX + 1), rng.integers(0, width - IMAGE_PX + 1)
    return scene.image[top : top + IMAGE_PX, left : left + IMAGE_PX]


def to_tensor(images: list[Image]) -> Tensor:
    """NHWC uint8 => NCHW float32 in -1..1."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def clear_objects(scenes: list[Scene]) -> list[tuple[Scene, SceneObject]]:
    """Return the objects that a caption fully describes: not truncated, not occluded, at least 10 px on each side."""
    return [
        (s, o)
        for s in scenes
        for o in s.objects
        if not (o.is_truncated or o.is_occluded) and min(o.box.width, o.box.height) >= 10
    ]


def draw_crops(
    pairs: list[tuple[Scene, SceneObject]],
    size: int,
    rng: np.random.Generator,
    augment: ExemplarAugmentation,
) -> tuple[Tensor, list[Attributes]]:
    """Draw a batch of augmented crops of objects, (B, 3, 32, 32) in -1..1, and return it with their attributes."""
    crops, attributes = [], []
    for index in rng.integers(len(pairs), size=size):
        scene, o = pairs[index]
        crop = crop_exemplar(scene.image, tuple(o.box), float(rng.uniform(0.0, 0.12)), EXEMPLAR_PX)
        crops.append(augment_exemplar(crop, augment, rng))
        attributes.append(o.attributes)
    return to_tensor(crops), attributes
