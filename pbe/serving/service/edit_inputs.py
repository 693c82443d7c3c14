"""From a request's image files to edits: what `POST /v1/images/edits` decodes and checks before it queues anything."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from pbe.dataset.mask_images import decode_mask
from pbe.dataset.opened_images import DAMAGED, opened_image, upright
from pbe.errors import UserError, one_line
from pbe.serving.edit_checks import check_mask
from pbe.serving.editor import MAX_SEED, Edit, EditOptions, Exemplar, Region, read_exemplar, read_source
from pbe.serving.picture_metadata import Metadata
from pbe.serving.pictures import Picture, check_size, losses
from pbe.serving.service.edit_fields import UNUSED, EditParameters, FileField, RegionFiles, RequestedEdit
from pbe.serving.service.openai_errors import invalid
from pbe.serving.service.settings import ServiceSettings
from pbe.types import Mask

_OPTIONS = ("guidance_scale", "num_steps", "sampler", "max_magnification", "context_px")
_NUMERIC_MODES = ("I", "F")  # of masks, beside those of pictures


@dataclass(frozen=True)
class DecodedEdit:
    """The edits of a request, one for each variant, with notes for its sender."""

    parameters: EditParameters
    edits: tuple[Edit, ...]
    out_format: str  # PNG, JPEG or WEBP
    notes: tuple[str, ...]


def decode_request(requested: RequestedEdit, settings: ServiceSettings) -> DecodedEdit:
    """Decode and check a request's images and parameters; raises ServiceError naming the field that is wrong."""
    parameters = requested.parameters
    seeds = _seeds(parameters, settings)
    options = _edit_options(parameters, settings)
    out_format = (parameters.output_format or "png").upper()
    source, notes = _source(requested.source, parameters, settings)
    _check_size(source, parameters, out_format)
    _check_answer(source, parameters, settings)
    regions = tuple(_region(part, source, settings) for part in requested.regions)
    if requested.regions[0].mask is None:
        notes.append("no mask was sent: the transparent part of the image was repainted")
    notes += losses(source, out_format, np.any([region.mask for region in regions], axis=0).astype(np.uint8))
    notes += _unused_notes(parameters)
    edits = tuple(Edit(source, regions, seed, options) for seed in seeds)
    return DecodedEdit(parameters, edits, out_format, tuple(notes))


def decode_edit_mask(data: bytes, name: str) -> Mask:
    """Return (H, W), 1 = repaint: where a mask is transparent; where it is white, if all of it is opaque.

    Raises UserError for what is not a mask.
    """
    with opened_image(io.BytesIO(data), name, _NUMERIC_MODES) as opened:
        try:
            opened.load()
            image = upright(opened)
            opacity = np.asarray(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None
        except DAMAGED:
            opacity = None  # decode_mask says what is wrong
    if opacity is not None and opacity.min(initial=255) < 255:
        return (opacity < 128).astype(np.uint8)
    return decode_mask(data, name)


def _seeds(parameters: EditParameters, settings: ServiceSettings) -> range:
    first, count = parameters.seed or 0, parameters.variants
    if count > settings.max_variants:
        raise invalid(f"n is {count}: ask for at most {settings.max_variants} variants", "n", "invalid_value")
    if first + count - 1 > MAX_SEED:
        raise invalid(f"seed is {first}: the last variant's seed would be above {MAX_SEED}", "seed", "invalid_value")
    if parameters.stream and count > 1:
        raise invalid(f"n is {count}: a stream has one picture", "n", "invalid_value")
    if parameters.stream and parameters.response_format == "url":
        raise invalid("response_format is url: a stream holds b64_json", "response_format", "invalid_value")
    return range(first, first + count)


def _edit_options(parameters: EditParameters, settings: ServiceSettings) -> EditOptions:
    given = {name: value for name in _OPTIONS if (value := getattr(parameters, name)) is not None}
    if (interval := parameters.guidance_interval) is not None:
        given["guidance_interval"] = (interval[0], interval[1])
    options = replace(EditOptions(), **given)
    if options.num_steps > settings.max_steps:
        raise invalid(f"num_steps is {options.num_steps}: at most {settings.max_steps}", "num_steps", "invalid_value")
    with _about(None, "invalid_value"):
        options.check()
    return options


def _source(file: FileField, parameters: EditParameters, settings: ServiceSettings) -> tuple[Picture, list[str]]:
    with _about(file.name):
        _check_pixels(file, settings)
        source = read_source(file.data, file.name)
    if parameters.metadata == "all":
        return source, []
    full = source.metadata
    kept = Metadata(profile=full.profile, dpi=full.dpi, gamma_chunks=full.gamma_chunks)
    dropped = [kind for kind, present in full.kinds().items() if present and not kept.kinds()[kind]]
    notes = [f"the source's {', '.join(dropped)} are left out; metadata=all keeps them"] if dropped else []
    return replace(source, metadata=kept), notes


def _check_size(source: Picture, parameters: EditParameters, out_format: str) -> None:
    height, width = source.shown.shape[:2]
    if parameters.size not in (None, "auto", f"{width}x{height}"):
        message = f"size is {parameters.size}: the result has the source's size, {width}x{height}; send that or auto"
        raise invalid(message, "size", "invalid_value")
    with _about("output_format", "invalid_value"):
        check_size(source, out_format, f"output_format {out_format.lower()}")


def _check_answer(source: Picture, parameters: EditParameters, settings: ServiceSettings) -> None:
    height, width = source.shown.shape[:2]
    pixels = height * width * parameters.variants
    if pixels > settings.max_answer_pixels and parameters.response_format != "url" and parameters.variants > 1:
        most = max(1, settings.max_answer_pixels // (height * width))
        message = (
            f"n is {parameters.variants}: of this size, an answer as Base64 holds {most}; response_format=url, more"
        )
        raise invalid(message, "n", "invalid_value")


def _region(part: RegionFiles, source: Picture, settings: ServiceSettings) -> Region:
    name = part.mask.name if part.mask else "mask"
    with _about(name):
        if part.mask is None:
            mask = _mask_of_source(source)
        else:
            _check_pixels(part.mask, settings)
            mask = decode_edit_mask(part.mask.data, name)
        check_mask(mask, source.shown, mask_name=name, source_name="image")
    masks: list[FileField | None] = [*part.exemplar_masks]
    masks += [None] * (len(part.exemplars) - len(masks))
    return Region(mask, tuple(_exemplar(*pair, settings) for pair in zip(part.exemplars, masks, strict=True)))


def _mask_of_source(source: Picture) -> Mask:
    if source.mode not in ("RGBA", "LA") or source.pixels[..., -1].min() > 127:
        raise UserError("mask is missing: send one, or an image that is transparent where to repaint")
    return (source.pixels[..., -1] < 128).astype(np.uint8)


def _exemplar(file: FileField, mask_file: FileField | None, settings: ServiceSettings) -> Exemplar:
    with _about(file.name):
        _check_pixels(file, settings)
        image = read_exemplar(file.data, file.name)
    if mask_file is None:
        return Exemplar(image)
    with _about(mask_file.name):
        _check_pixels(mask_file, settings)
        mask = decode_mask(mask_file.data, mask_file.name)
        check_mask(mask, image, mask_name=mask_file.name, source_name=file.name, use="the object is")
    return Exemplar(image, mask)


def _check_pixels(file: FileField, settings: ServiceSettings) -> None:
    if not file.data:
        raise UserError(f"{file.name} is empty")
    with opened_image(io.BytesIO(file.data), file.name, _NUMERIC_MODES) as opened:
        width, height = opened.size
    if width * height > settings.max_pixels:
        raise UserError(f"{file.name}: {width} x {height} px are more than the {settings.max_pixels:,} of this service")


def _unused_notes(parameters: EditParameters) -> list[str]:
    unused = [name for name in UNUSED if getattr(parameters, name) not in (None, "", "auto")]
    return [f"not used: {', '.join(unused)}"] if unused else []


@contextmanager
def _about(param: str | None, code: str = "invalid_image") -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise invalid(one_line(error), param, code) from None
