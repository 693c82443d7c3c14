"""The `pbe` command: edit an image with the champion model, import and export models, and review the curated data.

An error that the user can correct is one line on stderr, `error: ...`, and exit code 2; any other exception is a bug,
with its traceback and exit code 1. Large libraries are imported where they are used, so that help and such errors come
within a fraction of a second. This module is an edge of the program: with `model_choice`, it reads the environment,
and nothing below does.
"""

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pbe.errors import UserError, disk_errors_reported, one_line
from pbe.runtime.files import atomic_file, atomic_folder
from pbe.serving.commands.batch import add_batch
from pbe.serving.commands.edit_inputs import check_edit_arguments, checked_exemplar, checked_source, print_notes
from pbe.serving.commands.evaluate import add_evaluate
from pbe.serving.commands.model_choice import CHAMPION, PHOTO, default_model, model_folder
from pbe.serving.commands.output_files import check_folder_of, check_new
from pbe.serving.commands.progress import progress_bar
from pbe.serving.commands.reference import add_reference
from pbe.serving.commands.start_up import hidden_module, paused_collector

if TYPE_CHECKING:
    from pbe.method.painter import Painter
    from pbe.serving.pictures import Picture
    from pbe.types import Mask

USER_ERROR_CODE, INTERRUPTED_CODE = 2, 130


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR_CODE, f"error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `pbe` with these arguments, by default the process's; return its exit code, or exit with it."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], None] = arguments.command
    try:
        with disk_errors_reported():
            command(arguments)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return USER_ERROR_CODE
    except KeyboardInterrupt:
        return INTERRUPTED_CODE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="pbe", description="Paint by Example: edit images by example.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_edit(commands.add_parser("edit", help="paint the object of one image into the masked part of another"))
    add_batch(commands.add_parser("batch", help="paint many pictures with one model"), _model_folder, _load_placed)
    _add_exchange(commands)
    add_evaluate(commands.add_parser("evaluate", help="score results that any tool has painted on a bench"))
    add_reference(commands.add_parser("reference", help="make the statistics of real images that FID and QS need"))
    browse = commands.add_parser("browse", help="open the curated data in the FiftyOne App")
    browse.add_argument("--port", type=int, default=5151, help="a port of 127.0.0.1 (default: 5151)")
    browse.set_defaults(command=_browse)
    verdicts = commands.add_parser("verdicts", help="collect the reviewers' verdicts on the curated data")
    actions = verdicts.add_subparsers(required=True, metavar="ACTION")
    pull = actions.add_parser("pull", help="write the tags keep and reject of the FiftyOne App to data/verdicts.csv")
    pull.set_defaults(command=_pull_verdicts)
    attributions = commands.add_parser("attributions", help="write the author and licence of each curated image")
    attributions.add_argument("--out", type=Path, required=True, metavar="CSV")
    attributions.set_defaults(command=_write_attributions)
    return parser


def _add_edit(edit: argparse.ArgumentParser) -> None:
    edit.set_defaults(command=_edit)
    edit.add_argument("--source", type=Path, required=True, metavar="IMAGE", help="the image to edit")
    edit.add_argument(
        "--mask", type=Path, required=True, metavar="IMAGE", help="white where to repaint; same size as the source"
    )
    edit.add_argument("--invert-mask", action="store_true", help="repaint where the mask is black instead")
    edit.add_argument("--exemplar", type=Path, metavar="IMAGE", help="an image of the object to paint")
    edit.add_argument("--out", type=Path, metavar="PNG", help="the edited image; .tif, .bmp, .webp and .jpg also work")
    edit.add_argument(
        "--preview", type=Path, metavar="PNG", help="write an image of the mask and its windows, and do not paint"
    )
    edit.add_argument(
        "--model",
        help=f"a folder, a registered model such as {CHAMPION}, or {PHOTO}, the bundled painter of photographs "
        "(default: the champion if there is one, else photo)",
    )
    edit.add_argument(
        "--guidance-scale", type=float, default=5, metavar="S", help="similarity to the exemplar (default: 5)"
    )
    edit.add_argument("--num-steps", type=int, default=50, metavar="N", help="number of sampling steps (default: 50)")
    edit.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the noise (default: 0)")
    edit.add_argument(
        "--device",
        default="auto",
        metavar="D",
        help="where to paint: auto (a GPU if there is one), cpu, cuda or cuda:1 (default: auto)",
    )
    edit.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="of the model: auto (bf16 where it is fast, else fp32), fp32, bf16 or fp16 (default: auto)",
    )
    edit.add_argument(
        "--max-magnification",
        type=float,
        default=2,
        metavar="M",
        help="how far a small mask is magnified for painting; 1 does not magnify (default: 2)",
    )


def _add_exchange(commands: "argparse._SubParsersAction[_Parser]") -> None:
    bring = commands.add_parser("import", help="convert the authors' model.ckpt or published folder to a model folder")
    bring.add_argument("--from", dest="origin", type=Path, required=True, metavar="FILE_OR_FOLDER")
    bring.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder, such as models/authors")
    bring.add_argument(
        "--adapter", action="append", default=[], metavar="FOLDER[=WEIGHT]",
        help="merge a trained adapter, times a weight (default: 1); may be given several times",
    )  # fmt: skip
    bring.set_defaults(command=_import)
    export = commands.add_parser("export", help="convert a model to a format of other tools")
    export.add_argument("--model", default=CHAMPION, help="a model as for edit (default: %(default)s)")
    export.add_argument(
        "--format",
        choices=("ldm", "diffusers"),
        required=True,
        help="ldm: a checkpoint file like the authors'; diffusers: a folder like the published one",
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE_OR_FOLDER")
    export.set_defaults(command=_export)


def _edit(arguments: argparse.Namespace) -> None:
    """Check the arguments and images, load the model, paint, and write the result."""
    check_edit_arguments(arguments)
    with paused_collector():
        source, mask = checked_source(arguments)
        if arguments.preview:
            return _write_preview(arguments, source, mask)
        exemplar = checked_exemplar(arguments, source, mask)
        from pbe.serving.editor import edit_picture, mask_notes

        painter = _load_placed(_model_folder(arguments.model), arguments.device, arguments.precision)
    print_notes(mask_notes(mask, painter.image_px, arguments.max_magnification))
    with progress_bar("painting", arguments.num_steps, "step") as on_step:
        result = edit_picture(
            painter,
            source,
            mask,
            exemplar,
            guidance_scale=arguments.guidance_scale,
            num_steps=arguments.num_steps,
            seed=arguments.seed,
            max_magnification=arguments.max_magnification,
            on_step=on_step,
        )
    from pbe.serving.pictures import write_picture

    write_picture(result, arguments.out)


def _write_preview(arguments: argparse.Namespace, source: "Picture", mask: "Mask") -> None:
    from PIL import Image as PILImage

    from pbe.method.backbone import painter_px
    from pbe.serving.editor import mask_notes
    from pbe.serving.pictures import FORMATS
    from pbe.serving.preview import preview

    image_px = painter_px(_model_folder(arguments.model))
    drawn = preview(source.shown, mask, image_px, arguments.max_magnification)
    with atomic_file(arguments.preview) as part:
        PILImage.fromarray(drawn).save(part, format=FORMATS[arguments.preview.suffix.lower()])
    print_notes(mask_notes(mask, image_px, arguments.max_magnification))


def _model_folder(model: str | None) -> Path:
    """Return the folder of the named model, or of the default one; then print which one that is."""
    if model is not None:
        return model_folder(model)
    folder, name = default_model()
    print_notes([f"using {name}"])
    return folder


def _load(folder: Path) -> "Painter":
    # diffusers and transformers import these for schedulers, losses and adapters that are not used
    with hidden_module("scipy"), hidden_module("peft"), hidden_module("accelerate"):
        from pbe.method.painter import Painter

    return Painter.from_pretrained(folder)


def _load_placed(folder: Path, device_name: str, precision: str) -> "Painter":
    """Return the painter on the device and in the precision that the flags name, which are checked first."""
    from pbe.runtime.devices import choose_device, choose_precision

    device = choose_device(device_name, "--device")
    dtype = choose_precision(precision, device, "--precision")
    return _load(folder).place(device, dtype)


def _import(options: argparse.Namespace) -> None:
    if not options.origin.exists():
        raise UserError(f"--from {options.origin}: no such file or folder")
    adapters = [_weighted(text) for text in options.adapter]
    check_new(options.out)
    from pbe.interchange.ldm import read_ldm

    painter = _load(options.origin) if options.origin.is_dir() else read_ldm(options.origin)
    _merge(painter, adapters)
    with atomic_folder(options.out) as part:
        painter.save_pretrained(part)
    print(f"{options.out}: a model of {painter.image_px} px; use it with: pbe edit --model {options.out} ...")


def _merge(painter: "Painter", adapters: list[tuple[Path, float]]) -> None:
    if not adapters:
        return
    from pbe.method.adapters import BASE, digest_painter, merge_adapter, read_adapter

    base = digest_painter(painter)
    for folder, weight in adapters:
        adapter = read_adapter(folder)
        if adapter.traits.get(BASE, base) != base:
            print(f"{folder}: was trained on other weights than these", file=sys.stderr)
        merge_adapter(painter, adapter, weight)


def _weighted(text: str) -> tuple[Path, float]:
    """Return folder and weight of FOLDER or FOLDER=WEIGHT; raises UserError unless the weight is a finite number."""
    folder, equals, weight = text.rpartition("=")
    if Path(text).is_dir() or not equals:
        return Path(text), 1.0
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"--adapter {text}: the weight {weight!r} is not a number")
    return Path(folder), number


def _export(options: argparse.Namespace) -> None:
    folder = _model_folder(options.model)
    check_new(options.out)
    from pbe.interchange.folder import write_published
    from pbe.interchange.ldm import write_ldm

    painter = _load(folder)
    if options.format == "ldm":
        write_ldm(painter, options.out)
    else:
        with atomic_folder(options.out) as part:
            write_published(painter, part)
    inverted = "" if painter.mask_channel == "keep" else "; its mask channel is inverted, see docs/interchange.md"
    print(f"{options.out}: {options.format}{inverted}")


def _browse(options: argparse.Namespace) -> None:
    from pbe.curation.app import browse
    from pbe.layout import FIFTYONE_DATASET, FIFTYONE_HOME

    def on_ready(address: str) -> None:
        print(f"{address}  (press Ctrl-C to stop)", flush=True)

    uri = os.environ.get("FIFTYONE_DATABASE_URI")
    browse(FIFTYONE_HOME, FIFTYONE_DATASET, uri=uri, port=options.port, on_ready=on_ready)


def _write_attributions(options: argparse.Namespace) -> None:
    from pbe.dataset.attributions import write_attributions
    from pbe.layout import CURATED, RAW

    check_folder_of(options.out)
    images, unknown = write_attributions(RAW, CURATED, options.out)
    print(f"{options.out}: {images} images, {unknown} of them without a known licence")


def _pull_verdicts(options: argparse.Namespace) -> None:
    from pbe.curation.verdicts import pull
    from pbe.layout import FIFTYONE_DATASET, FIFTYONE_HOME, VERDICTS
    from pbe.runtime.fiftyone_connection import connected_fiftyone
    from pbe.runtime.mongod import running_mongod

    uri = os.environ.get("FIFTYONE_DATABASE_URI")
    if uri is None and not (FIFTYONE_HOME / "db").is_dir():
        raise UserError(f"{FIFTYONE_HOME}: no FiftyOne database; run: dvc repro curate")
    with running_mongod(FIFTYONE_HOME, uri) as running, connected_fiftyone(running, FIFTYONE_HOME) as fo:
        new = pull(fo, FIFTYONE_DATASET, VERDICTS)
    print(f"{VERDICTS}: {len(new)} new verdicts" + ("; run dvc repro to apply them" if new else ""))


if __name__ == "__main__":
    sys.exit(main())
