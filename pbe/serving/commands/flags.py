"""The flags that several `pbe` commands share, and how their values are read.

Their defaults equal those of `pbe.serving.editor.EditOptions`, which a test checks: importing it here would make
`pbe --help` import NumPy and OpenCV.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, Token

from pbe.serving.edit_defaults import DEFAULT_INTERVAL, DEFAULT_SAMPLER, DEFAULT_STEPS, Sampler

if TYPE_CHECKING:
    from pbe.serving.editor import EditOptions

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def whole(_: Any, tokens: Sequence[Token]) -> int:
    """Return the whole number that a flag has; raises ValueError for any other text, such as 1.5."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"invalid int value: {tokens[0].value!r}") from None


def positive(_: Any, tokens: Sequence[Token]) -> int:
    """Return the whole number that a flag has; raises ValueError unless it is positive."""
    text = tokens[0].value
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not a positive whole number")
    return int(text)


def interval(_: Any, tokens: Sequence[Token]) -> tuple[float, float]:
    """Return the two numbers of LOW..HIGH; raises ValueError for any other text."""
    low, dots, high = tokens[0].value.partition("..")
    try:
        bounds = float(low), float(high)
    except ValueError:
        bounds = math.nan, math.nan
    if not dots or not all(map(math.isfinite, bounds)):
        raise ValueError(f"{tokens[0].value!r} is not an interval; give two numbers such as 0.3..5")
    return bounds


Flag = Annotated[bool, Parameter(show_default=False)]
Whole = Annotated[int, Parameter(converter=whole, metavar="N")]
Positive = Annotated[int, Parameter(converter=positive, metavar="N")]
Number = Annotated[float, Parameter(show_default=lambda value: f"{value:g}")]
Device = Annotated[
    str, Parameter(metavar="D", help="where to compute: auto (a GPU if there is one), cpu, cuda or cuda:1")
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PaintingFlags:
    """How a picture is painted."""

    guidance_scale: Annotated[Number, Parameter(metavar="S", help="similarity to the exemplar")] = 5
    num_steps: Annotated[Whole, Parameter(help="number of sampling steps")] = DEFAULT_STEPS
    sampler: Annotated[Sampler, Parameter(help="the solver that removes the noise")] = DEFAULT_SAMPLER
    guidance_interval: Annotated[
        tuple[float, float] | None,
        Parameter(
            converter=interval,
            n_tokens=1,
            metavar="LOW..HIGH",
            show_default="{}..{}".format(*DEFAULT_INTERVAL),
            help="use guidance only at noise levels sigma above LOW and up to HIGH; 0..20 is all levels",
        ),
    ] = DEFAULT_INTERVAL
    max_magnification: Annotated[
        Number, Parameter(metavar="M", help="how far a small mask is magnified for painting; 1 does not magnify")
    ] = 2
    context_px: Annotated[
        int | None,
        Parameter(
            converter=whole,
            n_tokens=1,
            metavar="PX",
            show_default="a quarter of its side",
            help="how much of the picture around the mask the model sees, in pixels on each side",
        ),
    ] = None

    def options(self) -> "EditOptions":
        """Return the editor's options; raises UserError for the first that is out of range."""
        from pbe.serving.editor import EditOptions

        options = EditOptions(
            guidance_scale=self.guidance_scale,
            num_steps=self.num_steps,
            sampler=self.sampler,
            guidance_interval=self.guidance_interval,
            max_magnification=self.max_magnification,
            context_px=self.context_px,
        )
        options.check()
        return options


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Which model paints, and where."""

    model: Annotated[
        str | None,
        Parameter(
            metavar="MODEL",
            show_default="the champion if there is one, else photo",
            help="a folder, a registered model such as models:/paint-by-example@champion, or photo, the bundled "
            "painter of photographs",
        ),
    ] = None
    device: Device = "auto"
    precision: Annotated[Precision, Parameter(help="of the model; auto is bf16 where it is fast, else fp32")] = "auto"
