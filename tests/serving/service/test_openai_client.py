"""OpenAI's Python client, unmodified, against the service."""

from collections.abc import Iterator

import numpy as np
import openai
import pytest

from pbe.serving.editor import Edit, EditOptions, Exemplar, Region, read_exemplar, read_source
from pbe.serving.service.edit_inputs import decode_edit_mask
from tests.support.running_service import ALICE, RunningService, SmallEdit, decoded, pixels_of, write_tokens

OPTIONS = {"num_steps": 2, "seed": 5}


@pytest.fixture
def client(service: RunningService) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=ALICE, max_retries=0) as made:
        yield made


def test_an_edit_has_the_bits_that_the_editor_paints(service: RunningService, client: openai.OpenAI) -> None:
    small = SmallEdit()
    reply = client.images.edit(
        image=[small.source, small.exemplar], mask=small.mask, prompt="a cat", n=2, extra_body=OPTIONS
    )
    source = read_source(small.source)
    region = Region(decode_edit_mask(small.mask, "mask"), (Exemplar(read_exemplar(small.exemplar)),))
    editor = service.dispatcher.models.resolve(None).editor
    for seed, image in enumerate(reply.data or [], 5):
        expected = editor.edit(Edit(source, (region,), seed, EditOptions(num_steps=2)))
        painted = pixels_of(decoded(image.b64_json or ""))
        np.testing.assert_array_equal(painted, expected.picture.pixels)
        assert (painted[region.mask == 0] == source.pixels[region.mask == 0]).all()
        assert (painted != source.pixels).any()
        assert image.model_extra is not None
        assert image.model_extra["digest"] == expected.digest
        assert image.model_extra["seed"] == seed
    assert len(reply.data or []) == 2
    assert reply.size == "48x40"
    assert reply.model_extra is not None
    assert "not used: prompt" in reply.model_extra["notes"]


def test_one_image_and_a_reference_image_is_the_same_edit(client: openai.OpenAI) -> None:
    small = SmallEdit()
    two = client.images.edit(image=[small.source, small.exemplar], mask=small.mask, prompt="", extra_body=OPTIONS)
    reference = {"reference_image": "data:image/png;base64," + small.json()["image"][1]}
    one = client.images.edit(image=small.source, mask=small.mask, prompt="", extra_body=OPTIONS | reference)
    assert two.data is not None
    assert one.data is not None
    assert two.data[0].b64_json == one.data[0].b64_json


def test_a_stream_ends_with_the_picture(client: openai.OpenAI) -> None:
    small = SmallEdit()
    images, options = [small.source, small.exemplar], {"num_steps": 12, "seed": 5}
    whole = client.images.edit(image=images, mask=small.mask, prompt="", extra_body=options)
    events = list(
        client.images.edit(image=images, mask=small.mask, prompt="", stream=True, partial_images=2, extra_body=options)
    )
    assert whole.data is not None
    assert events[-1].type == "image_edit.completed"
    assert events[-1].b64_json == whole.data[0].b64_json
    assert {event.type for event in events[:-1]} <= {"image_edit.partial_image"}
    for event in events[:-1]:
        assert pixels_of(decoded(event.b64_json)).shape == (40, 48, 3)


def test_models_are_listed(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "pbe"
    with pytest.raises(openai.NotFoundError, match="served are tiny"):
        client.models.retrieve("gpt-image-1")


def test_errors_have_openais_classes(client: openai.OpenAI) -> None:
    small = SmallEdit()
    with pytest.raises(openai.BadRequestError, match=r"size is 64x64.*48x40") as wrong:
        client.images.edit(image=[small.source, small.exemplar], mask=small.mask, prompt="", size="64x64")
    assert (wrong.value.param, wrong.value.code) == ("size", "invalid_value")
    assert wrong.value.request_id
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.images.edit(image=[small.source, small.exemplar], mask=small.mask, prompt="", model="gpt-image-2")
    with pytest.raises(openai.AuthenticationError, match="not valid"):
        client.with_options(api_key="wrong").models.list()


def test_a_quota_is_a_rate_limit_error(service: RunningService, client: openai.OpenAI) -> None:
    small, path = SmallEdit(), service.state.settings.tokens_file
    assert path is not None
    before = path.read_text()
    write_tokens(path.parent, before + "carol:carol-has-a-small-quota requests_per_minute=1\n")
    carol = client.with_options(api_key="carol-has-a-small-quota")
    images = [small.source, small.exemplar]
    carol.images.edit(image=images, mask=small.mask, prompt="", extra_body=OPTIONS)
    with pytest.raises(openai.RateLimitError, match="1 requests a minute") as refused:
        carol.images.edit(image=images, mask=small.mask, prompt="", extra_body=OPTIONS)
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
    write_tokens(path.parent, before)
