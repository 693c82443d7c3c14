"""Edits over HTTP: what the fields do, what is refused and why, and that nothing of one user reaches another."""

import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as PILImage

from tests.support.running_service import (
    EDITS,
    RunningService,
    SmallEdit,
    decoded,
    encoded,
    noise,
    openai_mask,
    pixels_of,
    png,
    post_form,
    wait_for,
)

SMALL = SmallEdit()


def edited(answer: httpx.Response, number: int = 0) -> Any:
    assert answer.status_code == 200, answer.text[:500]
    return answer.json()["data"][number]


def refused(answer: httpx.Response, status: int, message: str, param: str | None = None) -> dict[str, Any]:
    assert answer.status_code == status, answer.text[:500]
    error: dict[str, Any] = answer.json()["error"]
    assert message in error["message"]
    assert error["param"] == param
    assert error.keys() == {"message", "type", "param", "code"}
    return error


def test_a_form_and_json_are_the_same_edit(alice: httpx.Client) -> None:
    form, body = edited(post_form(alice, SMALL, seed=3)), edited(alice.post(EDITS, json=SMALL.json(seed=3)))
    assert form == body
    references = SMALL.json(seed=3, image={"b64_json": encoded(SMALL.source)})
    references["reference_image"] = [{"image_url": "data:image/png;base64," + encoded(SMALL.exemplar)}]
    assert edited(alice.post(EDITS, json=references)) == form


def test_the_order_of_indexed_images_is_that_of_their_numbers(alice: httpx.Client) -> None:
    swapped = [("image[1]", SMALL.exemplar), ("image[0]", SMALL.source), ("mask_image", SMALL.mask)]
    files = [(name, ("x.png", data)) for name, data in swapped]
    answer = alice.post(EDITS, data={"num_steps": "2", "seed": "3"}, files=files)
    assert edited(answer) == edited(post_form(alice, SMALL, seed=3))


def test_a_mask_is_transparent_or_white_where_to_repaint(alice: httpx.Client) -> None:
    white = np.where(openai_mask(40, 48)[..., 3] == 0, 255, 0).astype(np.uint8)
    of_alpha = edited(post_form(alice, SMALL))
    assert edited(post_form(alice, SmallEdit(mask=png(white)))) == of_alpha
    opaque = np.dstack([white, white, white, np.full_like(white, 255)])
    assert edited(post_form(alice, SmallEdit(mask=png(opaque)))) == of_alpha


def test_without_a_mask_the_transparent_part_of_the_source_is_repainted(alice: httpx.Client) -> None:
    alpha = openai_mask(40, 48)[..., 3:]
    answer = alice.post(EDITS, json=SMALL.json(image=[encoded(png(np.dstack([noise(40, 48, 0), alpha]))),
                                                      encoded(SMALL.exemplar)], mask=None))  # fmt: skip
    painted = pixels_of(decoded(edited(answer)["b64_json"]))
    assert (painted[..., 3] == 255).all()
    assert any("no mask" in note for note in answer.json()["notes"])


def test_regions_have_their_own_exemplars(alice: httpx.Client) -> None:
    left, right = np.zeros((40, 96), np.uint8), np.zeros((40, 96), np.uint8)
    left[10:25, 8:30], right[10:25, 60:80] = 255, 255
    source, other, white = png(noise(40, 96, 0)), png(noise(20, 20, 2)), png(np.full((20, 20), 255, np.uint8))
    regions = [
        {"mask": encoded(png(left))},
        {"mask": encoded(png(right)), "reference_image": encoded(other), "reference_mask": encoded(white)},
    ]  # fmt: skip
    body = {"image": encoded(source), "reference_image": encoded(SMALL.exemplar), "num_steps": 2, "regions": regions}
    painted = pixels_of(decoded(edited(alice.post(EDITS, json=body))["b64_json"]))
    changed = (painted != pixels_of(source)).any(axis=2)
    assert changed[left > 0].any()
    assert changed[right > 0].any()
    assert not changed[(left == 0) & (right == 0)].any()
    form = {"num_steps": "2", "regions": json.dumps(regions)}
    files = [("image", ("a", source)), ("reference_image", ("b", SMALL.exemplar))]
    same = edited(alice.post(EDITS, data=form, files=files))
    np.testing.assert_array_equal(pixels_of(decoded(same["b64_json"])), painted)


@pytest.mark.parametrize(("out_format", "magic"), [("png", b"\x89PNG"), ("jpeg", b"\xff\xd8"), ("webp", b"RIFF")])
def test_output_formats(alice: httpx.Client, out_format: str, magic: bytes) -> None:
    answer = post_form(alice, SMALL, output_format=out_format)
    assert decoded(edited(answer)["b64_json"]).startswith(magic)
    assert answer.json()["output_format"] == out_format


def test_metadata_is_left_out_unless_asked_for(alice: httpx.Client) -> None:
    exif = PILImage.Exif()
    exif[0x010E] = "<script>alert(1)</script>"
    source = png(noise(40, 48, 0), exif=exif, dpi=(300, 300))
    plain = post_form(alice, SmallEdit(source=source))
    assert b"<script>" not in decoded(edited(plain)["b64_json"])
    assert b"pHYs" in decoded(edited(plain)["b64_json"])
    assert any("EXIF" in note and "metadata=all" in note for note in plain.json()["notes"])
    kept = post_form(alice, SmallEdit(source=source), metadata="all")
    assert b"<script>" in decoded(edited(kept)["b64_json"])
    assert edited(kept)["digest"] == edited(plain)["digest"]


def test_a_url_is_for_the_same_token_only(alice: httpx.Client, bob: httpx.Client) -> None:
    embedded = edited(post_form(alice, SMALL))
    url = edited(post_form(alice, SMALL, response_format="url"))["url"]
    picture = alice.get(url)
    assert picture.content == decoded(embedded["b64_json"])
    assert picture.headers["content-type"] == "image/png"
    assert "sandbox" in picture.headers["content-security-policy"]
    assert bob.get(url).status_code == 404
    assert httpx.get(url).status_code == 401


def test_a_job_has_the_result_of_the_request(alice: httpx.Client) -> None:
    accepted = alice.post(f"{EDITS}?async", json=SMALL.json(n=2))
    assert accepted.status_code == 202
    job = f"/v1/jobs/{accepted.json()['id']}"
    assert accepted.headers["location"].endswith(job)
    wait_for(lambda: alice.get(job).json()["status"] == "done")
    done = alice.get(job).json()
    assert (done["progress"], done["position"], done["n"]) == (1, 0, 2)
    result = alice.get(done["result_url"]).json()
    assert result["data"] == alice.post(EDITS, json=SMALL.json(n=2)).json()["data"]
    assert done["id"] in [each["id"] for each in alice.get("/v1/jobs").json()["data"]]
    assert alice.delete(job).json()["status"] == "done"
    assert alice.get(job).status_code == 404


def test_nobody_sees_anothers_jobs(alice: httpx.Client, bob: httpx.Client) -> None:
    job = "/v1/jobs/" + alice.post(f"{EDITS}?async=true", json=SMALL.json()).json()["id"]
    wait_for(lambda: alice.get(job).json()["status"] == "done")
    assert bob.get(job).status_code == bob.get(f"{job}/result").status_code == bob.delete(job).status_code == 404
    assert bob.get("/v1/jobs").json()["data"] == []
    assert alice.get(f"{job}/result").status_code == 200


BAD_FIELDS = [
    ({"n": 0}, "n is 0", "n"),
    ({"n": 11}, "at most 10 variants", "n"),
    ({"size": "1024x1024"}, "the source's size, 48x40", "size"),
    ({"seed": -1}, "seed is -1", "seed"),
    ({"seed": 2**63}, "seed is 9223372036854775808", "seed"),
    ({"seed": 2**63 - 1, "n": 2}, "the last variant's seed", "seed"),
    ({"guidance_scale": "nan"}, "guidance_scale is", "guidance_scale"),
    ({"guidance_scale": 1e9}, "guidance_scale is 1000000000.0", "guidance_scale"),
    ({"num_steps": 251}, "at most 250", "num_steps"),
    ({"sampler": "euler"}, "sampler is", "sampler"),
    ({"output_format": "gif"}, "output_format is", "output_format"),
    ({"guidence_scale": 5}, "unknown parameter: guidence_scale", "guidence_scale"),
    ({"stream": True, "n": 2}, "a stream has one picture", "n"),
    ({"prompt": "x" * 40000}, "at most 32000", "prompt"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "message", "param"), BAD_FIELDS, ids=lambda value: str(value)[:30])
def test_bad_fields_are_refused_with_their_name(
    alice: httpx.Client, fields: dict[str, Any], message: str, param: str
) -> None:
    refused(alice.post(EDITS, json=SMALL.json(**fields)), 400, message, param)
    refused(post_form(alice, SMALL, **fields), 400, message, param)


BAD_BODIES = [
    ("image", None, "image is missing"),
    ("image", encoded(SMALL.source), "no exemplar"),
    ("image", [encoded(SMALL.source), "http://169.254.169.254/x.png"], "no address is fetched"),
    ("image", [encoded(SMALL.source), "file:///etc/passwd"], "no address is fetched"),
    ("image", [encoded(SMALL.source), "/etc/passwd"], "not an image"),
    ("image", [encoded(SMALL.source), "%%%"], "not base64"),
    ("image", [encoded(SMALL.source), ""], "is empty"),
    ("image", [encoded(b"GIF89a"), encoded(SMALL.exemplar)], "not an image"),
    ("image", [encoded(SMALL.source[:-200]), encoded(SMALL.exemplar)], "cannot be decoded"),
    ("image", [encoded(SMALL.source)] * 17, "at most 16"),
    ("mask", None, "mask is missing"),
    ("mask", encoded(png(openai_mask(40, 40))), "40 x 40 but image is 48 x 40"),
    ("mask", encoded(png(np.zeros((40, 48), np.uint8))), "marks nothing"),
    ("mask", {"image_url": "x", "b64_json": "y"}, "either image_url or b64_json"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "message"), BAD_BODIES, ids=lambda value: str(value)[:20])
def test_bad_images_are_refused_with_their_name(alice: httpx.Client, name: str, value: Any, message: str) -> None:
    answer = alice.post(EDITS, json=SMALL.json(**{name: value}))
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_other_kinds_of_bodies_are_refused(alice: httpx.Client) -> None:
    as_json, as_form = {"content-type": "application/json"}, {"content-type": "multipart/form-data; boundary=x"}
    refused(alice.post(EDITS, content=b"{", headers=as_json), 400, "not JSON")
    refused(alice.post(EDITS, content=b"[" * 100_000, headers=as_json), 400, "not JSON")
    refused(alice.post(EDITS, content=b"[]", headers=as_json), 400, "not a JSON object")
    refused(alice.post(EDITS, content=b'{"seed": NaN}', headers=as_json), 400, "not JSON")
    assert alice.post(EDITS, content=b'{"seed": 1' + b"0" * 5000 + b"}", headers=as_json).status_code == 400
    refused(alice.post(EDITS, data={"n": "1"}), 415, "application/x-www-form-urlencoded")
    refused(alice.post(EDITS), 415, "missing")
    assert alice.post(EDITS, content=b"junk", headers=as_form).status_code == 400
    assert alice.post(EDITS, content=b"x", headers={"content-type": "multipart/form-data"}).status_code == 400


def test_a_form_may_not_repeat_a_field_nor_send_it_as_a_file(alice: httpx.Client) -> None:
    files = SMALL.files()
    refused(alice.post(EDITS, data={"seed": ["1", "2"]}, files=files), 400, "given twice", "seed")
    refused(alice.post(EDITS, files=[*files, ("seed", ("s", b"1"))]), 400, "is a file", "seed")
    refused(alice.post(EDITS, files=[*files, ("mask", ("m", SMALL.mask))]), 400, "more than one mask", "mask")


def test_names_of_files_are_not_looked_at(alice: httpx.Client) -> None:
    names = ["../../etc/passwd", "C:\\con", "a\0b", "x" * 5000]
    for name in names:
        files = [(field, (name, data, "text/html")) for field, (_, data, _) in SMALL.files()]
        answer = alice.post(EDITS, data={"num_steps": "1"}, files=files)
        assert answer.status_code in (200, 400)
        assert "passwd" not in answer.text


def test_a_strange_host_is_no_error_of_the_service(alice: httpx.Client) -> None:
    for host in ("[x", "a b", "x" * 300, "evil.example/path?x#y", ""):
        answer = alice.post(f"{EDITS}?async", json=SMALL.json(), headers={"host": host})
        assert answer.status_code in (202, 400)


def test_a_request_has_an_id(alice: httpx.Client) -> None:
    assert alice.get("/healthz", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert len(alice.get("/healthz", headers={"x-request-id": "a b\x7f"}).headers["x-request-id"]) == 32


def test_metrics(service: RunningService, alice: httpx.Client) -> None:
    post_form(alice, SMALL)
    service.wait_until_idle()
    text = alice.get("/metrics").text
    for line in (
        'pbe_http_requests_total{code="200",method="POST",route="/v1/images/edits"}',
        "pbe_queue_length 0.0",
        'pbe_model_info{alias="",model="tiny",version=""} 1.0',
        'pbe_batch_size_bucket{le="1.0"}',
        "pbe_painted_windows_total",
        'pbe_edits_total{status="done"}',
        'pbe_refused_total{reason="invalid_value"}',
    ):
        assert line in text
    assert service.dispatcher.state.counters.failed == 0
