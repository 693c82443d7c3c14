"""ComfyUI node: paint an exemplar's object into the masked region of an image, with a Paint by Example service.

Copy this file into ComfyUI's folder custom_nodes and restart ComfyUI. It needs nothing that ComfyUI does not have, and
a service (`pbe serve`). Values outside the mask are those of the input, to the last bit.
"""

import base64
import io
import json
import os
import time
import urllib.error
import urllib.request

import numpy as np
import torch
from PIL import Image

ONE_OBJECT, ONE_EACH = "one object", "one per image"
TOKEN_VARIABLE = "PBE_TOKEN"  # read where the widget is empty: a workflow, and every image it saves, holds its widgets
TIMEOUT_S = 660.0  # the service answers within 600 s
BUSY = (429, 503)


class PaintByExample:
    """The node. Images are (B, H, W, 3) and masks (B, H, W), float32 from 0 to 1; 1 in the mask is repainted."""

    CATEGORY = "image/inpainting"
    DESCRIPTION = "Paints the object of an exemplar into the masked region. Nothing outside the mask changes."
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "paint"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {
            "required": {
                "source": ("IMAGE",),
                "mask": ("MASK",),
                "exemplar": ("IMAGE", {"tooltip": "a picture of the object to paint, cut out closely"}),
                "server": ("STRING", {"default": "http://127.0.0.1:8000"}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1, "control_after_generate": True}),
                "guidance": ("FLOAT", {"default": 5.0, "min": 0.0, "max": 50.0, "step": 0.1}),
            },
            "optional": {
                "token": ("STRING", {"default": "", "tooltip": f"empty: the environment variable {TOKEN_VARIABLE}"}),
                "model": ("STRING", {"default": "", "tooltip": "an id of /v1/models; empty: the service's default"}),
                "num_steps": ("INT", {"default": 0, "min": 0, "max": 250, "tooltip": "0: the service's default"}),
                "exemplar_batch": (
                    [ONE_OBJECT, ONE_EACH],
                    {"tooltip": "what several exemplars are: pictures of one object, or one for each image"},
                ),
            },
        }

    def paint(
        self, source, mask, exemplar, server, seed, guidance, token="", model="", num_steps=0, exemplar_batch=ONE_OBJECT
    ):
        """Return the edited images (B, H, W, 3); image i of a batch has the seed `seed + i`."""
        mask = mask.reshape(-1, *mask.shape[-2:])
        _check(source, mask, exemplar, exemplar_batch)
        options = {"guidance_scale": guidance}
        options.update({name: value for name, value in (("model", model), ("num_steps", num_steps)) if value})
        results = []
        for i, image in enumerate(source):
            _stop_if_interrupted()
            one_mask = mask[i % len(mask)]
            examples = exemplar[i : i + 1] if exemplar_batch == ONE_EACH and len(exemplar) > 1 else exemplar
            body = {"image": [_encoded(image), *map(_encoded, examples)], "mask": _encoded_mask(one_mask)}
            where = f"Paint by Example, image {i + 1} of {len(source)}" if len(source) > 1 else "Paint by Example"
            answer = _post(
                server, token or os.environ.get(TOKEN_VARIABLE, ""), {**body, **options, "seed": seed + i}, where
            )
            results.append(_pasted(image, one_mask, answer))
        return (torch.stack(results),)


def _check(source, mask, exemplar, exemplar_batch):
    """Raise ValueError for batches and sizes that do not fit together."""
    if len(mask) not in (1, len(source)):
        raise ValueError(f"mask: {len(mask)} masks for {len(source)} images; give one, or one for each image")
    if mask.shape[1:] != source.shape[1:3]:
        sizes = [f"{each.shape[2]} x {each.shape[1]}" for each in (mask, source)]
        hint = "; Load Image gives an empty mask of 64 x 64 for an image without one" if sizes[0] == "64 x 64" else ""
        raise ValueError(f"mask is {sizes[0]} but source is {sizes[1]}: give both the same size{hint}")
    if exemplar_batch == ONE_EACH and len(exemplar) not in (1, len(source)):
        raise ValueError(f"exemplar: {len(exemplar)} exemplars for {len(source)} images; give one for each image")


def _post(server, token, body, where):
    """Return the pixels (H, W, 3) that the service answers; waits while it is busy."""
    address = server.strip().rstrip("/").removesuffix("/v1") + "/v1/images/edits"
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"server: {server!r} is no address; give http://HOST:PORT")
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    end = time.monotonic() + TIMEOUT_S
    while True:
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                return _pixels(reply.read(), where)
        except urllib.error.HTTPError as error:
            wait_s = _wait_s(error)
            if wait_s is None or time.monotonic() + wait_s > end:
                raise RuntimeError(f"{where}: {_message(error)} (HTTP {error.code} of {address})") from None
            _sleep(wait_s)
        except OSError as error:  # URLError is one
            raise RuntimeError(f"{where}: {address} does not answer: {getattr(error, 'reason', error)}") from None


def _wait_s(error):
    """Return how long to wait before the next try, or None when another try would not help."""
    if error.code not in BUSY:
        return None
    stated = error.headers.get("Retry-After", "")
    return float(stated) if stated.isdecimal() else 1.0


def _message(error):
    try:
        return json.loads(error.read())["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return error.reason


def _pixels(answer, where):
    try:
        data = base64.b64decode(json.loads(answer)["data"][0]["b64_json"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
        raise RuntimeError(f"{where}: the answer is not that of a Paint by Example service ({error})") from None


def _pasted(image, mask, pixels):
    """Return the result as floats, with the input's own values where nothing was repainted."""
    result = torch.from_numpy(pixels.astype(np.float32) / 255)
    is_repainted = torch.from_numpy(_bytes(mask) > 127)[..., None]
    return torch.where(is_repainted, result, image[..., :3].cpu().float())


def _bytes(values):
    """Return floats from 0 to 1 as uint8, rounded as ComfyUI saves images."""
    return np.clip(255.0 * values.cpu().numpy(), 0, 255).astype(np.uint8)


def _encoded(image):
    return _png(Image.fromarray(_bytes(image[..., :3])))


def _encoded_mask(mask):
    return _png(Image.fromarray(_bytes(mask)))


def _png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return base64.b64encode(stream.getvalue()).decode()


def _sleep(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _stop_if_interrupted()
        time.sleep(min(0.2, seconds))


def _stop_if_interrupted():
    """End the node when its user has pressed Cancel."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
    except ImportError:  # outside of ComfyUI
        return
    throw_exception_if_processing_interrupted()


NODE_CLASS_MAPPINGS = {"PaintByExample": PaintByExample}
NODE_DISPLAY_NAME_MAPPINGS = {"PaintByExample": "Paint by Example"}
