"""`pbe edit` paints objects into one picture, with one seed or several."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from pbe.runtime.files import atomic_file, digest_folder
from pbe.serving.commands.edit_inputs import InputFlags, RegionFiles, read_masks, read_regions, region_files, union
from pbe.serving.commands.edit_outputs import OutputFlags, Outputs, PaintedBy, checked_outputs, result_json, result_line
from pbe.serving.commands.flags import ModelFlags, PaintingFlags
from pbe.serving.commands.loading import choose_model, load_placed
from pbe.serving.commands.notes import print_notes
from pbe.serving.commands.output_files import check_image_file
from pbe.serving.commands.progress import print_line, progress_bar
from pbe.serving.commands.start_up import paused_collector
from pbe.serving.commands.variants import paint_variants

if TYPE_CHECKING:
    from pbe.serving.editor import Edit, EditOptions, Editor, Prepared

app = App(
    name="edit",
    help_epilogue="""\
examples:
  pbe edit --source photo.jpg --mask mask.png --exemplar cup.jpg \\
           --out result.png
  pbe edit --source photo.jpg --mask mask.png --exemplar cup.jpg \\
           --seed 0..7 --sheet --out variants
  pbe edit --source photo.jpg --region left.png=cup.jpg \\
           --region right.png=spoon1.jpg,spoon2.jpg --out result.png
  pbe edit --source photo.jpg --mask mask.png --preview preview.png""",
)


@app.default
def edit(
    *,
    inputs: InputFlags,
    outputs: OutputFlags = OutputFlags(),  # noqa: B008  # cyclopts' form for a group of flags
    painting: PaintingFlags = PaintingFlags(),  # noqa: B008
    chosen: ModelFlags = ModelFlags(),  # noqa: B008
) -> None:
    """Check flags and images, load the model once, then paint and write the results one by one."""
    files = region_files(inputs, needs_exemplar=outputs.preview is None)
    if outputs.preview is not None:
        return _write_preview(outputs.preview, files, inputs, painting, chosen)
    places = checked_outputs(outputs)
    options = painting.options()
    with paused_collector():
        task, losses = _read_edit(inputs, files, options, places)
        print_notes(losses)
        from pbe.serving.editor import Editor

        model = choose_model(chosen.model)
        editor = Editor(load_placed(model.folder, chosen))
    prepared = editor.prepare(task)
    print_notes(prepared.notes)
    by = PaintedBy(model.name, model.version, digest_folder(model.folder) if outputs.json else None)
    _paint(editor, prepared, places, by, losses, as_json=outputs.json)


def _read_edit(
    inputs: InputFlags, files: Sequence[RegionFiles], options: "EditOptions", places: Outputs
) -> "tuple[Edit, list[str]]":
    """Return the edit with its first seed, and notes of what its files will not keep of the source."""
    from pbe.serving.edit_checks import check_seed
    from pbe.serving.editor import Edit, read_source
    from pbe.serving.pictures import FORMATS, check_size, losses

    for seed in places.paths:
        check_seed(seed)
    source = read_source(inputs.source)
    masks = read_masks(files, source, inputs)
    regions = read_regions(files, masks)
    first, path = next(iter(places.paths.items()))
    out_format = FORMATS[path.suffix.lower()]
    check_size(source, out_format, f"--out {path}")
    return Edit(source, regions, first, options), losses(source, out_format, union(masks))


def _paint(
    editor: "Editor", prepared: "Prepared", places: Outputs, by: PaintedBy, losses: Sequence[str], *, as_json: bool
) -> None:
    """Paint and write a variant for each seed, and say where it is; then write the contact sheet."""
    from pbe.serving.commands.contact_sheet import ContactSheet
    from pbe.serving.pictures import write_picture

    sheet = ContactSheet(prepared.edit) if places.sheet else None
    num_steps = prepared.edit.options.num_steps
    with progress_bar("painting", len(places.paths) * num_steps, "step") as on_step:
        for seed, edited, seconds in paint_variants(editor, prepared, list(places.paths), on_step):
            path = places.paths[seed]
            write_picture(edited.picture, path)
            notes = [*losses, *edited.notes]
            print_line(
                result_json(path, seed, by, seconds, edited, notes) if as_json else result_line(path, seed, by, seconds)
            )
            if sheet:
                sheet.add(f"seed {seed}", edited.picture.shown)
    if sheet and places.sheet:
        sheet.write(places.sheet)
        print(f"{places.sheet}: contact sheet", file=sys.stderr if as_json else sys.stdout)


def _write_preview(
    path: Path, files: Sequence[RegionFiles], inputs: InputFlags, painting: PaintingFlags, chosen: ModelFlags
) -> None:
    """Write an image of the masks and their windows."""
    check_image_file("--preview", path)
    options = painting.options()
    from PIL import Image as PILImage

    from pbe.method.backbone import painter_px
    from pbe.serving.editor import mask_notes, read_source
    from pbe.serving.pictures import FORMATS
    from pbe.serving.preview import preview

    source = read_source(inputs.source)
    masks = read_masks(files, source, inputs)
    image_px = painter_px(choose_model(chosen.model).folder)
    drawn = preview(source.shown, masks, image_px, options.max_magnification, options.context_px)
    with atomic_file(path) as part:
        PILImage.fromarray(drawn).save(part, format=FORMATS[path.suffix.lower()])
    for mask in masks:
        print_notes(mask_notes(mask, image_px, options.max_magnification))
    print(f"{path}: preview of the windows of {inputs.source}")
