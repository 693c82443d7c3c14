"""The `pbe` command: edit a picture with the champion model, bring models in and out, or look at the curated data.

A user's mistake is one line on stderr, `error: ...`, and exit code 2. Everything heavy is imported where it is used, so
that help and mistakes answer at once. This is an edge of the program: here, and nowhere below, the environment is read.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pbe.errors import UserError
from pbe.runtime.files import atomic_file, atomic_folder

if TYPE_CHECKING:
    from pbe.method.close_up import Mask
    from pbe.method.exemplars import Image
    from pbe.method.painter import Painter

DEFAULT_MODEL = "models:/paint-by-example@champion"
LOSSLESS = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `pbe` with these arguments (by default the process's own); returns or exits with the exit code."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], None] = arguments.command
    try:
        command(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="pbe", description="Paint by Example: edit pictures by example.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    edit = commands.add_parser("edit", help="paint an exemplar's object into the masked part of a picture")
    edit.set_defaults(command=_edit)
    edit.add_argument("--source", type=Path, required=True, metavar="PICTURE", help="the picture to change")
    edit.add_argument(
        "--mask", type=Path, required=True, metavar="PICTURE", help="white to repaint; as large as the source"
    )
    edit.add_argument("--exemplar", type=Path, required=True, metavar="PICTURE", help="shows the object to paint")
    edit.add_argument("--out", type=Path, required=True, metavar="PNG", help="the result, unchanged outside the mask")
    edit.add_argument("--model", default=DEFAULT_MODEL, help="a registered model or a folder (default: %(default)s)")
    edit.add_argument(
        "--guidance-scale", type=float, default=5, metavar="S", help="likeness to the exemplar (default: 5)"
    )
    edit.add_argument("--num-steps", type=int, default=50, metavar="N", help="sampling steps (default: 50)")
    edit.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, another result (default: 0)")
    edit.add_argument(
        "--max-magnification",
        type=float,
        default=2,
        metavar="M",
        help="how much closer small masks are seen than the model's own resolution; 1: not at all (default: 2)",
    )
    bring = commands.add_parser("import", help="make the authors' model.ckpt, or their published folder, a model here")
    bring.add_argument("--from", dest="origin", type=Path, required=True, metavar="FILE_OR_FOLDER")
    bring.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="such as models/authors")
    bring.set_defaults(command=_import)
    export = commands.add_parser("export", help="write a model as other tools read it")
    export.add_argument("--model", default=DEFAULT_MODEL, help="a registered model or a folder (default: %(default)s)")
    export.add_argument(
        "--format",
        choices=("ldm", "diffusers"),
        required=True,
        help="ldm: one file, the authors'; diffusers: a folder",
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE_OR_FOLDER")
    export.set_defaults(command=_export)
    browse = commands.add_parser("browse", help="open the curated data in FiftyOne's App")
    browse.add_argument("--port", type=int, default=5151, help="on 127.0.0.1 (default 5151)")
    browse.set_defaults(command=_browse)
    verdicts = commands.add_parser("verdicts", help="people's verdicts on the curated data")
    actions = verdicts.add_subparsers(required=True, metavar="ACTION")
    pull = actions.add_parser("pull", help="write the tags made in the App, keep and reject, into data/verdicts.csv")
    pull.set_defaults(command=_pull_verdicts)
    attributions = commands.add_parser("attributions", help="write whom the curated pictures are by")
    attributions.add_argument("--out", type=Path, required=True, metavar="CSV")
    attributions.set_defaults(command=_attribute)
    return parser


def _edit(arguments: argparse.Namespace) -> None:
    """Check everything that can be checked at once, then load the model, paint, and write."""
    source, mask, exemplar = _checked_inputs(arguments)
    folder = _model_folder(arguments.model)
    from pbe.serving.editor import edit

    painter = _load(folder)
    with _Progress(arguments.num_steps) as on_step:
        result = edit(
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
    _write(result, arguments.out)


def _checked_inputs(arguments: argparse.Namespace) -> tuple["Image", "Mask", "Image"]:
    from pbe.dataset.images import read_image
    from pbe.serving.editor import check_mask, check_options, read_mask

    check_options(arguments.guidance_scale, arguments.num_steps, arguments.seed, arguments.max_magnification)
    _check_out(arguments.out)
    source, mask = read_image(arguments.source), read_mask(arguments.mask)
    check_mask(mask, source, mask_name=f"mask {arguments.mask}", source_name=f"source {arguments.source}")
    return source, mask, read_image(arguments.exemplar)


def _check_out(out: Path) -> None:
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; give a file name in it, such as {out / 'result.png'}")
    if out.suffix.lower() not in LOSSLESS:
        raise UserError(f"--out {out}: name it .png; only {', '.join(LOSSLESS)} keep unmasked pixels as they are")
    _check_folder_of(out)


def _check_folder_of(out: Path) -> None:
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"--out {out}: the folder {out.parent} cannot be written to")


def _model_folder(model: str) -> Path:
    """A folder as it is given; else the registered model, from MLFLOW_TRACKING_URI or the project's own registry."""
    if not model.startswith("models:/"):
        if not Path(model).is_dir():
            raise UserError(f"--model {model}: no such folder, and not a registered model such as {DEFAULT_MODEL}")
        return Path(model)
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI") or _project_registry()
    if tracking_uri is None:
        raise UserError(f"--model {model}: there is no registry here yet; run `make demo` or give a folder")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from pbe.serving.registry import painter_folder

    try:
        return painter_folder(model, tracking_uri=tracking_uri)
    except UserError as error:
        raise UserError(f"--model: {error}; run `make demo` to train and register one") from None


def _project_registry() -> str | None:
    """mlflow.db in the working folder or one above it, else in the checkout this file is part of."""
    here = Path.cwd()
    for project in (here, *here.parents, Path(__file__).parents[2]):
        if (project / "mlflow.db").is_file():
            return f"sqlite:///{project / 'mlflow.db'}"
    return None


def _load(folder: Path) -> "Painter":
    from pbe.method.painter import Painter

    return Painter.from_pretrained(folder)


class _Progress:
    """A bar on stderr while painting, where stderr is a terminal."""

    def __init__(self, total: int) -> None:
        self.total = total

    def __enter__(self) -> Callable[[int, int], None]:
        from tqdm import tqdm

        self.bar = tqdm(total=self.total, desc="painting", unit="step", leave=False, disable=not sys.stderr.isatty())
        return self._show

    def _show(self, done: int, total: int) -> None:
        self.bar.total = total
        self.bar.update(done - self.bar.n)

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def _write(image: "Image", out: Path) -> None:
    """Write the picture whole or not at all."""
    from PIL import Image as PILImage

    with atomic_file(out) as part:
        PILImage.fromarray(image).save(part, format=LOSSLESS[out.suffix.lower()])


def _import(options: argparse.Namespace) -> None:
    if not options.origin.exists():
        raise UserError(f"--from {options.origin}: no such file or folder")
    _check_new(options.out)
    from pbe.interchange.ldm import read_ldm

    painter = _load(options.origin) if options.origin.is_dir() else read_ldm(options.origin)
    with atomic_folder(options.out) as part:
        painter.save_pretrained(part)
    print(f"{options.out}: paints {painter.image_px} px; try: pbe edit --model {options.out} ...")


def _export(options: argparse.Namespace) -> None:
    folder = _model_folder(options.model)
    _check_new(options.out)
    from pbe.interchange.folder import write_published
    from pbe.interchange.ldm import write_ldm

    painter = _load(folder)
    if options.format == "ldm":
        write_ldm(painter, options.out)
    else:
        with atomic_folder(options.out) as part:
            write_published(painter, part)
    turned = "" if painter.mask_channel == "keep" else "; its mask channel is turned, see docs/interchange.md"
    print(f"{options.out}: {options.format}{turned}")


def _check_new(out: Path) -> None:
    _check_folder_of(out)
    if out.exists():
        raise UserError(f"--out {out}: is there already; name another, or remove it")


def _browse(options: argparse.Namespace) -> None:
    from pbe.curation.app import browse
    from pbe.layout import FIFTYONE_DATASET, FIFTYONE_HOME

    def on_ready(address: str) -> None:
        print(f"{address}  (Ctrl-C ends it)", flush=True)

    uri = os.environ.get("FIFTYONE_DATABASE_URI")
    browse(FIFTYONE_HOME, FIFTYONE_DATASET, uri=uri, port=options.port, on_ready=on_ready)


def _attribute(options: argparse.Namespace) -> None:
    from pbe.dataset.attributions import write_attributions

    _check_folder_of(options.out)
    images, unknown = write_attributions(Path("data/raw"), Path("data/curated"), options.out)
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
        fresh = pull(fo, FIFTYONE_DATASET, VERDICTS)
    print(f"{VERDICTS}: {len(fresh)} new" + ("; dvc repro obeys them" if fresh else ""))


def _one_line(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename}: no such file"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
