"""Every parameter of the pipeline: params.yaml becomes frozen, validated settings.

An unknown key, a wrong type or a value out of range is a ValueError of one line that names the file and the key.
Each stage reads its own section, so that DVC reruns only what a changed section touches.
"""

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Fraction = Field(ge=0.0, le=1.0)
Place = Literal["device", "cpu", "none"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class World(Section):
    """The generated demo world (`acquire.source: demo`)."""

    train_images: int = Field(4000, ge=1, le=10_000_000)
    validation_images: int = Field(420, ge=1, le=1_000_000)
    fault_frac: float = Field(0.01, ge=0.0, le=0.1, description="share of images given each kind of planted fault")


class FiftyOne(Section):
    """Which labels of a FiftyOne dataset (`acquire.source: fiftyone`)."""

    field: str = Field("ground_truth", description="of Detections")


class HuggingFace(Section):
    """Which columns of a Hugging Face dataset on disk (`acquire.source: huggingface`), and how its boxes are told."""

    image: str = Field("image", description="column of images")
    objects: str = Field("objects", description="column of an image's objects")
    bbox: str = Field("bbox", description="the boxes among the objects")
    category: str = Field("category", description="their classes, names or ClassLabel")
    box_format: Literal["xywh", "xyxy"] = "xywh"
    normalised: bool = Field(False, description="boxes are shares of the image's sides, not pixels")


class Acquire(Section):
    """Where images and boxes come from."""

    source: Literal[
        "demo", "openimages", "s3", "folder", "coco", "yolo", "voc", "csv", "masks", "fiftyone", "huggingface"
    ] = "demo"
    root: str | None = Field(
        None,
        description="a folder's path; s3: s3://bucket/prefix; fiftyone: a dataset's name; demo, openimages: unused",
    )
    validation_frac: float = Field(0.1, gt=0.0, lt=1.0, description="own data: drawn where nothing says which images")
    mask_values: Literal["auto", "objects", "binary"] = Field(
        "auto",
        description="masks: each value of a file is an object, or all above half are one; auto asks when in doubt",
    )
    fiftyone: FiftyOne = FiftyOne()
    huggingface: HuggingFace = HuggingFace()
    endpoint_url: str | None = Field(None, description="s3: an S3-compatible endpoint; none means AWS")
    annotations_url: str = "https://storage.googleapis.com/openimages"
    train_images: int | None = Field(None, ge=1, description="at most this many train images; none means all")
    validation_images: int | None = Field(None, ge=1)
    classes: tuple[str, ...] = Field((), description="class names as people write them; none means all")
    workers: int = Field(16, ge=1, le=256, description="concurrent connections of a process")
    processes: int = Field(2, ge=1, le=256, description="that fetch from a bucket; 1: this one alone")
    max_attempts: int = Field(5, ge=1, le=20, description="tries for one object, with exponential back-off")
    max_lost_frac: float = Field(0.02, ge=0.0, le=1.0, description="fail when a larger share of images is lost")
    short_side_px: int | None = Field(None, ge=16, description="larger images are stored this small")
    jpeg_quality: int = Field(92, ge=1, le=100, description="of the images made smaller")
    images_per_shard: int | None = Field(None, ge=1, le=1_000_000, description="none: as many as make 100 to 250 MB")
    world: World = World()


class Filter(Section):
    """Which boxes can teach: the paper's area rule, OpenImages' flags, and caps."""

    min_area_frac: float = Field(0.02, ge=0.0, le=1.0)
    max_area_frac: float = Field(0.8, ge=0.0, le=1.0)
    min_side_px: int = Field(8, ge=1)
    max_aspect: float = Field(4.0, ge=1.0, description="longer side over shorter side")
    drop_group_of: bool = True
    drop_depiction: bool = True
    drop_occluded: bool = False
    drop_truncated: bool = True
    classes: tuple[str, ...] = Field((), description="class names as people write them; none means all")
    exclude_classes: tuple[str, ...] = Field((), description="a class includes its kinds, where the hierarchy is there")
    max_boxes_per_image: int | None = Field(2, ge=1, description="drawn at random, seeded")
    max_boxes_per_class: int | None = Field(None, ge=1, description="in each split; drawn at random, seeded")


class Curate(Section):
    """Which images are fit to learn from, and which would leak into the evaluation."""

    min_brightness: float = Field(0.12, description="mean luma, 0..1", ge=0.0, le=1.0)
    max_brightness: float = Field(0.9, ge=0.0, le=1.0)
    min_sharpness: float = Field(6.0, ge=0.0, description="energy of fine over coarse detail at 64 px; blurred: 2 to 5")
    near_duplicate_distance: float = Field(0.1, ge=0.0, le=2.0, description="cosine distance of centred embeddings")
    near_duplicate_pixels: float = Field(0.035, ge=0.0, le=1.0, description="difference of aligned thumbnails, 0..1")


class Backbone(Section):
    """The pretrained parts: bundled tiny ones, a local folder, or the hub at a revision."""

    source: Literal["tiny", "path", "hub"] = "tiny"
    path: str | None = None
    stable_diffusion: str = "CompVis/stable-diffusion-v1-4"
    stable_diffusion_revision: str = "133a221b8aa7292a167afc5127cb63fb5005638b"
    clip: str = "openai/clip-vit-large-patch14"
    clip_revision: str = "32bd64288804d66eefd0ccbe215aa642df71cc41"


class Mask(Section):
    """Arbitrary mask shapes (section 3.2)."""

    irregular_probability: float = Field(0.5, ge=0.0, le=1.0)
    shape: Literal["arbitrary", "box"] = Field("arbitrary", description="box: always the box itself, for the ablation")
    max_extension_frac: float = Field(0.4, ge=0.0, le=1.0, description="of the free space on each side")
    points_per_edge: int = Field(20, ge=2, le=200)
    max_offset_frac: float = Field(
        0.01, ge=0.0, le=0.5, description="jitter of an edge point, as a share of the image side"
    )
    object_probability: float = Field(
        0.5, ge=0.0, le=1.0, description="of the object's own shape, where the data have its mask"
    )
    max_dilation_frac: float = Field(0.03, ge=0.0, le=0.5, description="of that shape, as a share of the image side")


class ExemplarAugmentation(Section):
    """A(x_r): how strongly the exemplar is changed (section 3.2)."""

    augment: bool = Field(True, description="false: the crop as it is, for the ablation")
    pad_frac: float = Field(0.06, ge=0.0, le=1.0)
    flip_probability: float = Field(0.5, ge=0.0, le=1.0)
    rotate_probability: float = Field(0.5, ge=0.0, le=1.0)
    max_rotation_deg: float = Field(20.0, ge=0.0, le=180.0)
    blur_probability: float = Field(0.3, ge=0.0, le=1.0)
    max_blur_frac: float = Field(0.02, ge=0.0, le=0.5)
    elastic_probability: float = Field(0.3, ge=0.0, le=1.0)
    elastic_frac: float = Field(0.03, ge=0.0, le=0.5)
    elastic_smooth_frac: float = Field(0.12, gt=0.0, le=1.0)


class Method(Section):
    """What a training sample is: the window, the mask, the exemplar."""

    image_px: int = Field(64, ge=32, le=1024, multiple_of=8)
    close_up_probability: float = Field(
        0.0, ge=0.0, le=1.0, description="of samples whose window is smaller than the image's short side"
    )
    bottleneck: bool = Field(True, description="the class token alone; false: all of the tower's, for the ablation")
    mask: Mask = Mask()
    exemplar: ExemplarAugmentation = ExemplarAugmentation()


class Encode(Section):
    """The cache of latents and class tokens."""

    variants: int = Field(2, ge=1, le=64, description="windows and masks drawn per box")
    exemplar_variants: int = Field(2, ge=1, le=64, description="augmented exemplars encoded per window")
    shard_rows: int = Field(1024, ge=1)
    batch_size: int = Field(64, ge=1)
    num_workers: int = Field(2, ge=1)
    use_gpu: bool = False


class Train(Section):
    """The optimisation."""

    prior: bool = Field(True, description="start from the text-to-image weights; false: from random, for the ablation")
    cache: bool = Field(True, description="train from cached latents; false: from images, augmented afresh each time")
    num_workers: int = Field(2, ge=1, le=4096, description="processes, on however many nodes they fit; one GPU each")
    use_gpu: bool = False
    cpus_per_worker: int = Field(1, ge=1, le=1024, description="reserved in Ray; without a GPU also torch's threads")
    storage: str | None = Field(
        None,
        min_length=1,
        description="of the runs: a shared folder or s3://bucket/prefix; none: models/checkpoints",
    )
    steps: int = Field(700, ge=1)
    batch_size: int = Field(8, ge=1, description="per worker and accumulation step")
    accumulate: int = Field(1, ge=1)
    lr: float = Field(5e-4, gt=0.0, le=1.0)
    conv_in_lr_factor: float = Field(1.0, gt=0.0, description="of the layer whose five new channels start from zero")
    warmup_steps: int = Field(20, ge=0)
    decay: Literal["constant", "cosine"] = "cosine"
    weight_decay: float = Field(0.01, ge=0.0)
    max_grad_norm: float = Field(1.0, gt=0.0)
    optimizer: Literal["adamw", "adamw8bit"] = Field("adamw", description="adamw8bit: moments in eight bits, on a GPU")
    ema_decay: float = Field(0.99, ge=0.0, lt=1.0)
    average: Place = Field("device", description="where the averaged weights lie; none: nothing is averaged")
    average_every: int = Field(1, ge=1, description="steps between averagings; more spare the way to the CPU")
    drop_probability: float = Field(0.2, ge=0.0, le=1.0, description="share of conditions replaced by v; 0: none")
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = Field(False, description="compile the UNet: minutes at the start, faster steps on a GPU")
    gradient_checkpointing: bool = Field(False, description="less memory, a third more time")
    loader_threads: int = Field(4, ge=1, le=256, description="that draw samples where there is no cache")
    checkpoint_every: int = Field(100, ge=1, description="steps")
    keep_checkpoints: int = Field(2, ge=1)
    validate_every: int = Field(200, ge=1, description="steps between validation losses and pictures")
    validation_samples: int = Field(32, ge=1, le=100_000, description="of the validation loss")


class Evaluate(Section):
    """The bench, in COCOEE's layout."""

    bench: str = Field("demo", description="demo, boxes, or a COCOEE folder")
    num_cases: int = Field(256, ge=1)
    guidance_scale: float = Field(5.0, ge=0.0)
    sweep: tuple[float, ...] = Field((1.0, 3.0, 5.0, 7.0), description="guidance scales shown in the gallery")
    sweep_cases: int = Field(32, ge=1, description="cases painted at the scales that carry no full table row")
    num_steps: int = Field(16, ge=1, le=1000)
    max_magnification: float = Field(2.0, ge=1.0, le=16.0, description="of small masks; 1: as the paper shows them")
    batch_size: int = Field(32, ge=1)
    num_workers: int = Field(2, ge=1)
    min_area_frac: float = Field(0.08, ge=0.0, le=1.0, description="smallest repainted box")
    max_area_frac: float = Field(0.6, ge=0.0, le=1.0)
    encoder: str = Field("tower", min_length=1, description="tower (the painter's own), or a CLIP ViT-B/32 folder")
    real: str | None = Field(None, description="folder of real images for FID and QS; none means curated train images")
    max_real_images: int = Field(4000, ge=2)


class Register(Section):
    """The registry and the gate."""

    name: str = "paint-by-example"
    min_clip_score_gain: float = Field(0.0, description="over the untouched source; else nothing is promoted")
    max_fid_increase: float = Field(0.05, ge=0.0, description="relative, against the present champion")
    max_clip_score_drop: float = Field(0.02, ge=0.0, description="relative, against the present champion")


class Settings(Section):
    seed: int = Field(0, ge=0, lt=2**63)
    acquire: Acquire = Acquire()
    filter: Filter = Filter()
    curate: Curate = Curate()
    backbone: Backbone = Backbone()
    method: Method = Method()
    encode: Encode = Encode()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    register_: Register = Field(Register(), alias="register")

    @model_validator(mode="after")
    def _check_sizes(self) -> "Settings":
        stored = self.acquire.short_side_px
        if stored is not None and stored < self.method.image_px:
            raise ValueError(f"acquire.short_side_px {stored} is below method.image_px {self.method.image_px}")
        return self

    @model_validator(mode="after")
    def _check_guidance(self) -> "Settings":
        if self.train.drop_probability == 0 and {self.evaluate.guidance_scale, *self.evaluate.sweep} != {1.0}:
            raise ValueError(
                "train.drop_probability 0 needs evaluate.guidance_scale 1 and sweep [1.0]: v learns nothing"
            )
        return self


def load_settings(path: Path) -> Settings:
    """Read and check a params.yaml.

    Raises ValueError of one line: the file, the dotted key, what is wrong and what was given.
    """
    try:
        raw: Any = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run inside the project, where params.yaml lies") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if raw is None:
        raw = {}
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise ValueError(f"{path}: {_describe(error)}") from None


def _describe(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(top level)"
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_suggest(item['loc'])}")
        else:
            given = f" (got {item['input']!r})" if item["loc"] else ""
            lines.append(f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}{given}")
    return "; ".join(lines)


def _suggest(place: tuple[int | str, ...]) -> str:
    """The keys of the section that holds an unknown one: the closest to it, or all."""
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
