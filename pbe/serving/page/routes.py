"""Pictures over HTTP: views for the page, and the file to download. Who knows the random token of a picture sees it."""

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Path, Response

from pbe.errors import UserError
from pbe.serving.page.held import HeldExemplar, HeldMask, HeldSource, HeldVariant
from pbe.serving.page.store import HeldType, PageStore
from pbe.serving.page.views import close_up_box, crop, difference, encode_marks, encode_view
from pbe.serving.pictures import encode_png

Token = Annotated[str, Path(pattern=r"^[\w-]{22}$")]
View = Literal["before", "after", "difference"]
_PRIVATE = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}


def create_router(store: PageStore) -> APIRouter:
    """Return the routes of the page's pictures, below /page."""
    router = APIRouter(prefix="/page", include_in_schema=False)

    @router.get("/sources/{token}")
    def show_source(token: Token) -> Response:
        picture = _held(store, token, HeldSource).picture
        return _view(*encode_view(picture.shown, picture.metadata.profile))

    @router.get("/exemplars/{token}")
    def show_exemplar(token: Token) -> Response:
        return _view(*encode_view(_held(store, token, HeldExemplar).image))

    @router.get("/masks/{token}")
    def show_mask(token: Token) -> Response:
        return _view(encode_marks(_held(store, token, HeldMask).mask), "image/png")

    @router.get("/variants/{token}/{view}")
    def show_variant(token: Token, view: View, close: bool = False) -> Response:
        return _variant_view(_held(store, token, HeldVariant), view, close)

    @router.get("/variants/{token}")
    def download_variant(token: Token) -> Response:
        variant = _held(store, token, HeldVariant)
        name = quote(
            f"{variant.source.name.rpartition('.')[0] or variant.source.name}-seed-{variant.seed}.png", safe=""
        )
        disposition = f"attachment; filename*=UTF-8''{name}"
        return Response(
            encode_png(variant.picture), media_type="image/png", headers=_PRIVATE | {"Content-Disposition": disposition}
        )

    return router


def _variant_view(variant: HeldVariant, view: str, close: bool) -> Response:
    before, mask = variant.source.picture, variant.whole_mask
    if view == "before":
        image = before.shown
    elif view == "after":
        image = variant.picture.shown
    else:
        image = difference(before, variant.picture, mask)
        return _view(*encode_view(image))
    if close:
        image = crop(image, close_up_box(mask))
    return _view(*encode_view(image, before.metadata.profile))


def _held(store: PageStore, token: str, kind: type[HeldType]) -> HeldType:
    try:
        return store.get(token, kind)
    except UserError as error:
        raise HTTPException(404, str(error)) from None


def _view(data: bytes, media_type: str) -> Response:
    return Response(data, media_type=media_type, headers=_PRIVATE)
