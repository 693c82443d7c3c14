"""Images in a request to the served model: bytes, or Base64 in the forms in which clients send it."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from pbe.errors import UserError

_DATA_URI = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")


def image_bytes(value: object, name: str) -> bytes:
    """Return the bytes of an image file from bytes, Base64 or a data URI; errors call the value `name`.

    Base64 may be URL-safe, without padding and broken into lines. Raises UserError for anything else.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise UserError(f"{name}: is {type(value).__name__}; send the bytes of a PNG or JPEG file, or their base64")
    text = value.strip()
    if match := _DATA_URI.match(text):
        content = text[match.end() :]
        if not match.group().lower().endswith(";base64,"):
            return unquote_to_bytes(content)
        text = unquote_to_bytes(content).decode("latin-1")
    text = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"{name}: is text but not base64; send the base64 of a PNG or JPEG file") from None
