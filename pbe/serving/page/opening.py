"""What the page's editors ask the server for: open an uploaded picture, a mask from a file, or an example.

Each function takes the JSON object that the browser sent, and returns one for the browser: {"error": one sentence} when
the user can correct something. Uploaded files are read and deleted at once; only the pictures stay, in memory.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pbe.errors import UserError
from pbe.serving.editor import check_mask, read_exemplar, read_mask, read_source
from pbe.serving.page.examples import Example
from pbe.serving.page.held import HeldExemplar, HeldMask, HeldSource, HeldVariant
from pbe.serving.page.sentences import sentence
from pbe.serving.page.store import PageStore
from pbe.types import Image, Mask

Answer = dict[str, Any]
ServerFunction = Callable[[Any], Answer]
MAX_PIXELS = 50_000_000
_NO_FILE = "The upload did not reach the server: drop the file again."


def server_function(method: Callable[[Mapping[str, Any]], Answer]) -> ServerFunction:
    """Return a function for the browser that answers with {"error": ...} where the method raises UserError."""

    def answer(asked: Any) -> Answer:
        try:
            if not isinstance(asked, Mapping):
                raise UserError("The page sent something that is not a request: reload the page.")
            return method(asked)
        except UserError as error:
            return {"error": sentence(error)}

    answer.__name__ = method.__name__
    return answer


class Opener:
    """Opens pictures for pages."""

    def __init__(
        self, store: PageStore, uploads: Path, examples: Mapping[str, Example], *, max_pixels: int = MAX_PIXELS
    ) -> None:
        self._store, self._uploads, self._examples, self._max_pixels = store, uploads, examples, max_pixels

    def open_picture(self, asked: Mapping[str, Any]) -> Answer:
        """Open the uploaded file {page, role, path, name} as a source or an exemplar."""
        name = _file_name(asked)
        return self._open(_text(asked, "page"), _text(asked, "role"), self._take_upload(asked), name)

    def open_mask(self, asked: Mapping[str, Any]) -> Answer:
        """Open the uploaded file {page, path, name, picture} as the mask of a picture that is open."""
        name = _file_name(asked)
        mask = read_mask(self._take_upload(asked), name)
        return self._hold_mask(_text(asked, "page"), mask, _text(asked, "picture"), name)

    def open_example(self, asked: Mapping[str, Any]) -> Answer:
        """Open the example {page, name}: its source, its mask and its exemplar."""
        page, example = _text(asked, "page"), self._examples.get(_text(asked, "name"))
        if example is None:
            raise UserError("This example is not on the server any more: drop a picture of your own.")
        source = self._open(page, "source", example.source.read_bytes(), example.source.name)
        mask = self._hold_mask(page, read_mask(example.mask), source["token"], example.mask.name)
        exemplar = self._open(page, "exemplar", example.exemplar.read_bytes(), example.exemplar.name)
        return {"source": source, "mask": mask, "exemplar": exemplar}

    def open_variant(self, asked: Mapping[str, Any]) -> Answer:
        """Open the variant {page, token} as the next source."""
        variant = self._store.get(_text(asked, "token"), HeldVariant)
        return self._hold_source(_text(asked, "page"), HeldSource(variant.picture, variant.source.name))

    def holds(self, asked: Mapping[str, Any]) -> Answer:
        """Return {"held": whether the picture {token} is still there}."""
        return {"held": self._store.holds(_text(asked, "token"))}

    def _open(self, page: str, role: str, data: bytes, name: str) -> Answer:
        if role == "source":
            picture = read_source(data, name)
            self._check_size(picture.shown, name)
            return self._hold_source(page, HeldSource(picture, name))
        exemplar = HeldExemplar(read_exemplar(data, name), name)
        self._check_size(exemplar.image, name)
        height, width = exemplar.image.shape[:2]
        token = self._store.add(page, exemplar)
        return {"token": token, "url": f"page/exemplars/{token}", "width": width, "height": height, "name": name}

    def _check_size(self, image: Image, name: str) -> None:
        height, width = image.shape[:2]
        if height * width > self._max_pixels:
            limit = f"{self._max_pixels / 1e6:g} megapixels"
            raise UserError(f"{name} has {height * width / 1e6:.0f} megapixels: the limit is {limit}")

    def _hold_source(self, page: str, source: HeldSource) -> Answer:
        height, width = source.picture.shown.shape[:2]
        token = self._store.add(page, source)
        opened = {"token": token, "url": f"page/sources/{token}", "width": width, "height": height, "name": source.name}
        return opened | {"notes": list(source.picture.notes)}

    def _hold_mask(self, page: str, mask: Mask, picture: str, name: str) -> Answer:
        held = self._store.get(picture, HeldSource | HeldExemplar)  # type: ignore[arg-type]
        shown = held.picture.shown if isinstance(held, HeldSource) else held.image
        check_mask(mask, shown, mask_name=name, source_name=held.name)
        return {"url": f"page/masks/{self._store.add(page, HeldMask(mask))}"}

    def _take_upload(self, asked: Mapping[str, Any]) -> bytes:
        """Return the bytes of an uploaded file, and delete it."""
        path = Path(_text(asked, "path")).resolve()
        if not path.is_relative_to(self._uploads.resolve()) or not path.is_file():
            raise UserError(_NO_FILE)
        data = path.read_bytes()
        path.unlink()
        return data


def _text(asked: Mapping[str, Any], key: str) -> str:
    value = asked.get(key)
    if not isinstance(value, str) or not value or len(value) > 4096:
        raise UserError(f"The page sent no {key}: reload the page.")
    return value


def _file_name(asked: Mapping[str, Any]) -> str:
    """Return the last part of the file's name in the browser, for messages and for the download's name."""
    name = _text(asked, "name").replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in name if letter.isprintable())[:100] or "picture"
