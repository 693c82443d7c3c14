"""Gathering a backbone: from the bundled folder, from a given one, or from the Hugging Face hub."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors as hub_errors

from pbe import layout
from pbe.errors import UnavailableError, UserError
from pbe.evaluation.baselines.text_inpainting import attends_to_end_token
from pbe.method.backbone import CARD, PAINTER_PARTS, PARTS, check_backbone, gather_backbone, is_painter, parts_of
from pbe.method.initialization import build_painter
from tests.support.parameters import PARAMETERS

HUB = PARAMETERS.backbone.replace(source="hub")


def gather(tmp_path: Path, **changes: Any) -> tuple[dict[str, str], Path]:
    out = tmp_path / "out"
    out.mkdir()
    return gather_backbone(PARAMETERS.backbone.replace(**changes), tmp_path, out), out


def folders(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.is_dir()}


@pytest.mark.parametrize(("source", "folder"), [("tiny", layout.TINY), ("photo", layout.PHOTO)])
def test_a_bundled_backbone_is_copied_with_a_card(source: str, folder: Path, backbone: Path, tmp_path: Path) -> None:
    (tmp_path / folder).parent.mkdir()
    (tmp_path / folder).symlink_to(backbone)
    card, out = gather(tmp_path, source=source)
    assert folders(out) == set(PARTS)
    assert card == {"source": source} == json.loads((out / CARD).read_text())
    assert not is_painter(out)
    assert attends_to_end_token(out)
    for file in backbone.rglob("*.safetensors"):
        assert (out / file.relative_to(backbone)).read_bytes() == file.read_bytes()


def test_a_path_is_relative_to_the_project(backbone: Path, tmp_path: Path) -> None:
    (tmp_path / "own").symlink_to(backbone)
    card, out = gather(tmp_path, source="path", path="own")
    assert folders(out) == set(PARTS)
    assert card == {"source": "path", "path": "own"}
    assert not attends_to_end_token(out)


def test_a_painter_is_copied_with_its_index_and_can_be_trained_further(backbone: Path, tmp_path: Path) -> None:
    build_painter(backbone, 64, 0).save_pretrained(tmp_path / "painter")
    _, out = gather(tmp_path, source="path", path="painter")
    assert folders(out) == set(PAINTER_PARTS)
    assert is_painter(out)
    assert parts_of(out) == PAINTER_PARTS
    assert build_painter(out, 64, 0).image_px == 64


def test_an_index_of_another_pipeline_is_not_a_painters(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert not is_painter(tmp_path)
    assert parts_of(tmp_path) == PARTS


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "params.yaml: backbone.path: name the folder, or set backbone.source to tiny, photo or hub"),
        ("nowhere", "params.yaml: backbone.path: .*nowhere is not a folder"),
        (
            "half",
            "half: the backbone lacks its part vae/; it needs unet, vae, scheduler, image_encoder, text_",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(path: str | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "half" / "unet").mkdir(parents=True)
    with pytest.raises(UserError, match=message):
        gather(tmp_path, source="path", path=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", r"model_index\.json: not a JSON file"), ("[]", r"model_index\.json: holds list, not a JSON object")],
)
def test_an_index_that_is_not_json_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(UserError, match=message):
        check_backbone(tmp_path)


def response(status: int) -> Any:
    import httpx

    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        (
            hub_errors.RevisionNotFoundError("no revision abc", response=response(404)),
            UserError,
            "params.yaml: backbone.stable_diffusion: CompVis/stable-diffusion-v1-4@[0-9a-f]{40}: the Hugging Face hub "
            "does not have it, or not for this account .no revision abc.$",
        ),
        (
            hub_errors.LocalEntryNotFoundError("no connection"),
            UnavailableError,
            "the Hugging Face hub cannot be reached",
        ),
        (hub_errors.HfHubHTTPError("busy", response=response(503)), UnavailableError, "cannot be reached .busy.$"),
    ],
)
def test_errors_of_the_hub_distinguish_a_wrong_name_from_a_missing_connection(
    failure: Exception, error: type[UserError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(UserError, match=message) as raised:
        gather_backbone(HUB, tmp_path, tmp_path)
    assert type(raised.value) is error
