"""The fields of `POST /v1/images/edits`, as JSON or as a multipart form.

The names are OpenAI's where OpenAI has the field; the descriptions go into the OpenAPI document.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from pbe.errors import UserError, one_line
from pbe.serving.edit_defaults import Sampler
from pbe.serving.editor import MAX_GUIDANCE_SCALE, MAX_SEED, MAX_STEPS
from pbe.serving.request_images import image_bytes
from pbe.serving.service.openai_errors import from_validation, invalid

UNUSED = ("prompt", "background", "input_fidelity", "moderation", "output_compression", "quality")
_IMAGES = ("image", "images", "mask", "mask_image", "reference_image", "reference_mask")
_INDEXED = re.compile(r"([a-z_]+)\[([0-9]{0,4})\]")
_REMOTE = re.compile(r"(https?|ftp|file|s3|gs):", re.IGNORECASE)

ModelType = TypeVar("ModelType", bound=BaseModel)


class EditParameters(BaseModel):
    """How to paint, and how to answer; null is the default."""

    model_config = ConfigDict(extra="forbid")

    prompt: str | None = Field(None, max_length=32000, description="Accepted and not used.")
    model: str | None = Field(None, max_length=256, description="An id of /v1/models. Default: the champion.")
    n: int | None = Field(None, ge=1, le=1000, description="Variants: the seeds seed to seed + n - 1. Default: 1.")
    size: str | None = Field(
        None,
        pattern=r"^(auto|[1-9][0-9]{0,5}x[1-9][0-9]{0,5})$",
        description="auto, or the source's width and height, such as 640x480: the result always has the source's size.",
    )
    response_format: Literal["b64_json", "url"] | None = Field(
        None, description="Default: b64_json. A url needs the same token, and is valid for a limited time."
    )
    output_format: Literal["png", "jpeg", "webp"] | None = Field(
        None, description="Default: png. PNG and WebP are lossless; JPEG changes unmasked pixels slightly."
    )
    metadata: Literal["colour", "all"] | None = Field(
        None,
        description="What the result keeps of the source's file. Default: colour, its colour profile, gamma and "
        "resolution. all: EXIF (with its place), XMP and text as well.",
    )
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="The same seed gives the same pixels. Default: 0.")
    guidance_scale: float | None = Field(
        None,
        ge=0,
        le=MAX_GUIDANCE_SCALE,
        allow_inf_nan=False,
        description="Similarity to the exemplar; 1: no guidance.",
    )
    guidance_interval: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Guidance only in this part of the sampling.",
    )
    num_steps: int | None = Field(None, ge=1, le=MAX_STEPS, description="Sampling steps.")
    sampler: Sampler | None = Field(None, description="The sampling algorithm; see docs/sampling.md.")
    max_magnification: float | None = Field(
        None, ge=1, le=16, allow_inf_nan=False, description="How far a small mask is magnified for painting."
    )
    context_px: int | None = Field(
        None, ge=0, le=100_000, description="Pixels of the source around the mask that the model sees."
    )
    stream: bool | None = Field(None, description="Answer with server-sent events; n must be 1.")
    partial_images: int | None = Field(None, ge=0, le=3, description="Previews in a stream. Default: 0.")
    user: str | None = Field(None, max_length=512, description="Accepted and not used.")
    safety_identifier: str | None = Field(None, max_length=512, description="Accepted and not used.")
    background: Literal["transparent", "opaque", "auto"] | None = Field(None, description="Accepted and not used.")
    input_fidelity: Literal["high", "low"] | None = Field(None, description="Accepted and not used.")
    moderation: str | None = Field(None, max_length=64, description="Accepted and not used.")
    output_compression: int | None = Field(None, ge=0, le=100, description="Accepted and not used.")
    quality: str | None = Field(None, max_length=64, description="Accepted and not used.")

    @property
    def variants(self) -> int:
        """Return the number of pictures to paint."""
        return self.n or 1


class ImageReference(BaseModel):
    """An image as OpenAI's JSON requests hold it; give one of the two."""

    model_config = ConfigDict(extra="forbid")

    image_url: str | None = Field(None, description="A data URI. Addresses of other servers are refused.")
    b64_json: str | None = Field(None, description="Base64 of an image file.")


ImageValue = str | ImageReference  # Base64, a data URI, or an object with one of them
ImageValues = ImageValue | list[ImageValue]


class RegionFields(BaseModel):
    """One part of the source to repaint, with its own object."""

    model_config = ConfigDict(extra="forbid")

    mask: ImageValue = Field(description="As the field mask of the request.")
    reference_image: ImageValues | None = Field(None, description="Pictures of the object. Default: the request's.")
    reference_mask: ImageValues | None = Field(None, description="Where the object is in them, white.")


class EditRequest(EditParameters):
    """An edit as JSON. Images are Base64, data URIs, or objects with `image_url` (a data URI) or `b64_json`."""

    image: ImageValues | None = Field(None, description="The source, followed by exemplars.")
    images: ImageValues | None = Field(None, description="Another name of image.")
    reference_image: ImageValues | None = Field(None, description="Exemplars: pictures of the one object to paint.")
    reference_mask: ImageValues | None = Field(None, description="Where the object is in each exemplar, white.")
    mask: ImageValue | None = Field(None, description="Where to repaint: transparent; or white, if it is all opaque.")
    mask_image: ImageValue | None = Field(None, description="Another name of mask.")
    regions: list[RegionFields] | None = Field(None, max_length=16, description="Several masks, each with its object.")


@dataclass(frozen=True)
class FileField:
    """The bytes of an image file, and the field that held them."""

    name: str
    data: bytes


@dataclass
class RegionFiles:
    """The image files of one region."""

    mask: FileField | None = None
    exemplars: list[FileField] = field(default_factory=list)
    exemplar_masks: list[FileField] = field(default_factory=list)


@dataclass
class RequestedEdit:
    """A request's parameters and image files, not decoded yet."""

    parameters: EditParameters
    source: FileField
    regions: list[RegionFiles]


def parse_json(body: bytes, max_images: int) -> RequestedEdit:
    """Return the edit that a JSON body asks for; raises ServiceError naming the field that is wrong."""
    try:
        data = from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise invalid(f"the body is not JSON: {one_line(error)}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise invalid("the body is not a JSON object", code="invalid_json")
    request = _validated(EditRequest, data, strict=True)
    files = {name: _files(getattr(request, name), name) for name in _IMAGES}
    return _requested(request, files, request.regions, max_images)


def parse_form(items: list[tuple[str, str | bytes]], max_images: int) -> RequestedEdit:
    """Return the edit that a form asks for: its fields in order, files as bytes; raises what `parse_json` raises."""
    texts: dict[str, Any] = {}
    uploads: dict[str, list[tuple[int, FileField]]] = {name: [] for name in _IMAGES}
    for key, value in items:
        match = _INDEXED.fullmatch(key)
        name, index = (match[1], int(match[2] or 0)) if match else (key, 0)
        if name in uploads:
            uploads[name].append((index, FileField(key, _form_bytes(value, key))))
        elif isinstance(value, bytes):
            raise invalid(f"{_short(key)} is a file: send text", _short(key), "invalid_type")
        elif key in texts:
            raise invalid(f"{_short(key)} is given twice", _short(key), "duplicate_parameter")
        else:
            texts[key] = value
    regions = _form_json(texts, "regions")
    if "guidance_interval" in texts:
        texts["guidance_interval"] = _form_json(texts, "guidance_interval")
    parameters = _validated(EditParameters, texts, strict=False)
    parsed = _validated(_Regions, {"regions": regions}, strict=True).regions
    files = {name: [file for _, file in sorted(found, key=lambda item: item[0])] for name, found in uploads.items()}
    return _requested(parameters, files, parsed, max_images)


class _Regions(BaseModel):
    regions: list[RegionFields] | None = Field(None, max_length=16)


def _requested(
    parameters: EditParameters,
    files: Mapping[str, list[FileField]],
    regions: list[RegionFields] | None,
    max_images: int,
) -> RequestedEdit:
    images = files["image"] + files["images"]
    masks = files["mask"] + files["mask_image"]
    if not images:
        raise invalid("image is missing: send the source, then a picture of the object to paint", "image", "missing")
    if len(masks) > 1:
        raise invalid("more than one mask: send mask or mask_image, once", masks[1].name, "duplicate_parameter")
    whole = RegionFiles(
        masks[0] if masks else None, [*images[1:], *files["reference_image"]], list(files["reference_mask"])
    )
    parts = [whole] if regions is None else list(_parts(regions, whole))
    count = 1 + sum(len(part.exemplars) for part in parts)
    if count > max_images:
        raise invalid(f"{count} images: send at most {max_images}", "image", "too_many_images")
    for part in parts:
        _check_exemplars(part)
    return RequestedEdit(parameters, images[0], parts)


def _parts(regions: list[RegionFields], whole: RegionFiles) -> Iterator[RegionFiles]:
    if not regions:
        raise invalid("regions is empty: give a mask for each part to repaint", "regions", "invalid_value")
    if whole.mask:
        raise invalid("regions and mask are both given: put every mask into regions", "mask", "invalid_value")
    for number, region in enumerate(regions):
        where = f"regions.{number}"
        exemplars = _files(region.reference_image, f"{where}.reference_image")
        masks = _files(region.reference_mask, f"{where}.reference_mask")
        shared = not exemplars
        yield RegionFiles(
            _files(region.mask, f"{where}.mask")[0],
            whole.exemplars if shared else exemplars,
            masks or (whole.exemplar_masks if shared else []),
        )


def _check_exemplars(part: RegionFiles) -> None:
    if not part.exemplars:
        message = "no exemplar: send a second image, or reference_image, that shows the object to paint"
        raise invalid(message, "reference_image", "missing")
    if len(part.exemplar_masks) > len(part.exemplars):
        message = f"{len(part.exemplar_masks)} reference masks for {len(part.exemplars)} exemplars"
        raise invalid(message, "reference_mask", "invalid_value")


def _files(values: ImageValues | None, name: str) -> list[FileField]:
    listed = values if isinstance(values, list) else [] if values is None else [values]
    names = [f"{name}[{number}]" for number in range(len(listed))] if isinstance(values, list) else [name]
    return [FileField(each, _value_bytes(value, each)) for each, value in zip(names, listed, strict=False)]


def _value_bytes(value: ImageValue, name: str) -> bytes:
    if isinstance(value, str):
        return _decoded(value, name)
    given = [text for text in (value.image_url, value.b64_json) if text is not None]
    if len(given) != 1:
        raise invalid(f"{name}: give either image_url or b64_json", name, "invalid_value")
    return _decoded(given[0], name)


def _form_bytes(value: str | bytes, name: str) -> bytes:
    return value if isinstance(value, bytes) else _decoded(value, name)


def _decoded(text: str, name: str) -> bytes:
    if _REMOTE.match(text):
        raise invalid(f"{name}: no address is fetched; send a file, its Base64 or a data URI", name, "invalid_url")
    try:
        return image_bytes(text, name)
    except UserError as error:
        raise invalid(one_line(error), name, "invalid_image") from None


def _form_json(texts: dict[str, Any], name: str) -> Any:
    text = texts.pop(name, None)
    try:
        return None if text is None else from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise invalid(f"{name} is not JSON: {one_line(error)}", name, "invalid_json") from None


def _validated(model: type[ModelType], data: Mapping[str, Any], *, strict: bool) -> ModelType:
    try:
        return model.model_validate(data, strict=strict)
    except ValidationError as error:
        raise from_validation(error) from None


def _short(text: str) -> str:
    return text[:100]
