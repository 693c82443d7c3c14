"""Find and load the model that the flags of a command name."""

from pathlib import Path
from typing import TYPE_CHECKING

from pbe.serving.commands.model_choice import ModelChoice, default_model, named_model
from pbe.serving.commands.notes import print_notes
from pbe.serving.commands.start_up import hidden_module

if TYPE_CHECKING:
    from pbe.method.painter import Painter
    from pbe.serving.commands.flags import ModelFlags


def choose_model(model: str | None) -> ModelChoice:
    """Return the named model, or the default one; then print which one that is."""
    if model is not None:
        return named_model(model)
    choice, text = default_model()
    print_notes([f"using {text}"])
    return choice


def load_painter(folder: Path) -> "Painter":
    """Return the painter in a folder, on the CPU."""
    # diffusers and transformers import these for schedulers, losses and adapters that are not used
    with hidden_module("scipy"), hidden_module("peft"), hidden_module("accelerate"):
        from pbe.method.painter import Painter

    return Painter.from_pretrained(folder)


def load_placed(folder: Path, flags: "ModelFlags") -> "Painter":
    """Return the painter on the device and in the precision that the flags name, which are checked first."""
    from pbe.runtime.devices import choose_device, choose_precision

    device = choose_device(flags.device, "--device")
    dtype = choose_precision(flags.precision, device, "--precision")
    return load_painter(folder).place(device, dtype)
