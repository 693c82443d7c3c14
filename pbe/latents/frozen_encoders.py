"""The frozen encoders, VAE and CLIP tower: training needs only their output for each sample."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.models.resnet import ResnetBlock2D
from numpy.typing import NDArray
from torch import Tensor, nn

from pbe.method.conditioner import Conditioner
from pbe.method.denoiser import mask_latents
from pbe.method.pretrained import load_vae
from pbe.method.training_triplet import TrainingTriplet

Encoded = dict[str, Tensor]

_VAE_PICTURES = 32  # encoded at once on a GPU: 32 fill an H100, and at 512 px their activations take about 8 GB
_RECOMPILE_LIMIT = 64  # the blocks share one code object, which compiles once for each width, side and batch


class FrozenEncoders:
    """The VAE's encoder and the CLIP tower of a backbone, on one device and in one precision.

    The tower gives T tokens for each exemplar: the class token alone with the bottleneck, all of its tokens without.
    The weights are channels_last, except in fp32 on a CPU. On a GPU with `compiled`, the VAE's residual blocks are
    compiled, which takes seconds, and batches are padded to `batch_size`, so that all have one shape.
    """

    def __init__(
        self,
        backbone: Path,
        device: str | torch.device = "cpu",
        bottleneck: bool = True,
        dtype: torch.dtype = torch.float32,
        *,
        compiled: bool = False,
        batch_size: int | None = None,
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.conditioner = Conditioner.from_tower(backbone / "image_encoder", context_dim=1, bottleneck=bottleneck)
        tower: nn.Module = self.conditioner.model  # the mapper is not used
        tower.to(self.device, dtype)
        vae = load_vae(backbone)
        self._scaling_factor: float = vae.config.scaling_factor
        self._vae = nn.Sequential(vae.encoder, vae.quant_conv or nn.Identity()).to(self.device, dtype)
        self._on_gpu = self.device.type == "cuda"
        self._batch_size = batch_size if self._on_gpu else None
        self._copies = torch.cuda.Stream(self.device) if self._on_gpu else None
        if self._on_gpu or dtype != torch.float32:
            self._vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub lacks this one
        if self._on_gpu and compiled:
            for block in self._vae.modules():
                if isinstance(block, ResnetBlock2D):
                    block.compile(dynamic=False)

    def encode(self, samples: Sequence[TrainingTriplet]) -> Encoded:
        """Encode B samples with E exemplars each, and return fp16 tensors on the CPU.

        `source_latents` and `masked_latents` are (B, 4, h, w), `mask` is (B, 1, h, w), `class_tokens` (B, E, T, W).
        """
        return self._download(self.encode_on_device(samples))()

    def encode_all(self, batches: Iterable[Sequence[TrainingTriplet]]) -> Iterator[Encoded]:
        """Encode batches as `encode` does, in order; a GPU has the next batch queued while it encodes one."""
        previous: Callable[[], Encoded] | None = None
        for samples in batches:
            current = self._download(self.encode_on_device(samples))
            if previous:
                yield previous()
            previous = current
        if previous:
            yield previous()

    @torch.inference_mode()
    def encode_on_device(self, samples: Sequence[TrainingTriplet]) -> Encoded:
        """Return what `encode` returns, on the device; on a GPU without waiting, in the order of the current stream."""
        return {name: tensor.half() for name, tensor in self.encode_unrounded(samples).items()}

    @torch.inference_mode()
    def encode_unrounded(self, samples: Sequence[TrainingTriplet]) -> Encoded:
        """Return what `encode_on_device` returns before it is rounded to fp16."""
        padding = max(0, (self._batch_size or 0) - len(samples))
        padded = [*samples, *[samples[-1]] * padding]
        pixels, mask, exemplars = self._upload(padded)
        source = _floats(pixels)
        mask = mask[:, None].float()
        latents = self._latents(torch.cat([source, source * (1 - mask)]))
        source_latents, masked_latents = latents.chunk(2)
        tokens = self.conditioner.tokens(_floats(exemplars.flatten(0, 1)))
        encoded = {
            "source_latents": source_latents,
            "masked_latents": masked_latents,
            "mask": mask_latents(mask, *latents.shape[-2:]),
            "class_tokens": tokens.view(len(padded), -1, *tokens.shape[1:]),
        }
        return {name: tensor[: len(samples)] for name, tensor in encoded.items()}

    def _latents(self, pictures: Tensor) -> Tensor:
        """Return the mode of the VAE's posterior, scaled: (N, 3, S, S) => (N, 4, h, w) float32."""
        parts = pictures.to(self.dtype).split(_VAE_PICTURES if self._on_gpu else len(pictures))
        with torch._dynamo.config.patch(recompile_limit=_RECOMPILE_LIMIT):
            moments = torch.cat([self._vae(part) for part in parts]) if len(parts) > 1 else self._vae(parts[0])
        return torch.as_tensor(moments.chunk(2, dim=1)[0].float() * self._scaling_factor)

    def _upload(self, samples: Sequence[TrainingTriplet]) -> tuple[Tensor, Tensor, Tensor]:
        """Return sources, masks and exemplars as bytes on the device; a GPU copies them while it encodes."""
        parts = [[s.source for s in samples], [s.mask for s in samples], [s.exemplars for s in samples]]
        stacked = [_stack(arrays, pinned=self._on_gpu) for arrays in parts]
        if self._copies is None:
            source, mask, exemplars = stacked
            return source, mask, exemplars
        with torch.cuda.stream(self._copies):
            source, mask, exemplars = copied = [tensor.to(self.device, non_blocking=True) for tensor in stacked]
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._copies)
        for tensor in copied:
            tensor.record_stream(current)  # its memory may be reused only after the work of this stream
        return source, mask, exemplars

    def _download(self, encoded: Encoded) -> Callable[[], Encoded]:
        """Start to copy tensors to the CPU; return a function that waits for them and returns them."""
        copies = {name: tensor.to("cpu", non_blocking=self._on_gpu) for name, tensor in encoded.items()}
        copied = torch.cuda.current_stream(self.device).record_event() if self._on_gpu else None

        def wait() -> Encoded:
            if copied:
                copied.synchronize()
            return copies

        return wait


def _stack(arrays: Sequence[NDArray[np.uint8]], pinned: bool) -> Tensor:
    """Stack arrays of bytes; from page-locked memory, a GPU copies without the CPU."""
    stacked = torch.empty((len(arrays), *arrays[0].shape), dtype=torch.uint8, pin_memory=pinned)
    np.stack(arrays, out=stacked.numpy())
    return stacked


def _floats(images: Tensor) -> Tensor:
    """Convert NHWC uint8 to NCHW float32 in -1..1, channels_last as the bytes are."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1)
