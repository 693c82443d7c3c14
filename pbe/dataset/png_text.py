"""PNG files without their text: Pillow refuses a picture whose compressed text or colour profile exceeds 1 MB.

Browsers and OpenCV read such pictures. The limit guards against chunks that expand a thousandfold; leaving the chunks
out guards as well, and changes no pixel.
"""

import struct
from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT = frozenset((b"tEXt", b"zTXt", b"iTXt", b"iCCP"))
_FRAME_BYTES = 12  # of a chunk, around its content: length, type and checksum


def is_png(data: bytes) -> bool:
    """Return whether the bytes begin as a PNG file does."""
    return data.startswith(PNG_SIGNATURE)


def without_text(data: bytes) -> bytes:
    """Return a PNG file's bytes without its text and colour profile; other bytes, and damaged ones, stay unchanged."""
    if not is_png(data):
        return data
    chunks = list(_chunks(data))
    if not any(kind in _TEXT for kind, _, _ in chunks):
        return data
    end = chunks[-1][2]
    kept = [data[start:stop] for kind, start, stop in chunks if kind not in _TEXT]
    return b"".join([PNG_SIGNATURE, *kept, data[end:]])


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, the start and the end of every complete chunk."""
    at = len(PNG_SIGNATURE)
    while at + _FRAME_BYTES <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        stop = at + _FRAME_BYTES + length
        if stop > len(data):
            return
        yield kind, at, stop
        at = stop
