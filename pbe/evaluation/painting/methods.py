"""The methods that paint with a model, and what decides their pictures: the painter, and baselines that need a model.

A new one is a class like `windows.ExemplarPainter`, and an entry in PAINTED_METHODS. Baselines that need no
model are functions (`pbe.evaluation.baselines`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pbe.errors import UserError
from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.labels import words_of
from pbe.evaluation.names import METHOD, STOCK, TEXT_CAPTION, TEXT_INPAINTING
from pbe.evaluation.painting.windows import CasePainter, ExemplarPainter, PaintSettings
from pbe.runtime.code_digest import digest_code
from pbe.runtime.files import digest_folder

_LIBRARIES = ("diffusers", "numpy", "opencv-python-headless", "torch", "transformers")
_DECODING = ("pbe.dataset.images", "pbe.dataset.mask_images")

Texts = Mapping[int, str]  # what a model that takes no image is told of each case's exemplar, by case id


@dataclass(frozen=True)
class Models:
    """The folders of the models that methods paint with."""

    painter: Path
    backbone: Path | None = None  # the text-to-image model; None without baselines that use it


@dataclass(frozen=True)
class PaintedMethod:
    """How a method is loaded in a worker, and the code and values that decide its pixels."""

    load: Callable[[Models, PaintSettings], CasePainter]
    code: str  # the module that computes the pixels, with all that it imports
    values: Callable[[Models], Mapping[str, object]]
    texts: Callable[[Bench, Texts], Texts] | None = None  # of a bench and the known names of its exemplars' classes


def recipe_of(name: str, models: Models, settings: PaintSettings) -> dict[str, object]:
    """Return what decides a method's pictures, without the guidance scale, the seed, the text and the case.

    On a CPU the size of a call decides the last bits. On a GPU the same bits are not promised for any two sizes of a
    batch, and pictures are kept when it changes.
    """
    method, kind = PAINTED_METHODS[name], settings.device.partition(":")[0]
    return {
        **method.values(models),
        "code": digest_code(method.code, *_DECODING),
        "libraries": {library: version(library) for library in _LIBRARIES},
        "device": kind,
        "precision": settings.precision,
        **settings.sampling,
        "max_magnification": settings.max_magnification,
        "call_size": settings.call_size if kind == "cpu" else None,
    }


def check_methods(names: Iterable[str], bench: Bench, models: Models, class_names: Texts) -> None:
    """Raise UserError when a method cannot paint the bench: before any other has painted for hours."""
    for name in names:
        PAINTED_METHODS[name].values(models)
        texts_of(name, bench, class_names)


def texts_of(name: str, bench: Bench, class_names: Texts) -> Texts:
    """Return what a method is told of each exemplar; nothing for one that takes the exemplar itself."""
    texts = PAINTED_METHODS[name].texts
    return texts(bench, class_names) if texts else {}


def class_prompts(bench: Bench, class_names: Texts) -> Texts:
    """Return "a soda can" for an exemplar of the class SodaCan; raises UserError when the class of one is not known."""
    labels = {origin.case_id: origin.exemplar_label for origin in bench.origins or ()} | dict(class_names)
    return {case_id: f"a {words_of(_known(bench, case_id, labels, 'exemplar_label'))}" for case_id in bench.ids}


def captions(bench: Bench, class_names: Texts) -> Texts:
    """Return the captions of the exemplars; raises UserError when one is not known."""
    texts = {origin.case_id: origin.exemplar_caption for origin in bench.origins or ()}
    return {case_id: _known(bench, case_id, texts, "exemplar_caption") for case_id in bench.ids}


def _known(bench: Bench, case_id: int, texts: Texts, column: str) -> str:
    if not texts.get(case_id):
        raise UserError(
            f"{bench.folder / 'cases.csv'}: case {case_id} has no {column}; give it, or remove the baselines that are "
            "conditioned by text from evaluate.baselines"
        )
    return texts[case_id]


def _load_painter(models: Models, settings: PaintSettings) -> CasePainter:
    return ExemplarPainter.load(models.painter, settings)


def _load_text(models: Models, settings: PaintSettings) -> CasePainter:
    from pbe.evaluation.baselines.text_inpainting import TextPainter
    from pbe.method.backbone import painter_px

    return TextPainter.load(_text_backbone(models), painter_px(models.painter), settings)


def _load_stock(models: Models, settings: PaintSettings) -> CasePainter:
    from pbe.evaluation.baselines.stock import StockPainter

    return StockPainter.load(models.painter, settings)


def _painter_values(models: Models) -> Mapping[str, object]:
    return {"weights": _digest(models.painter)}


def _text_values(models: Models) -> Mapping[str, object]:
    from pbe.method.backbone import painter_px

    return {"weights": _digest(_text_backbone(models)), "image_px": painter_px(models.painter)}


def _stock_values(models: Models) -> Mapping[str, object]:
    from pbe.evaluation.baselines.stock import check_exportable

    check_exportable(models.painter)
    return _painter_values(models)


def _text_backbone(models: Models) -> Path:
    from pbe.method.backbone import check_backbone, is_painter

    folder = models.backbone
    if folder is None or is_painter(folder):
        raise UserError(
            f"{folder or 'models/backbone'}: {TEXT_INPAINTING} needs a text-to-image model, but this backbone is a "
            f"painter; remove {TEXT_INPAINTING} from evaluate.baselines"
        )
    check_backbone(folder)
    return folder


PAINTED_METHODS: Mapping[str, PaintedMethod] = {
    METHOD: PaintedMethod(_load_painter, "pbe.evaluation.painting.windows", _painter_values),
    TEXT_INPAINTING: PaintedMethod(_load_text, "pbe.evaluation.baselines.text_inpainting", _text_values, class_prompts),
    TEXT_CAPTION: PaintedMethod(_load_text, "pbe.evaluation.baselines.text_inpainting", _text_values, captions),
    STOCK: PaintedMethod(_load_stock, "pbe.evaluation.baselines.stock", _stock_values),
}


def _digest(folder: Path) -> str:
    stamps = tuple((path.name, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")))
    return _digest_unchanged(folder.resolve(), stamps)


@cache
def _digest_unchanged(folder: Path, stamps: tuple[tuple[str, int], ...]) -> str:
    return digest_folder(folder)
