"""What the editors of the page ask the server for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from pbe.serving.page.examples import Example, find_examples
from pbe.serving.page.held import HeldExemplar, HeldMask, HeldSource
from pbe.serving.page.opening import Opener, server_function
from pbe.serving.page.store import PageStore

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def store() -> PageStore:
    return PageStore()


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


@pytest.fixture
def opener(store: PageStore, uploads: Path, pictures: Path) -> Opener:
    example = Example("one", pictures / "s.png", pictures / "m.png", pictures / "e.jpg")
    return Opener(store, uploads, {"one": example})


def upload(uploads: Path, file: Path) -> str:
    path = uploads / file.name
    path.write_bytes(file.read_bytes())
    return str(path)


def ask(method: Any, **asked: object) -> dict[str, Any]:
    return server_function(method)(asked)


def open_source(opener: Opener, uploads: Path, pictures: Path) -> dict[str, Any]:
    path = upload(uploads, pictures / "s.png")
    return ask(opener.open_picture, page="page", role="source", path=path, name="C:\\photos\\s.png")


def test_a_source_is_opened_from_its_own_bytes_and_the_upload_is_deleted(
    opener: Opener, store: PageStore, uploads: Path, pictures: Path
) -> None:
    opened = open_source(opener, uploads, pictures)
    assert opened == {
        "token": opened["token"], "url": f"page/sources/{opened['token']}", "width": 96, "height": 80,
        "name": "s.png", "notes": [],
    }  # fmt: skip
    picture = store.get(opened["token"], HeldSource).picture
    assert picture.mode == "RGBA"
    assert np.array_equal(picture.pixels, np.asarray(PillowImage.open(pictures / "s.png")))
    assert list(uploads.iterdir()) == []


def test_an_exemplar_and_a_mask_are_opened(opener: Opener, store: PageStore, uploads: Path, pictures: Path) -> None:
    path = upload(uploads, pictures / "e.jpg")
    exemplar = ask(opener.open_picture, page="page", role="exemplar", path=path, name="e.jpg")
    assert store.get(exemplar["token"], HeldExemplar).image.shape == (30, 40, 3)
    source = open_source(opener, uploads, pictures)
    path = upload(uploads, pictures / "m.png")
    mask = ask(opener.open_mask, page="page", path=path, name="m.png", picture=source["token"])
    held = store.get(mask["url"].removeprefix("page/masks/"), HeldMask)
    assert np.array_equal(held.mask, np.asarray(PillowImage.open(pictures / "m.png")) // 255)


def test_a_mask_of_another_size_is_refused(opener: Opener, uploads: Path, pictures: Path) -> None:
    exemplar = ask(
        opener.open_picture, page="page", role="exemplar", path=upload(uploads, pictures / "e.jpg"), name="e.jpg"
    )
    path = upload(uploads, pictures / "m.png")
    answer = ask(opener.open_mask, page="page", path=path, name="m.png", picture=exemplar["token"])
    assert answer == {"error": "m.png is 96 x 80 but e.jpg is 40 x 30: give both the same size."}


def test_a_file_that_is_no_picture_is_one_sentence(opener: Opener, uploads: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    path = upload(uploads, tmp_path / "notes.txt")
    answer = ask(opener.open_picture, page="page", role="source", path=path, name="notes.txt")
    assert answer["error"].startswith("notes.txt: ")
    assert "\n" not in answer["error"]
    assert list(uploads.iterdir()) == []


def test_only_uploaded_files_are_read(opener: Opener, uploads: Path, pictures: Path) -> None:
    (uploads / "link.png").symlink_to(pictures / "s.png")
    for path in (pictures / "s.png", uploads / ".." / "missing.png", uploads / "link.png", uploads):
        answer = ask(opener.open_picture, page="page", role="source", path=str(path), name="s.png")
        assert answer == {"error": "The upload did not reach the server: drop the file again."}
    assert (pictures / "s.png").exists()


@pytest.mark.parametrize("asked", [None, [], "text", {}, {"page": 3}, {"page": ""}, {"page": "x" * 5000}])
def test_a_request_of_another_form_is_an_error(opener: Opener, asked: object) -> None:
    for method in (opener.open_picture, opener.open_mask, opener.open_example, opener.open_variant, opener.holds):
        assert server_function(method)(asked)["error"].endswith("reload the page.")


def test_an_example_is_opened_with_its_mask_and_object(opener: Opener, store: PageStore) -> None:
    opened = ask(opener.open_example, page="page", name="one")
    assert store.holds(opened["source"]["token"])
    assert store.holds(opened["mask"]["url"].removeprefix("page/masks/"))
    assert opened["exemplar"]["name"] == "e.jpg"
    assert "error" in ask(opener.open_example, page="page", name="../two")


def test_whether_a_picture_is_still_held(opener: Opener, uploads: Path, pictures: Path) -> None:
    token = open_source(opener, uploads, pictures)["token"]
    assert ask(opener.holds, token=token) == {"held": True}
    assert ask(opener.holds, token="x" * 22) == {"held": False}


def test_examples_whose_files_are_missing_are_left_out(tmp_path: Path, pictures: Path) -> None:
    assert find_examples(tmp_path) == {}
    (tmp_path / "can").mkdir()
    for name, file in (("source.jpg", "e.jpg"), ("mask.png", "m.png"), ("exemplar.png", "s.png")):
        assert find_examples(tmp_path) == {}
        (tmp_path / "can" / name).write_bytes((pictures / file).read_bytes())
    assert list(find_examples(tmp_path)) == ["can"]
