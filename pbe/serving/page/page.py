"""The page: Gradio's Blocks with the project's own editors, mounted on the service's application.

Page and service share one process and one dispatcher. The page loads nothing from other servers, and Gradio sends no
statistics. See `mounting`.
"""

import base64
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from pbe.dataset.images import read_image
from pbe.errors import UserError
from pbe.method.sampling import SAMPLERS
from pbe.serving.editor import EditOptions
from pbe.serving.page.components import example_row, picture_editor, read_static, result_viewer
from pbe.serving.page.examples import Example, find_examples
from pbe.serving.page.opening import Opener, server_function
from pbe.serving.page.painting import PagePainter, PaintRequest, failed
from pbe.serving.page.sentences import sentence
from pbe.serving.page.store import PageStore
from pbe.serving.page.views import encode_preview
from pbe.serving.page.visitors import Visitors
from pbe.serving.service.dispatcher import Dispatcher
from pbe.serving.service.models import ModelInfo
from pbe.serving.service.settings import ServiceSettings

TITLE = "Paint by Example"
FORM_BYTES = 1024
MAX_VARIANTS = 8
_DELETE_UPLOADS = (60, 600)  # every minute, files that nobody opened for ten minutes
_EXPORT = """async (source, exemplar, ...options) => {
  const { editors } = window.pbe;
  document.querySelector(".pbe-viewer .pbe-sub").textContent = "Reading the mask…";
  return [await editors.source.exportValue(), await editors.exemplar.exportValue(), ...options];
}"""


class Page:
    """What the page's parts share."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        settings: ServiceSettings,
        visitors: Visitors,
        *,
        uploads: Path,
        examples: dict[str, Example] | None = None,
    ) -> None:
        self.dispatcher, self.settings, self.visitors = dispatcher, settings, visitors
        self.store = PageStore()
        self.painter = PagePainter(dispatcher, self.store, visitors)
        self.examples = find_examples() if examples is None else examples
        self.opener = Opener(self.store, uploads, self.examples, max_pixels=settings.max_pixels)

    @property
    def max_file_bytes(self) -> int:
        """Return the size of the largest file, in a request that has room for the form around it."""
        return self.settings.max_body_bytes - FORM_BYTES

    @property
    def max_variants(self) -> int:
        return min(MAX_VARIANTS, self.settings.max_variants)

    async def paint(
        self,
        source: dict[str, Any],
        exemplar: dict[str, Any],
        model: str | None,
        num_variants: float,
        seed: float | None,
        guidance_scale: float,
        num_steps: float,
        sampler: str,
        max_magnification: float,
        context: str,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, Any, Any]]:
        """Paint, and yield the values of the viewer and of the two buttons."""
        try:
            context_px = read_context(context)
        except UserError as error:
            yield failed(sentence(error)), gr.skip(), gr.skip()
            return
        options = EditOptions(
            guidance_scale=guidance_scale,
            num_steps=int(num_steps),
            sampler=sampler,
            max_magnification=max_magnification,
            context_px=context_px,
        )
        count = min(max(1, int(num_variants)), self.max_variants)
        asked = PaintRequest(source, exemplar, model, count, int(seed or 0), options)
        buttons = gr.update(interactive=False), gr.update(visible=True)
        async for shown in self.painter.paint(_session(request), request.username, asked):
            if shown["state"] != "running":
                buttons = idle_buttons()
            yield shown, *buttons
            buttons = gr.skip(), gr.skip()

    def cancel(self, request: gr.Request) -> None:
        self.painter.cancel(_session(request))

    def close(self, request: gr.Request) -> None:
        """Cancel what a closed tab was painting, and delete its pictures."""
        self.painter.close(_session(request))

    def link(self, source: dict[str, Any], request: gr.Request) -> None:
        """Note which page's pictures to delete when the tab is closed."""
        self.store.link(_session(request), str(source.get("page", "")))

    def choose_model(self) -> Any:
        """Return the models that are served now, the default one chosen."""
        choices = model_choices(self.dispatcher.models.list())
        return gr.Dropdown(choices=choices, value=choices[0][1])


def build_page(page: Page) -> gr.Blocks:
    """Return the layout of the page, and what its buttons do."""
    opener = page.opener
    editor_functions = [server_function(each) for each in (opener.open_picture, opener.open_mask, opener.holds)]
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=_DELETE_UPLOADS) as blocks:
        with gr.Row(elem_id="pbe-top"):
            gr.HTML(read_static("head.html"), apply_default_css=False, js_on_load=read_static("shortcuts.js"))
            if page.examples:
                example_row(_thumbnails(page.examples), [server_function(opener.open_example)])
        with gr.Row(elem_id="pbe-work"):
            source = picture_editor(
                "source",
                title="Picture",
                subtitle="Mark the part to repaint.",
                invitation="Choose a picture",
                empty_mask="nothing marked yet",
                stage_px=560,
                max_file_bytes=page.max_file_bytes,
                server_functions=editor_functions,
            )
            with gr.Column(elem_id="pbe-right"):
                exemplar = picture_editor(
                    "exemplar",
                    title="Object",
                    subtitle="Mark it if the picture shows other things too.",
                    invitation="Choose a picture of the object",
                    empty_mask="the whole picture is used",
                    stage_px=260,
                    max_file_bytes=page.max_file_bytes,
                    server_functions=editor_functions,
                )
                options = _build_options(page)
                with gr.Row(elem_id="pbe-run"):
                    paint = gr.Button("Paint", variant="primary", elem_id="pbe-paint")
                    cancel = gr.Button("Cancel", variant="stop", elem_id="pbe-cancel", visible=False)
        viewer = result_viewer([server_function(opener.open_variant)])
        gr.HTML(read_static("help.html"), apply_default_css=False)
        painting = paint.click(
            page.paint,
            [source, exemplar, *options],
            [viewer, paint, cancel],
            js=_EXPORT,
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        )
        painting.failure(
            show_failure, None, [viewer, paint, cancel], show_progress="hidden", api_visibility="private"
        )  # fmt: skip
        cancel.click(page.cancel, queue=False, show_progress="hidden", api_visibility="private")
        blocks.load(
            page.link, source, js="() => [{ page: window.pbe?.key ?? '' }]", queue=False, api_visibility="private"
        )  # fmt: skip
        blocks.load(page.choose_model, None, options[0], queue=False, api_visibility="private")
        blocks.unload(page.close)
    assert isinstance(blocks, gr.Blocks)
    return blocks


def _build_options(page: Page) -> list[gr.components.Component]:
    """Return the components of the options, in the order of `Page.paint`'s parameters."""
    defaults = EditOptions()
    with gr.Row(elem_id="pbe-options"):
        num_variants = gr.Slider(1, page.max_variants, 1, step=1, label="Variants", min_width=150, buttons=[])
        seed = gr.Number(0, label="First seed", precision=0, min_width=110)
    with gr.Accordion("More options", open=False, elem_id="pbe-more"):
        choices = model_choices(page.dispatcher.models.list())
        model = gr.Dropdown(choices, value=choices[0][1] if choices else None, label="Model", filterable=False)
        guidance_scale = gr.Slider(
            1, 20, defaults.guidance_scale, step=0.5, label="Guidance", buttons=[],
            info="How closely to follow the object",
        )  # fmt: skip
        num_steps = gr.Slider(
            1,
            min(200, page.settings.max_steps),
            defaults.num_steps,
            step=1,
            label="Steps",
            info="More take longer",
            buttons=[],
        )
        sampler = gr.Dropdown(list(SAMPLERS), value=defaults.sampler, label="Sampler", filterable=False)
        max_magnification = gr.Slider(
            1, 8, defaults.max_magnification, step=0.5, label="Magnification", buttons=[],
            info="How far a small part may be enlarged for painting",
        )  # fmt: skip
        # A text, since Gradio's Number sends 0 when it is empty, and 0 is no context.
        context_px = gr.Textbox(
            "", label="Context in pixels", placeholder="automatic", info="What the model sees around the mask"
        )  # fmt: skip
    return [model, num_variants, seed, guidance_scale, num_steps, sampler, max_magnification, context_px]


def read_context(text: str) -> int | None:
    """Return the pixels of context that a person typed, None for an empty text; raises UserError for no number."""
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UserError(f"Context is {text[:20]}: give a whole number of pixels, or nothing")
    return int(text)


def model_choices(models: Sequence[ModelInfo]) -> list[tuple[str, str]]:
    """Return what the page calls each model, and its id."""
    return [(_model_label(model), model.id) for model in models]


def _model_label(model: ModelInfo) -> str:
    details = [f"version {model.version}"] if model.version else []
    details += [model.alias] if model.alias else []
    return f"{model.id} ({', '.join([*details, f'{model.image_px} px'])})"


def _thumbnails(examples: dict[str, Example]) -> dict[str, tuple[str, str]]:
    return {name: (_data_url(each.source), _data_url(each.exemplar)) for name, each in examples.items()}


def _data_url(file: Path) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(encode_preview(read_image(file), 144)).decode()


def show_failure() -> tuple[Any, Any, Any]:
    """Return what the page shows when painting failed by no fault of the user; the log has the traceback."""
    message = "The server could not paint this: its log says why."
    return failed(message), *idle_buttons()


def idle_buttons() -> tuple[Any, Any]:
    """Return the state of the buttons Paint and Cancel when nothing is painted."""
    return gr.update(interactive=True), gr.update(visible=False)


def _session(request: gr.Request) -> str:
    return str(request.session_hash)
