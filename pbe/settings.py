"""Every parameter of the pipeline: params.yaml, read into frozen and validated settings.

params.yaml holds every value, and this module none: it says what each parameter means and which values it takes. Each
stage reads its own section, so that DVC reruns only the stages whose section changed. A section's `no_result` names the
parameters that cannot change a stage's output: they are no `params` in dvc.yaml.
"""

import difflib
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from pbe.errors import UserError, one_line

Deliver = Literal["last", "best"]
AverageDevice = Literal["device", "cpu", "none"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
AcceptedFault = Literal[
    "misnamed", "wrong_size", "greyscale", "transparent", "soft_mask", "inverted", "tiny"
]  # fmt: skip

_OLD_VALUES = {
    ("bench", "demo"): "data/bench",
    ("bench", "boxes"): "data/bench",
    ("encoder", "tower"): "models/pbe/image_encoder",
    ("real", None): "data/curated",
}
_MOVED = {
    "evaluate.min_area_frac": "is bench.min_area_frac now",
    "evaluate.max_area_frac": "is bench.max_area_frac now",
    "register.max_fid_increase": "is gone: the gate compares by intervals; see register.hold",
    "register.max_clip_score_drop": "is gone: the gate compares by intervals; see register.better",
}
_DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"
_DEVICE_TEXT = "where the model runs: auto (a GPU if there is one), cpu, cuda or cuda:1"
_PRECISION_TEXT = "auto: bf16 where it is fast, a GPU or a CPU with instructions for it; else fp32"


class Section(BaseModel):
    """A section of params.yaml. It cannot be changed; `replace` returns a changed copy."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    no_result: ClassVar[frozenset[str]] = frozenset()

    def replace(self, **changes: Any) -> Self:
        """Return a copy with the given fields changed and validated; raises pydantic's ValidationError."""
        return type(self).model_validate({**self.model_dump(by_alias=True), **changes})


class World(Section):
    """The generated demo world (`acquire.source: demo`)."""

    train_images: int = Field(ge=1, le=10_000_000, description="number of generated train images")
    validation_images: int = Field(ge=1, le=1_000_000, description="number of generated validation images")
    fault_frac: float = Field(ge=0.0, le=0.1, description="share of images that get each kind of planted fault")


class FiftyOne(Section):
    """Which labels of a FiftyOne dataset to read (`acquire.source: fiftyone`)."""

    field: str = Field(description="the name of a field of Detections")


class HuggingFace(Section):
    """Which columns of a Hugging Face dataset on disk to read (`acquire.source: huggingface`)."""

    image: str = Field(description="the column of images")
    objects: str = Field(description="the column of each image's objects")
    bbox: str = Field(description="the key of the boxes in `objects`")
    category: str = Field(description="the key of the classes in `objects`: names, or numbers with a ClassLabel")
    box_format: Literal["xywh", "xyxy"] = Field(
        description="xywh: left, top, width, height; xyxy: left, top, right, bottom"
    )
    normalised: bool = Field(description="true: boxes are shares of the image's width and height; false: pixels")


class Acquire(Section):
    """Where images and boxes come from."""

    no_result = frozenset({"workers"})

    source: Literal[
        "demo", "openimages", "s3", "folder", "coco", "yolo", "voc", "csv", "masks", "fiftyone", "huggingface",
        "cvat", "datumaro", "labelme", "label_studio",
    ] = Field(
        description="demo: the generated world; openimages: the public bucket; s3, folder: its layout; else own data"
    )  # fmt: skip
    root: str | None = Field(
        description="a folder; s3: s3://bucket/prefix; fiftyone: a dataset's name; not used by demo and openimages"
    )
    validation_frac: float = Field(
        gt=0.0, lt=1.0, description="own data: share of images drawn for validation where the data name no split"
    )
    group_file: str | None = Field(
        min_length=1,
        description="own data: a CSV file in root (fiftyone: a path) with a column image; a group stays in one split",
    )
    group_column: str = Field(min_length=1, description="the column of group_file that names each image's group")
    test_split: Literal["leave_out", "train", "validation"] = Field(
        description="own data: leave_out counts the images that the data name a test split; or the split to add them to"
    )
    voc_origin: Literal["auto", 0, 1] = Field(
        description="voc: the first pixel; auto: 0 when boxes begin before 1, or between pixels but none at 1"
    )
    mask_values: Literal["auto", "objects", "binary"] = Field(
        description="masks: objects takes each value of a file for an object, binary splits at half, auto decides"
    )
    fiftyone: FiftyOne
    huggingface: HuggingFace
    endpoint_url: str | None = Field(description="s3: the URL of an S3-compatible endpoint; null means AWS")
    annotations_url: str = Field(description="openimages: where the annotation files are")
    train_images: int | None = Field(ge=1, description="maximum number of train images; null means all")
    validation_images: int | None = Field(ge=1, description="maximum number of validation images; null means all")
    classes: tuple[str, ...] = Field(description="names of the classes to acquire; an empty list means all")
    workers: int = Field(ge=1, le=256, description="concurrent requests")
    max_attempts: int = Field(ge=1, le=20, description="attempts for each object, with exponential backoff")
    max_lost_frac: float = Field(ge=0.0, le=1.0, description="the stage fails when a larger share of images is lost")
    short_side_px: int | None = Field(
        ge=16, description="larger images are stored as JPEGs with a shorter side of this; null keeps their size"
    )
    jpeg_quality: int = Field(ge=1, le=100, description="quality of the images that short_side_px makes smaller")
    images_per_shard: int | None = Field(ge=1, le=1_000_000, description="null: as many as make 100 to 250 MB")
    world: World


class Filter(Section):
    """Which boxes to train on: the paper's area rule, OpenImages' flags, and caps."""

    min_area_frac: float = Field(ge=0.0, le=1.0, description="smallest share of the image that a box covers")
    max_area_frac: float = Field(ge=0.0, le=1.0, description="largest share of the image that a box covers")
    min_side_px: int = Field(ge=1, description="shortest side of a box")
    max_aspect: float = Field(ge=1.0, description="longer side divided by shorter side")
    drop_group_of: bool = Field(description="drop boxes around several objects (OpenImages' IsGroupOf)")
    drop_depiction: bool = Field(description="drop drawings and other depictions (IsDepiction)")
    drop_occluded: bool = Field(description="drop objects that others cover in part (IsOccluded)")
    drop_truncated: bool = Field(description="drop objects that the picture's edge cuts (IsTruncated)")
    classes: tuple[str, ...] = Field(
        description="names of the classes to keep, their subclasses included; an empty list means all"
    )
    exclude_classes: tuple[str, ...] = Field(description="names of the classes to reject, their subclasses included")
    max_boxes_per_image: int | None = Field(ge=1, description="boxes beyond it are dropped at random, by the seed")
    max_boxes_per_class: int | None = Field(
        ge=1, description="in each split; boxes beyond it are dropped at random, by the seed"
    )


class Curate(Section):
    """Which images are good enough to train on, and which would leak into the evaluation."""

    min_brightness: float = Field(ge=0.0, le=1.0, description="mean luma, 0 to 1")
    max_brightness: float = Field(ge=0.0, le=1.0, description="mean luma, 0 to 1")
    min_sharpness: float = Field(
        ge=0.0, description="energy of fine detail over coarse detail at 64 px; blurred images have 2 to 5"
    )
    group_by: Literal["group"] | None = Field(
        description="group: near duplicates are looked for within a group alone; null: among all images"
    )
    near_duplicate_distance: float = Field(ge=0.0, le=2.0, description="cosine distance of centred embeddings")
    near_duplicate_pixels: float = Field(ge=0.0, le=1.0, description="mean difference of aligned thumbnails, 0 to 1")
    device: str = Field(pattern=_DEVICE, description=_DEVICE_TEXT)
    precision: Precision = Field(description=_PRECISION_TEXT)


class Backbone(Section):
    """The pretrained parts: bundled ones, a local folder, or the Hugging Face hub at fixed revisions."""

    source: Literal["tiny", "photo", "path", "hub"] = Field(
        description="tiny: the demo's bundled parts, 64 px; photo: those for photographs, 128 px"
    )
    path: str | None = Field(description="with source: path, a folder in diffusers' layout")
    stable_diffusion: str = Field(description="hub: the repository of the UNet, the VAE and the text encoder")
    stable_diffusion_revision: str = Field(description="hub: the commit of that repository")
    clip: str = Field(description="hub: the repository of the CLIP tower that encodes exemplars")
    clip_revision: str = Field(description="hub: the commit of that repository")


class Mask(Section):
    """Arbitrary mask shapes (section 3.2)."""

    irregular_probability: float = Field(
        ge=0.0, le=1.0, description="share of masks with curved edges; the others are boxes"
    )
    shape: Literal["arbitrary", "box"] = Field(description="box: always the box itself, for the ablation")
    max_extension_frac: float = Field(ge=0.0, le=1.0, description="share of the free space on each side")
    points_per_edge: int = Field(ge=2, le=200, description="points on each curve of an irregular mask")
    max_offset_frac: float = Field(ge=0.0, le=0.5, description="jitter of a point, as a share of the image's side")
    object_probability: float = Field(
        ge=0.0, le=1.0, description="share of masks that have the object's own shape, where the data have one"
    )
    max_dilation_frac: float = Field(
        ge=0.0, le=0.5, description="largest dilation of the object's shape, as a share of the image's side"
    )


class ExemplarAugmentation(Section):
    """A(x_r): how strongly the exemplar is augmented (section 3.2)."""

    augment: bool = Field(description="false: the crop without augmentation, for the ablation")
    pad_frac: float = Field(ge=0.0, le=1.0, description="padding around the box, as a share of its longer side")
    flip_probability: float = Field(ge=0.0, le=1.0, description="share of exemplars that are mirrored")
    rotate_probability: float = Field(ge=0.0, le=1.0, description="share of exemplars that are rotated")
    max_rotation_deg: float = Field(ge=0.0, le=180.0, description="largest rotation to either side")
    blur_probability: float = Field(ge=0.0, le=1.0, description="share of exemplars that are blurred")
    max_blur_frac: float = Field(ge=0.0, le=0.5, description="largest sigma, as a share of the exemplar's side")
    elastic_probability: float = Field(ge=0.0, le=1.0, description="share of exemplars that are deformed elastically")
    elastic_frac: float = Field(ge=0.0, le=0.5, description="RMS displacement, as a share of the exemplar's side")
    elastic_smooth_frac: float = Field(gt=0.0, le=1.0, description="sigma of the field, as a share of the side")


class Method(Section):
    """What a training triplet is: the window, the mask, the exemplar."""

    image_px: int = Field(ge=32, le=1024, multiple_of=8, description="side of the square that the model sees")
    close_up_probability: float = Field(
        ge=0.0, le=1.0, description="share of training windows that are smaller than the image's short side"
    )
    bottleneck: bool = Field(description="true: CLIP's class token alone; false: all its tokens, for the ablation")
    mask: Mask
    exemplar: ExemplarAugmentation


class Encode(Section):
    """The cache of latents and class tokens."""

    no_result = frozenset({"draw_workers", "num_workers"})  # the size of a batch and a GPU change the last bits

    variants: int = Field(ge=1, le=64, description="windows and masks drawn for each box")
    exemplar_variants: int = Field(ge=1, le=64, description="augmented exemplars encoded for each window")
    shard_rows: int = Field(ge=1, description="rows in a file of the cache")
    batch_size: int = Field(ge=1, description="training triplets that an encoder takes at once")
    num_workers: int = Field(ge=1, description="encoders: processes, with one GPU each if use_gpu is set")
    draw_workers: int = Field(ge=1, le=256, description="with use_gpu: processes that draw triplets for each GPU")
    use_gpu: bool = Field(description="true: encode on GPUs; false: on CPUs")
    precision: Literal["auto", "fp32", "bf16"] = Field(description=_PRECISION_TEXT)


class Train(Section):
    """The optimization."""

    # `cpus_per_worker` is the number of torch's threads, which decides the order of sums.
    no_result = frozenset({"checkpoint_every", "keep_checkpoints", "loader_threads", "storage"})

    prior: bool = Field(description="true: start from the text-to-image weights; false: random, for the ablation")
    cache: bool = Field(description="true: train on cached latents; false: augment and encode images at every step")
    num_workers: int = Field(ge=1, le=4096, description="processes, on any number of nodes; one GPU each")
    use_gpu: bool = Field(description="true: train on GPUs; false: on CPUs")
    cpus_per_worker: int = Field(
        ge=1, le=1024, description="CPUs reserved in Ray; without a GPU also the number of torch's threads"
    )
    storage: str | None = Field(
        min_length=1, description="of the runs: a shared folder or s3://bucket/prefix; null means models/checkpoints"
    )
    steps: int = Field(ge=1, description="optimizer steps")
    batch_size: int = Field(ge=1, description="of one worker and one accumulation step")
    accumulate: int = Field(ge=1, description="backward passes for each optimizer step")
    lr: float = Field(gt=0.0, le=1.0, description="the highest learning rate")
    conv_in_lr_factor: float = Field(
        gt=0.0, description="multiplies lr for the first convolution, whose five new channels start from zero"
    )
    warmup_steps: int = Field(ge=0, description="steps in which the learning rate rises from zero")
    decay: Literal["constant", "cosine"] = Field(
        description="of the learning rate after the warm-up; cosine: to zero at the last step"
    )
    weight_decay: float = Field(ge=0.0, description="of AdamW")
    max_grad_norm: float = Field(gt=0.0, description="longer gradients are scaled to this norm")
    optimizer: Literal["adamw", "adamw8bit"] = Field(description="adamw8bit: 8-bit moments, on an NVIDIA GPU")
    ema_decay: float = Field(
        ge=0.0, lt=1.0, description="of the moving average of the weights, which is the model that is delivered"
    )
    average: AverageDevice = Field(description="where the averaged weights are kept; none: no averaging")
    average_every: int = Field(ge=1, description="steps between two updates of the average")
    drop_probability: float = Field(ge=0.0, le=1.0, description="share of conditions replaced by v in training")
    precision: Literal["auto", "fp32", "bf16"] = Field(description=_PRECISION_TEXT)
    compile: Literal["auto"] | bool = Field(
        description="compile the UNet's blocks: minutes at the first start, faster steps; auto: on a GPU"
    )
    strategy: Literal["ddp", "fsdp"] = Field(
        description="several workers: ddp keeps all weights on each; fsdp divides weights, gradients and moments"
    )
    lora_rank: int = Field(ge=0, le=1024, description="rank of the trained adapters; 0 trains all weights")
    min_snr_gamma: float | None = Field(gt=0.0, description="Min-SNR weighting of the loss; null: none, as the paper")
    offset_noise: float = Field(ge=0.0, le=1.0, description="strength of the noise that is constant over each channel")
    zero_terminal_snr: bool = Field(description="rescale the noise schedule so that its last step has no signal")
    deliver: Deliver = Field(description="the weights to deliver; best: of the lowest validation loss")
    gradient_checkpointing: bool = Field(description="uses less memory and a third more time")
    loader_threads: int = Field(
        ge=1, le=256, description="threads, or for a GPU processes, that draw training triplets without a cache"
    )
    checkpoint_every: int = Field(ge=1, description="steps between two checkpoints")
    keep_checkpoints: int = Field(ge=1, description="number of checkpoints that are kept; older ones are deleted")
    validate_every: int = Field(ge=1, description="steps between two validation losses and pictures")
    validation_samples: int = Field(ge=1, le=100_000, description="number of samples in the validation loss")


class Bench(Section):
    """The project's own bench, data/bench: boxes of curated validation images."""

    num_cases: int = Field(ge=0, description="0: no bench is made, because evaluate.bench is another folder")
    image_px: int | None = Field(
        ge=32, le=1024, description="side of the square sources, and most of an exemplar; null: method.image_px"
    )
    min_area_frac: float = Field(ge=0.0, le=1.0, description="smallest share of the source that a case repaints")
    max_area_frac: float = Field(ge=0.0, le=1.0, description="largest share of the source that a case repaints")


class Evaluate(Section):
    """What is evaluated, on which bench, and how it is painted and scored.

    `bench`, `real` and `encoder` are paths, which dvc.yaml lists as dependencies of the stage.
    """

    no_result = frozenset({"num_workers"})

    bench: str = Field(min_length=1, description="a folder in COCOEE's layout; data/bench is the project's own")
    num_cases: int | None = Field(ge=1, description="the first cases of the bench; null means all")
    guidance_scale: float = Field(ge=0.0, description="of the pictures that are scored; 1: no guidance")
    sweep: tuple[float, ...] = Field(description="guidance scales shown in the gallery")
    sweep_cases: int = Field(ge=1, description="cases painted at the guidance scales that have no row in the table")
    sampler: Literal["plms", "ddim", "dpm++2m", "unipc"] = Field(description="docs/sampling.md compares them")
    num_steps: int = Field(ge=1, le=1000, description="sampling steps")
    guidance_interval: tuple[float, float] | None = Field(
        description="guide between these two noise levels alone; null: at every level, as in the paper"
    )
    max_magnification: float = Field(
        ge=1.0, le=16.0, description="how much small masks are magnified at most; 1: as in the paper, not at all"
    )
    batch_size: int = Field(ge=1, description="cases painted at once")
    num_workers: int = Field(ge=1, description="processes that paint on a CPU")
    device: str = Field(pattern=_DEVICE, description=_DEVICE_TEXT)
    precision: Precision = Field(description=_PRECISION_TEXT)
    encoder: str = Field(
        min_length=1, description="folder of CLIP ViT-B/32; models/pbe/image_encoder is the painter's own tower"
    )
    real: str = Field(
        min_length=1,
        description="real images for FID and QS: a folder, or a file of their statistics; data/curated: train images",
    )
    max_real_images: int = Field(ge=2, description="most real images that FID and QS compare with")
    protocol: Literal["corrected", "official", "both"] = Field(
        description="official: the resizing, crops and batches of the authors' tools, bit by bit"
    )
    damaged: Literal["refuse", "skip"] = Field(description="what to do with a bench that has unusable cases")
    accept: tuple[AcceptedFault, ...] = Field(
        description="faults that make no case unusable; docs/evaluation.md says what each means"
    )
    baselines: tuple[Literal["copy_paste", "poisson", "text_inpainting", "text_caption", "stock"], ...] = Field(
        description="what is scored beside the painter and the unchanged source"
    )
    identity: str = Field(
        min_length=1, description="encoder that the painter never saw: efficientnet_lite0, none, or a folder"
    )
    lpips: str | None = Field(description="folder with the weights of LPIPS; null: it is not measured")
    foreground: str | None = Field(
        description="U2-Net as an ONNX file, which finds objects in results; null: what was repainted counts as object"
    )
    diversity_cases: int = Field(ge=0, description="cases painted with several seeds")
    diversity_seeds: int = Field(ge=2, description="seeds for each of these cases")
    confidence: float = Field(gt=0.5, lt=1.0, description="of intervals")
    bootstrap_draws: int = Field(ge=100, description="resamples of the cases from which intervals are computed")

    @field_validator("bench", "encoder", "real", mode="before")
    @classmethod
    def _check_old_value(cls, value: Any, field: ValidationInfo) -> Any:
        """Refuse the names that stood for a bench, an encoder and real images before these were paths."""
        path = _OLD_VALUES.get((str(field.field_name), value)) if isinstance(value, str | None) else None
        if path:
            raise ValueError(f"this is a path now; write {path}")
        return value


class Register(Section):
    """The registry and the gate."""

    name: str = Field(description="the registered model's name")
    min_clip_score_gain: float = Field(description="over the untouched source; with less, no model is promoted")
    better: tuple[str, ...] = Field(
        min_length=1, description="metrics of which a new champion is better in at least one, and worse in none"
    )
    hold: tuple[str, ...] = Field(description="further metrics that must not be worse than the champion's")
    confidence: float = Field(gt=0.5, lt=1.0, description="of the intervals that decide")
    bootstrap_draws: int = Field(ge=100, description="of these intervals")
    replace_incomparable: bool = Field(
        description="replace a champion that was evaluated in another way, without comparing the two"
    )
    experiments: bool = Field(description="true: an experiment (dvc exp run) registers its model as well")


class Settings(Section):
    """All of params.yaml."""

    seed: int = Field(
        ge=0,
        lt=2**63,
        description="of every random choice: with the same parameters and data it gives the same bits on a CPU",
    )
    acquire: Acquire
    filter: Filter
    curate: Curate
    backbone: Backbone
    method: Method
    encode: Encode
    train: Train
    bench: Bench
    evaluate: Evaluate
    register_: Register = Field(alias="register")

    @model_validator(mode="after")
    def _check_sizes(self) -> "Settings":
        stored = self.acquire.short_side_px
        if stored is not None and stored < self.method.image_px:
            raise ValueError(f"acquire.short_side_px {stored} is below method.image_px {self.method.image_px}")
        return self

    @model_validator(mode="after")
    def _check_weighting(self) -> "Settings":
        if self.train.zero_terminal_snr and self.train.min_snr_gamma is not None:
            raise ValueError(
                "train.min_snr_gamma weights errors of the noise; train.zero_terminal_snr predicts the velocity instead"
            )
        return self

    @model_validator(mode="after")
    def _check_guidance(self) -> "Settings":
        if self.train.drop_probability == 0 and {self.evaluate.guidance_scale, *self.evaluate.sweep} != {1.0}:
            raise ValueError(
                "train.drop_probability 0 does not train v; set evaluate.guidance_scale 1 and evaluate.sweep [1.0]"
            )
        interval = self.evaluate.guidance_interval
        if interval is not None and not 0 <= interval[0] < interval[1]:
            raise ValueError(f"evaluate.guidance_interval {list(interval)}: needs 0 <= low < high")
        return self


def load_settings(path: Path) -> Settings:
    """Read and validate a params.yaml.

    Raises UserError with the file, the dotted key, what is wrong and the given value, for a file that is missing or not
    YAML, an unknown key, a missing key, and a value of a wrong type or out of range.
    """
    try:
        raw: Any = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; run this command in the project folder, which has params.yaml"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {one_line(error)}") from None
    if raw is None:
        raw = {}
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path}: {_describe(error)}") from None


def _describe(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(top level)"
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: {_MOVED[key]}" if key in _MOVED else f"{key}: unknown key{_suggest(item['loc'])}")
        elif item["type"] == "missing":
            lines.append(f"{key}: missing; params.yaml must set every parameter")
        else:
            given = f" (got {item['input']!r})" if item["loc"] else ""
            lines.append(f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}{given}")
    return "; ".join(lines)


def _suggest(place: tuple[int | str, ...]) -> str:
    """Suggest the key closest to an unknown one, or list all keys of its section."""
    section: type[BaseModel] = Settings
    for part in place[:-1]:
        names = {field.alias or name: field.annotation for name, field in section.model_fields.items()}
        inner = names.get(str(part))
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return ""
        section = inner
    known = [field.alias or name for name, field in section.model_fields.items()]
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; the keys here are {', '.join(known)}"
