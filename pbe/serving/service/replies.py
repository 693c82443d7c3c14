"""What the service answers: the bodies of its replies, and edited pictures encoded into them."""

import base64
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image as PillowImage
from pydantic import BaseModel, Field

from pbe.serving.editor import Edited
from pbe.serving.pictures import encode_picture
from pbe.serving.service.models import SCHEME, ModelInfo
from pbe.serving.service.openai_errors import ServiceError
from pbe.serving.service.stored_pictures import StoredPictures
from pbe.types import Image

MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
RESULTS_PATH = "/v1/images/results"
PREVIEW_QUALITY = 85


class EditedImage(BaseModel):
    """One edited picture."""

    b64_json: str | None = Field(None, description="Base64 of the file, for response_format b64_json.")
    url: str | None = Field(None, description="Its address, for response_format url; it needs the same token.")
    seed: int
    digest: str = Field(description="SHA-256 of the shape and the pixels: the same through every door of pbe.")
    changed_outside_mask: int = Field(description="Unmasked pixels that differ from the source's: 0.")


class EditReply(BaseModel):
    """Edited pictures, in the shape of OpenAI's ImagesResponse."""

    created: int = Field(description="Unix time, s.")
    data: list[EditedImage]
    size: str = Field(examples=["640x480"])
    output_format: Literal["png", "jpeg", "webp"]
    background: Literal["opaque", "transparent"] = Field(description="transparent: the pictures have an alpha channel.")
    model: str
    model_version: str | None = Field(description="Of a registered model.")
    notes: list[str] = Field(description="What the sender should know: what is not kept, not painted or not used.")


class ModelObject(BaseModel):
    """A model that the service paints with."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "pbe"
    version: str | None = Field(description="Of a registered model.")
    alias: str | None = Field(description="That the service follows, such as champion.")
    registered_model: str | None = Field(description="models:/NAME@ALIAS or models:/NAME/VERSION; null for a folder.")
    image_px: int = Field(description="Side of the square that it paints.")
    exemplar_px: int


class ModelList(BaseModel):
    """The models, the default one first."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


def model_object(info: ModelInfo) -> ModelObject:
    """Return a model as clients see it: without the folder that holds it."""
    return ModelObject(
        id=info.id,
        created=info.created,
        version=info.version,
        alias=info.alias,
        registered_model=info.source if info.source.startswith(SCHEME) else None,
        image_px=info.image_px,
        exemplar_px=info.exemplar_px,
    )


@dataclass(frozen=True)
class EncodedPicture:
    """An edited picture as a file, and what the reply says of it."""

    data: bytes
    seed: int
    digest: str
    num_changed_outside: int
    size: str  # such as 640x480
    is_transparent: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class EncodedEdit:
    """The edited pictures of a request as files, and what the reply says of all of them."""

    pictures: tuple[EncodedPicture, ...]
    out_format: str  # PNG, JPEG or WEBP
    model: ModelInfo
    notes: tuple[str, ...]


def encode_one(edited: Edited, seed: int, out_format: str) -> EncodedPicture:
    """Encode one picture."""
    picture = edited.picture
    height, width = picture.shown.shape[:2]
    return EncodedPicture(
        data=encode_picture(picture, out_format),
        seed=seed,
        digest=edited.digest,
        num_changed_outside=edited.num_changed_outside,
        size=f"{width}x{height}",
        is_transparent=picture.mode in ("RGBA", "LA") and out_format != "JPEG",
        notes=edited.notes,
    )


def encoded_edit(
    pictures: Sequence[EncodedPicture], model: ModelInfo, out_format: str, notes: Sequence[str]
) -> EncodedEdit:
    """Put the pictures of a request together; every note is said once."""
    every_note = dict.fromkeys([*notes, *(note for picture in pictures for note in picture.notes)])
    return EncodedEdit(tuple(pictures), out_format, model, tuple(every_note))


def reply_in_base64(encoded: EncodedEdit) -> dict[str, Any]:
    """Return the reply with the pictures in it."""
    return _reply(encoded, [{"b64_json": base64_of(picture.data)} for picture in encoded.pictures])


def stored_reply(encoded: EncodedEdit, stored: StoredPictures, owner: str) -> dict[str, Any]:
    """Store the pictures and return the reply with their ids."""
    media_type = MEDIA_TYPES[encoded.out_format]
    return _reply(encoded, [{"id": stored.add(owner, each.data, media_type).id} for each in encoded.pictures])


def reply_with_urls(reply: dict[str, Any], base_url: str) -> dict[str, Any]:
    """Return a reply of `stored_reply` with the addresses of its pictures."""
    return _with_pictures(reply, lambda picture_id: {"url": f"{base_url}{RESULTS_PATH}/{picture_id}"})


def reply_from_store(reply: dict[str, Any], stored: StoredPictures, owner: str) -> dict[str, Any]:
    """Return a reply of `stored_reply` with the pictures in it; raises a 404 when one has been removed."""

    def read(picture_id: str) -> dict[str, str]:
        found = stored.read(picture_id, owner)
        if found is None:
            raise ServiceError(404, "the result has been removed; send the edit again", code="result_expired")
        return {"b64_json": base64_of(found[0])}

    return _with_pictures(reply, read)


def _with_pictures(reply: dict[str, Any], where: Callable[[str], dict[str, str]]) -> dict[str, Any]:
    data = [{**where(each["id"]), **{k: v for k, v in each.items() if k != "id"}} for each in reply["data"]]
    return {**reply, "data": data}


def _reply(encoded: EncodedEdit, where: list[dict[str, str]]) -> dict[str, Any]:
    data = [
        {**at, "seed": picture.seed, "digest": picture.digest, "changed_outside_mask": picture.num_changed_outside}
        for at, picture in zip(where, encoded.pictures, strict=True)
    ]
    return {"created": int(time.time()), "data": data, **described(encoded)}


def described(encoded: EncodedEdit) -> dict[str, Any]:
    """Return what a reply says of all of its pictures."""
    first = encoded.pictures[0]
    return {
        "size": first.size,
        "output_format": encoded.out_format.lower(),
        "background": "transparent" if first.is_transparent else "opaque",
        "model": encoded.model.id,
        "model_version": encoded.model.version,
        "notes": list(encoded.notes),
    }


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def json_bytes(reply: object) -> bytes:
    """Return a reply as JSON, in UTF-8."""
    return json.dumps(reply, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


def encode_preview(image: Image, out_format: str) -> str:
    """Return a preview (H, W, 3) as Base64 of a file in the format of the result."""
    stream = io.BytesIO()
    options: dict[str, Any] = {"compress_level": 1} if out_format == "PNG" else {"quality": PREVIEW_QUALITY}
    PillowImage.fromarray(np.ascontiguousarray(image)).save(stream, out_format, **options)
    return base64_of(stream.getvalue())
