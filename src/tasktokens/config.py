"""Settings: pydantic models, YAML in and out, ``key=value`` overrides, errors that name every mistake at once."""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.untrusted import MAX_YAML_BYTES, load_yaml


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values do not change after checking."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _usable_path(cls, value: Any) -> Any:
        if isinstance(value, Path):
            if "\0" in str(value):
                raise ValueError("a path cannot hold the character NUL")
            os.fsencode(value)  # a ValueError for text that no file system can hold
        return value


# Bounds are far above what is useful: they turn a slip of the finger into an error, not into a machine without memory.
_Side = Annotated[int, Field(ge=1, le=2**15)]
_Seed = Annotated[int, Field(ge=0, lt=2**29)]


class Augmentation(Settings):
    """Random geometry and colour of training images."""

    scale: tuple[float, float] = Field((1.0, 1.5), description="zoom range; depth is divided by the zoom")
    crop_max_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="crops that one class covers by more than this share are drawn again; published: 0.75",
    )
    flip: bool = True
    photometric: float = Field(0.3, ge=0, le=1, description="strength of brightness, contrast and colour changes")

    @field_validator("scale")
    @classmethod
    def _zoom_range(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1] < float("inf"):
            raise ValueError("the zoom range must be [least, most] with 0 < least <= most")
        return scale


class DataSettings(Settings):
    """Images and partial labels, whatever their source."""

    size: tuple[_Side, _Side] = Field((96, 128), description="height and width that the network sees")
    labels: str = Field(
        "one",
        description="'one', 'random', 'full', a fraction such as 0.3, or a CSV file of a split",
        coerce_numbers_to_str=True,
    )
    label_seed: _Seed | None = Field(
        None, description="seed of the split drawn; null: the published split of 'one' and 'random' where there is one"
    )
    holdout: float = Field(
        0.0, ge=0, lt=1, description="share of the training images set aside for validation and calibration"
    )
    augmentation: Augmentation = Augmentation()
    evaluation: Literal["network", "full"] = Field(
        "network",
        description="network: images and labels stretched to 'size'; full: images keep their shape, labels their size",
    )
    workers: int = Field(0, ge=0, le=1024, description="loader processes; 0 loads in the training process")
    check: bool = Field(True, description="look at every visible file before the first run on it; see docs/check.md")
    skip_corrupt: bool = Field(
        False, description="training: leave out images and labels that cannot be read, named and counted, and go on"
    )
    cache: bool = Field(True, description="keep decoded images and labels in memory when they fit")


class FolderSource(Settings):
    """A folder in the own-folder layout (docs/data.md), or the CSV or Parquet manifest of one."""

    kind: Literal["folder"] = "folder"
    root: Path | None = Field(None, description="the folder with dataset.yaml; required")


class NyudSource(Settings):
    """NYU Depth v2 in any of its usual layouts, recognised by its files."""

    kind: Literal["nyud"] = "nyud"
    root: Path | None = Field(None, description="the folder that holds it; required")
    classes: Literal[13, 40] = 13


class CityscapesSource(Settings):
    """Cityscapes in any of its usual layouts, recognised by its files."""

    kind: Literal["cityscapes"] = "cityscapes"
    root: Path | None = Field(None, description="the folder that holds it; required")
    classes: Literal[7, 19] = 7
    depth: Literal["inverse", "metres"] = Field("inverse", description="inverse: disparity / 65535, as published")


class PascalContextSource(Settings):
    """PASCAL-Context with five tasks in the layout of ATRC."""

    kind: Literal["pascal_context"] = "pascal_context"
    root: Path | None = Field(None, description="the folder that holds it; required")


class RoomsSource(Settings):
    """The embedded synthetic rooms, rendered on first use."""

    kind: Literal["rooms"] = "rooms"
    train: int = Field(400, ge=1, le=1_000_000)
    val: int = Field(40, ge=1, le=1_000_000)
    test: int = Field(120, ge=1, le=1_000_000)
    render_seed: _Seed = 0
    render_size: tuple[_Side, _Side] | None = Field(None, description="height and width; default: data.size")


Source = FolderSource | NyudSource | CityscapesSource | PascalContextSource | RoomsSource


class Part(Settings):
    """One of several data sets that are learned from together."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="first part of its images' ids")
    source: Annotated[Source, Field(discriminator="kind")]
    tasks: dict[str, str] | list[str] | None = Field(
        None, description="its tasks to use, or new names for them ({semseg: street}); null: all"
    )
    splits: dict[str, str] = Field({}, description="for a split, the part's own name of it, such as {test: val}")


class FolderData(DataSettings, FolderSource):
    """Images and labels of a folder."""


class NyudData(DataSettings, NyudSource):
    """Images and labels of NYU Depth v2."""


class CityscapesData(DataSettings, CityscapesSource):
    """Images and labels of Cityscapes."""


class PascalContextData(DataSettings, PascalContextSource):
    """Images and labels of PASCAL-Context."""


class RoomsData(DataSettings, RoomsSource):
    """Images and labels of the embedded rooms."""


class SeveralData(DataSettings):
    """Several data sets, each perhaps labelled for other tasks, learned from together."""

    kind: Literal["several"] = "several"
    parts: list[Part] = Field(min_length=1)

    @field_validator("parts")
    @classmethod
    def _own_names(cls, parts: list[Part]) -> list[Part]:
        for name, count in Counter(part.name for part in parts).items():
            if count > 1:
                raise ValueError(f"two parts are named '{name}'")
        return parts


DataUnion = FolderData | NyudData | CityscapesData | PascalContextData | RoomsData | SeveralData


class TaskOptions(Settings):
    """What a configuration may change of a task."""

    weight: float | None = Field(None, ge=0, description="factor of the task's losses")
    threshold: float | None = Field(None, ge=0, le=1, description="confidence that a discovered pixel must exceed")


class ModelSettings(Settings):
    """The network."""

    variant: Literal["htt", "paper"] = Field("htt", description="htt: light; paper: to the letter")
    backbone: str = Field("resnet18", description="any timm backbone with four feature maps")
    pretrained: bool = Field(True, description="ImageNet weights from timm's hub")
    weights: Path | None = Field(None, description="backbone weights from a .safetensors or .pth file instead")
    width: int | None = Field(None, ge=8, le=4096, description="channels of the heads; default: the variant's own")
    global_tokens: bool = Field(True, description="HTT: tokens gate features and mix them across tasks")
    multi_scale: bool = Field(True, description="HTT: global tokens at all scales; false: at the coarsest alone")
    fine_tokens: bool = Field(True, description="HTT: tokens decode; false: a linear classifier of pixels")
    image_affinity: bool | None = Field(
        None, description="HTT: how much a task takes of another depends on the image; default: the variant's own"
    )


class MtlMethod(Settings):
    """Shared backbone and a head a task, losses of the given labels only; with one task, the single-task network."""

    name: Literal["mtl"] = "mtl"
    steps: int = Field(1000, ge=1)


class StrongView(Settings):
    """How the student's images differ from the teacher's, once there is a teacher."""

    photometric: float = Field(0.5, ge=0, le=1, description="in place of data.augmentation.photometric")
    grey: float = Field(0.2, ge=0, le=1, description="share of images that lose their colours")
    blur: float = Field(0.3, ge=0, le=1, description="share of images that are blurred")
    cutmix: float = Field(0.0, ge=0, le=1, description="share of images with a patch of another one")


class HttMethod(Settings):
    """Hierarchical Task Tokens with label discovery (arXiv 2411.18823)."""

    name: Literal["htt"] = "htt"
    schedule: Literal["two-stage", "online"] = Field(
        "two-stage",
        description="two-stage: a frozen teacher, as released; "
        "online: one run, whose teacher, and result, is the student's moving average",
    )
    stage1_steps: int = Field(
        500, ge=0, description="steps of the supervised stage, whose network becomes the teacher; 0: see --init-from"
    )
    stage2_steps: int = Field(500, ge=0, description="steps of the student on given and discovered labels")
    student: Literal["fresh", "teacher"] = Field("fresh", description="what the student starts from; the paper: fresh")
    prediction_level: float = Field(1.0, ge=0, description="weight of the loss on discovered labels; 0 turns it off")
    feature_level: float = Field(1.0, ge=0, description="weight of feature distillation; 0 turns it off")
    token_level: float = Field(0.0, ge=0, description="weight of token distillation; 0 turns it off")
    targets: Literal["distribution", "value"] = Field(
        "distribution",
        description="the student learns the teacher's distribution over classes, bins or centres, or, as published, "
        "its value",
    )
    thresholds: Literal["fixed", "adaptive", "calibrated"] = Field(
        "fixed",
        description="fixed: each task's own, as published; adaptive: the teacher's mean confidence so far, for each "
        "task and class; calibrated: what makes it right often enough on visible labels of the held-out images",
    )
    target_accuracy: float = Field(0.8, gt=0, le=1, description="calibrated: share of pixels that are to be right")
    calibrate_every: int = Field(500, ge=1, description="calibrated, online: steps between two calibrations")
    geometry: bool = Field(
        False, description="confidence of depth and normals is multiplied by how well the two agree"
    )
    focal: float = Field(
        0.9, gt=0, le=100, description="geometry: the camera's focal length as a share of the image's width"
    )
    strong: StrongView = StrongView()
    ramp: int = Field(100, ge=1, description="online: steps over which the discovery losses grow to their weights")
    ema: float = Field(0.99, ge=0, lt=1, description="online: decay of the moving average that is the teacher")
    teacher_views: Literal[1, 2] = Field(2, description="2: the teacher averages each image and its mirror image")
    confidence: Literal["ours", "paper"] = Field("ours", description="what the thresholds apply to")
    confidence_weighting: bool = Field(True, description="false: every discovered pixel weighs the same")
    confidence_loss: float = Field(0.1, ge=0, description="weight of the loss that trains the confidence map")

    @field_validator("stage2_steps")
    @classmethod
    def _some_steps(cls, value: int, info: ValidationInfo) -> int:
        if value == 0 and info.data.get("stage1_steps") == 0:
            raise ValueError("it is 0 and so is stage1_steps: there would be nothing to train")
        return value


class OptimSettings(Settings):
    """Optimiser and schedule; the schedule restarts with each stage."""

    name: Literal["adam", "adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    backbone_lr: float = Field(1.0, gt=0, description="factor of lr for the backbone")
    weight_decay: float = Field(1e-4, ge=0)
    batch_size: int | Literal["auto"] = Field(
        16,
        description="images of an update, over all processes and parts; auto: the largest that fits into memory, "
        "measured at the start",
    )
    warmup: int = Field(20, ge=0, description="steps of linear warm-up at the start of a stage")
    power: float = Field(0.9, ge=0, description="polynomial decay: (1 - step / steps) ** power")
    clip: float = Field(10.0, gt=0, description="largest gradient norm")
    accumulate: int = Field(
        1, ge=1, description="parts in which each process takes its share of batch_size, to save memory"
    )
    loss_stride: int = Field(1, ge=1, description="losses use every n-th row and column, at an offset drawn each step")

    @field_validator("batch_size", mode="before")
    @classmethod
    def _count_or_auto(cls, value: object) -> object:
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value >= 1 and value % 1 == 0
        if value != "auto" and not whole:
            raise ValueError("it must be a whole number from 1 on, or auto")
        return value

    @property
    def images(self) -> int:
        """The batch size as a number; in a run that has begun there always is one."""
        if self.batch_size == "auto":
            raise ConfigError("optim.batch_size is auto and was not measured yet; give a number")
        return self.batch_size


class RunSettings(Settings):
    """The run folder and what is written to it."""

    dir: Path = Path("runs/default")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 on GPUs that have it, fp32 elsewhere"
    )
    device: Literal["auto", "cpu"] = "auto"
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads of torch; default: torch's own choice")
    deterministic: bool = Field(False, description="GPU: only kernels that give the same bits each time")
    sync_batch_norm: bool = Field(False, description="several GPUs: batch norm over the images of all of them")
    rank_timeout: float = Field(60, gt=0, description="minutes that a process waits for the others before it gives up")
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints")
    keep: int = Field(2, ge=1, description="newest checkpoints kept")
    validate_every: int | None = Field(
        None, ge=1, description="steps between evaluations during training, whose best network is kept in best/"
    )
    validate_on: str = Field("holdout", description="what that is measured on: holdout, or a split of the data")
    log_every: int = Field(10, ge=1, description="steps between rows of metrics.jsonl")
    evaluate: str | None = Field("test", description="split evaluated at the end, or null")
    track: list[Literal["tensorboard", "wandb"]] = Field([], description="also log to these, which must be installed")


class Config(Settings):
    """Everything that decides a run."""

    seed: _Seed = 0
    data: Annotated[DataUnion, Field(discriminator="kind")] = RoomsData()
    tasks: dict[str, TaskOptions] | None = Field(None, description="tasks to learn; null: all of the data set")
    model: ModelSettings = ModelSettings()
    method: Annotated[HttMethod | MtlMethod, Field(discriminator="name")] = HttMethod()
    optim: OptimSettings = OptimSettings()
    run: RunSettings = RunSettings()


def load_config(path: Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file and apply ``a.b=value`` overrides (values are YAML).

    Raises `ConfigError` listing every unknown key (with the nearest known one) and every bad value.
    """
    values: dict[str, Any] = {}
    where = "the settings"
    if path is not None:
        values, where = read_yaml(path), str(path)
    for override in overrides:
        _apply(values, override)
    return parse_config(values, where)


def parse_config(values: Mapping[str, Any], where: str = "the settings") -> Config:
    """Check plain values; see `load_config`."""
    values = dict(values)
    data, method = values.get("data"), values.get("method")
    if isinstance(data, dict) and "kind" not in data:
        values["data"] = {"kind": "folder" if "root" in data else "rooms", **data}
    if isinstance(method, dict) and "name" not in method:
        values["method"] = {"name": "htt", **method}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        mistakes = "; ".join(_sentence(item) for item in error.errors())
        raise ConfigError(f"{where}: {mistakes}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises `ConfigError` when the file is missing, not YAML, or no mapping."""
    try:
        with path.open("rb") as file:
            values = load_yaml(file.read(MAX_YAML_BYTES + 1).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values, found a {type(values).__name__}")
    return values


def to_yaml(config: Settings) -> str:
    """The settings as YAML that `load_config` reads back to the same value."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _apply(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"'{override}' is not of the form key=value, such as optim.lr=1e-3")
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(values.get(parent), dict):
            values[parent] = {}
        values = values[parent]
    try:
        values[last] = load_yaml(text)
    except ValueError as error:
        raise ConfigError(f"the value of '{override}' is not YAML") from error
    # YAML 1.1 reads 1e-3 as text.
    if isinstance(values[last], str):
        with suppress(ValueError):
            values[last] = float(text)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlist = _SHORT.maxdict = 20

_TAGS: dict[str, type[Settings]] = {
    "folder": FolderData, "nyud": NyudData, "cityscapes": CityscapesData, "pascal_context": PascalContextData,
    "rooms": RoomsData, "several": SeveralData, "htt": HttMethod, "mtl": MtlMethod,
}  # fmt: skip


def _sentence(item: Any) -> str:
    """One of pydantic's errors for a person: the key as typed, what was expected, what was found."""
    model: Any = Config
    typed: list[str] = []
    for part in map(str, item["loc"]):
        if part in _TAGS and (typed in (["data"], ["method"]) or typed[-1:] == ["source"]):
            model = _TAGS[part]  # pydantic names the chosen member of a union here
            continue
        known = _known(model)
        typed.append(part)
        if part.isdigit() and typed[:-1] == ["data", "parts"]:
            model = Part
            continue
        model = TaskOptions if typed[0] == "tasks" else known[part].annotation if part in known else None
    key = ".".join(typed)
    if item["type"] == "extra_forbidden":
        siblings = TaskOptions.model_fields if typed[0] == "tasks" else known
        return f"unknown key '{key}'{did_you_mean(typed[-1], siblings)}"
    if item["type"] == "union_tag_invalid":
        found, tags = item["ctx"]["tag"], item["ctx"]["expected_tags"].replace("'", "").split(", ")
        return f"'{key}' has no '{found}'{did_you_mean(found, tags)}; expected one of: {', '.join(tags)}"
    return f"'{key}': {item['msg'][0].lower()}{item['msg'][1:]}, found {_SHORT.repr(item['input'])}"


def _known(model: Any) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(model, "model_fields", {})
    return fields
