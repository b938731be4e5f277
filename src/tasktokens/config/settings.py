"""Settings of a run: network, method, optimiser, and all of it together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from tasktokens.config.base import Removed, Seed, Settings
from tasktokens.config.data import DataUnion, RoomsData
from tasktokens.errors import ConfigError

VIEW_ZOOM = 1.25
"""How much larger than the image the second view of it is, in training and where a trained network predicts."""


class TaskOptions(Settings):
    """What a configuration may change of a task."""

    weight: float | None = Field(None, ge=0, description="factor of the task's losses")
    threshold: float | None = Field(None, ge=0, le=1, description="confidence that a discovered pixel must exceed")
    discovered_weight: float | None = Field(None, ge=0, description="factor of the loss on its discovered labels")


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

    removed: ClassVar[Mapping[str, Removed]] = {"cutmix": Removed("patches of other images", off=0.0)}

    photometric: float = Field(0.5, ge=0, le=1, description="in place of data.augmentation.photometric")
    grey: float = Field(0.2, ge=0, le=1, description="share of images that lose their colours")
    blur: float = Field(0.3, ge=0, le=1, description="share of images that are blurred")


class HttMethod(Settings):
    """Hierarchical Task Tokens with label discovery (arXiv 2411.18823)."""

    removed: ClassVar[Mapping[str, Removed]] = {
        "geometry": Removed("the geometric check", off=False), "focal": Removed("the geometric check"),
    }  # fmt: skip

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
    rounds: int = Field(
        1,
        ge=1,
        le=100,
        description="two-stage: how many students, of stage2_steps each; the teacher of each is the one before",
    )
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
    strong: StrongView = StrongView()
    ramp: int = Field(100, ge=1, description="online: steps over which the discovery losses grow to their weights")
    ema: float = Field(0.99, ge=0, lt=1, description="online: decay of the moving average that is the teacher")
    teacher_views: Literal[1, 2] = Field(2, description="2: the teacher averages each image and its mirror image")
    teacher_zoom: float = Field(
        VIEW_ZOOM, gt=0, le=4, description="two views: the mirror image is enlarged by this, to multiples of 32 pixels"
    )
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
    token_lr: float = Field(0.1, gt=0, description="factor of lr for the tokens of HTT and what applies them")
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
    evaluate: str | None = Field(
        "auto",
        description="what the result is measured on: a split, holdout, or none; auto: test where the data has it, else "
        "val, else training images set aside",
    )
    track: list[Literal["tensorboard", "wandb"]] = Field([], description="also log to these, which must be installed")

    @property
    def measured_on(self) -> str | None:
        """``evaluate``, with ``test`` for an ``auto`` that nothing has settled, as in settings of no run."""
        return "test" if self.evaluate == "auto" else self.evaluate

    @field_validator("evaluate")
    @classmethod
    def _none_is_null(cls, value: str | None) -> str | None:
        return None if value == "none" else value


class Config(Settings):
    """Everything that decides a run."""

    seed: Seed = 0
    data: Annotated[DataUnion, Field(discriminator="kind")] = RoomsData()
    tasks: dict[str, TaskOptions] | None = Field(None, description="tasks to learn; null: all of the data set")
    model: ModelSettings = ModelSettings()
    method: Annotated[HttMethod | MtlMethod, Field(discriminator="name")] = HttMethod()
    optim: OptimSettings = OptimSettings()
    run: RunSettings = RunSettings()
