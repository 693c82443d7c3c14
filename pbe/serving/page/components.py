"""The page's own components: the editor of a picture and its mask, and the viewer of a painting.

Gradio's ImageEditor draws on a copy that the browser has decoded and encodes it again, so that a profile, 16 bits and
the exact size of a photograph are lost, and it has no rectangle and no lasso. These components are plain JavaScript in
`static`, which gr.HTML runs; they send the file itself, and the mask at the file's size. They are functions and not
subclasses, since Gradio writes a stub file beside the module of each subclass.
"""

from functools import cache
from pathlib import Path

import gradio as gr

from pbe.serving.page.opening import ServerFunction

_STATIC = Path(__file__).parent / "static"


@cache
def read_static(name: str) -> str:
    """Return the text of a file that the browser gets."""
    return (_STATIC / name).read_text(encoding="utf-8")


def picture_editor(
    role: str,
    *,
    title: str,
    subtitle: str,
    invitation: str,
    empty_mask: str,
    stage_px: int,
    max_file_bytes: int,
    server_functions: list[ServerFunction],
) -> gr.HTML:
    """Return an editor of a picture and of a mask on it; `role` is source or exemplar."""
    return gr.HTML(
        {},
        html_template=read_static("editor.html"),
        js_on_load=read_static("mask.js") + read_static("editor.js"),
        apply_default_css=False,
        elem_id=f"pbe-{role}",
        server_functions=server_functions,
        role=role,
        title=title,
        subtitle=subtitle,
        invitation=invitation,
        empty_mask=empty_mask,
        canvas_label="arrow keys move the cursor, Space starts and ends a stroke",
        stage_px=stage_px,
        max_file_bytes=max_file_bytes,
    )


def result_viewer(server_functions: list[ServerFunction]) -> gr.HTML:
    """Return a viewer of a painting: its variants, before and after, and what changed."""
    return gr.HTML(
        {},
        html_template=read_static("viewer.html"),
        js_on_load=read_static("viewer.js"),
        apply_default_css=False,
        elem_id="pbe-result",
        server_functions=server_functions,
    )


def example_row(pictures: dict[str, tuple[str, str]], server_functions: list[ServerFunction]) -> gr.HTML:
    """Return a row of examples to click; `pictures` gives each name the data URLs of its source and exemplar."""
    buttons = "".join(
        f'<button type="button" data-example="{name}" aria-label="Example: {name}">'
        f'<img alt="" src="{source}"><img class="pbe-object" alt="" src="{exemplar}"></button>'
        for name, (source, exemplar) in pictures.items()
    )
    return gr.HTML(
        {},
        html_template=f'<div class="pbe-examples"><span>Try an example:</span>{buttons}</div>',
        js_on_load=read_static("examples.js"),
        apply_default_css=False,
        elem_id="pbe-examples",
        server_functions=server_functions,
    )
