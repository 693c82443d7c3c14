"""Diffusers' own `PaintByExamplePipeline` on the painter's weights: what the published code makes of the same model.

The weights pass through the published folder (`pbe.interchange`). The pipeline repaints the whole picture, resized to
the painter's square, and its output is taken as it is: without close-ups, and without putting back the pixels outside
the mask, which drift. The number of steps, the guidance scale and the seeds are the painter's; its sampler is PNDM, and
it guides at all noise levels. It draws its noise in its own way, so that the pictures differ from the painter's in
their noise, too.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pbe.errors import UserError
from pbe.evaluation.painting.windows import PaintSettings, Request, Squares, in_calls
from pbe.interchange.folder import write_published
from pbe.method.exemplars import resize
from pbe.method.painter import Painter
from pbe.method.pretrained import load_scheduler, quiet_libraries
from pbe.runtime.devices import DTYPES
from pbe.runtime.files import read_json
from pbe.types import Image, Mask


class StockPainter:
    """Diffusers' pipeline."""

    def __init__(self, pipeline: Any, image_px: int, settings: PaintSettings) -> None:
        self._pipeline = pipeline
        self._image_px = image_px
        self._settings = settings

    @classmethod
    def load(cls, folder: Path, settings: PaintSettings) -> "StockPainter":
        """Load the painter in `folder` into diffusers' pipeline; raises what `Painter.from_pretrained` raises."""
        painter = Painter.from_pretrained(folder)
        with tempfile.TemporaryDirectory() as published:
            write_published(painter, Path(published))
            pipeline = load_pipeline(Path(published))
        with quiet_libraries():
            pipeline.to(torch.device(settings.device), DTYPES[settings.precision])
        return cls(pipeline, painter.image_px, settings)

    def __call__(self, requests: Sequence[Request], guidance_scale: float) -> list[Image]:
        side = self._image_px
        squares = in_calls(
            lambda sources, masks, exemplars, seeds: self._paint(sources, masks, exemplars, seeds, guidance_scale),
            self._settings.call_size,
            np.stack([resize(request.case.source, side, side) for request in requests]),
            np.stack([_resize_mask(request.case.mask, side) for request in requests]),
            np.concatenate([self._pixels(request.case.exemplar) for request in requests]),
            np.array([request.seed for request in requests], np.int64),
        )
        return [resize(square, *r.case.source.shape[:2]) for square, r in zip(squares, requests, strict=True)]

    def _pixels(self, exemplar: Image) -> NDArray[np.float32]:
        """Return an exemplar as the pipeline prepares it, (1, 3, e, e)."""
        prepared = self._pipeline.feature_extractor(images=PillowImage.fromarray(exemplar), return_tensors="np")
        return np.asarray(prepared.pixel_values, np.float32)

    def _paint(
        self,
        sources: Squares,
        masks: Squares,
        exemplars: NDArray[np.float32],
        seeds: NDArray[np.int64],
        guidance_scale: float,
    ) -> Squares:
        painted = self._pipeline(
            example_image=torch.from_numpy(exemplars),
            image=[PillowImage.fromarray(source) for source in sources],
            mask_image=[PillowImage.fromarray(mask * np.uint8(255)) for mask in masks],
            num_inference_steps=self._settings.num_steps,
            guidance_scale=guidance_scale,
            generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds],
            output_type="np",
        ).images
        return np.asarray((painted * 255).round(), np.uint8)


def load_pipeline(folder: Path) -> Any:
    """Return diffusers' pipeline, part by part: its `from_pretrained` cannot read the published folder any more."""
    with quiet_libraries():  # that the pipeline is deprecated is known
        from diffusers import AutoencoderKL, PaintByExamplePipeline, UNet2DConditionModel
        from diffusers.pipelines.deprecated.paint_by_example.image_encoder import PaintByExampleImageEncoder
        from transformers import CLIPImageProcessorPil

        pipeline = PaintByExamplePipeline(
            vae=AutoencoderKL.from_pretrained(folder / "vae"),
            image_encoder=PaintByExampleImageEncoder.from_pretrained(folder / "image_encoder"),
            unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
            scheduler=load_scheduler(folder / "scheduler"),
            safety_checker=None,
            feature_extractor=CLIPImageProcessorPil.from_pretrained(folder / "feature_extractor"),
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def check_exportable(folder: Path) -> None:
    """Raise UserError for a painter that diffusers' pipeline cannot run: one without the bottleneck."""
    if read_json(folder / "image_encoder" / "config.json").get("bottleneck", True) is False:
        raise UserError(
            f"{folder}: diffusers' pipeline runs no model that was trained with method.bottleneck false; remove stock "
            "from evaluate.baselines"
        )


def _resize_mask(mask: Mask, side: int) -> Mask:
    return np.asarray(cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST), np.uint8)
