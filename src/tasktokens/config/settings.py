"""Settings of a run: network, optimiser, run folder, and `Config`, which holds all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tasktokens.config.base import Chosen, MethodSettings, Seed, Settings
from tasktokens.config.components import DATA_SETTINGS, METHOD_SETTINGS
from tasktokens.config.data import DataSettings
from tasktokens.errors import ConfigError, did_you_mean


class TaskOptions(Settings):
    """What a configuration may change of a task."""

    weight: float | None = Field(None, ge=0, description="factor of the task's losses")
    threshold: float | None = Field(None, ge=0, le=1, description="confidence that a discovered pixel must exceed")
    discovered_weight: float | None = Field(None, ge=0, description="factor of the loss on its discovered labels")


class HttParts(Settings):
    """Parts of the variant ``htt`` that are being tried; off by default."""

    token_update: int = Field(
        0, ge=0, le=2, description="rounds in which each fine token is updated by what it gathers from the feature"
    )
    token_exchange: bool = Field(False, description="attention among the fine tokens of all tasks of an image")
    exchange: Literal["affinity", "modulation", "none"] = Field(
        "affinity",
        description="how tasks shape each scale: affinity: gates mixed across tasks; modulation: each task's own gate "
        "and a factor per channel; none: its own gate alone",
    )
    prompt_tokens: bool = Field(
        False, description="global tokens run through the backbone's last stage; CNN: cross-attention with its map"
    )


class ModelSettings(Settings):
    """Settings of the network."""

    variant: Literal["htt", "paper"] = Field("htt", description="htt: light; paper: exactly as published")
    backbone: str = Field("resnet18", description="any timm backbone with four feature maps, or segnet")
    pretrained: bool = Field(True, description="ImageNet weights from timm's hub")
    weights: Path | None = Field(
        None,
        description="backbone weights instead: a .safetensors or .pth file, a run, or demo: those of the shipped model",
    )
    width: int | None = Field(None, ge=8, le=4096, description="channels of the heads; default: the variant's own")
    global_tokens: bool = Field(True, description="HTT: tokens gate features and mix them across tasks")
    multi_scale: bool = Field(True, description="HTT: global tokens at all scales; false: at the coarsest alone")
    fine_tokens: bool = Field(True, description="HTT: tokens decode; false: a linear classifier of pixels")
    image_affinity: bool | None = Field(
        None, description="HTT: how much a task takes of another depends on the image; default: the variant's own"
    )
    htt: HttParts = HttParts()
    """Parts that are being tried."""

    @model_validator(mode="after")
    def _parts_fit(self) -> ModelSettings:
        if self.variant == "paper" and self.htt != HttParts():
            raise ValueError("the parts in model.htt are of the variant htt; leave them out, or set model.variant=htt")
        if not self.fine_tokens and (self.htt.token_update or self.htt.token_exchange):
            raise ValueError("htt.token_update and htt.token_exchange change fine tokens, but fine_tokens is false")
        if not self.global_tokens and (self.htt.prompt_tokens or self.htt.exchange != "affinity"):
            raise ValueError("htt.prompt_tokens and htt.exchange need global tokens, but global_tokens is false")
        return self


class OptimSettings(Settings):
    """Optimiser and schedule; the schedule restarts with each stage."""

    name: Literal["adam", "adamw"] = Field("adamw", description="of torch.optim")
    lr: float = Field(
        4e-3, gt=0, description="learning rate after warm-up; backbones without batch norm (ViT) need a tenth of it"
    )
    backbone_lr: float = Field(
        0.5, ge=0, description="factor of lr for the backbone; 0: it stays as it started, its batch norms too"
    )
    token_lr: float = Field(0.1, gt=0, description="factor of lr for the tokens of HTT and what applies them")
    weight_decay: float = Field(0.01, ge=0, description="of the optimiser")
    batch_size: int | Literal["auto"] = Field(
        16,
        description="images per update, over all processes and parts; auto: the largest that fits into memory, "
        "measured at the start",
    )
    minutes: float | None = Field(
        None,
        gt=0,
        description="minutes of training, without evaluations, in place of numbers of steps: steps of every stage are "
        "timed at the start, and the method's numbers of steps multiplied by what fills the minutes",
    )
    warmup: int = Field(20, ge=0, description="steps of linear warm-up at the start of a stage")
    power: float = Field(0.9, ge=0, description="polynomial decay: (1 - step / steps) ** power")
    clip: float = Field(10.0, gt=0, description="largest gradient norm")
    accumulate: int = Field(
        1, ge=1, description="parts in which each process takes its share of batch_size, to save memory"
    )
    balance: Literal["none", "first_losses", "uncertainty", "dwa", "upgrad", "mgda", "aligned_mtl"] = Field(
        "none",
        description="first_losses: factors that make the tasks' weighted losses of the first 10 steps equal; "
        "uncertainty: learned (Kendall 2018); dwa: by how fast losses fall (Liu 2019); the others join the tasks' "
        "gradients (TorchJD, extra 'balance')",
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

    dir: Path = Field(Path("runs/default"), description="folder of the run")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 on GPUs that have it, fp32 elsewhere"
    )
    device: Literal["auto", "cpu"] = Field("auto", description="auto: an accelerator where there is one")
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads of torch; default: one per core (docs/reference/runs.md#threads)"
    )
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
    track: list[str] = Field(
        [],
        description="also log to these trackers, which must be installed: tensorboard, wandb, mlflow, trackio, "
        "comet_ml, aim, clearml, dvclive, swanlab (docs/reference/runs.md#trackers)",
    )

    @property
    def measured_on(self) -> str | None:
        """``evaluate``, with ``test`` for an ``auto`` that nothing has settled, as in settings of no run."""
        return "test" if self.evaluate == "auto" else self.evaluate

    @field_validator("track")
    @classmethod
    def _known_to_accelerate(cls, names: list[str]) -> list[str]:
        if names:
            from accelerate.tracking import LOGGER_TYPE_TO_CLASS as known

            for name in names:
                if name not in known:
                    near = did_you_mean(name, known)
                    raise PydanticCustomError(
                        "tracker", "no tracker '{name}'{near}; expected of: {known}",
                        {"name": name, "near": near, "known": ", ".join(known)},
                    )  # fmt: skip
        return names

    @field_validator("evaluate")
    @classmethod
    def _none_is_null(cls, value: str | None) -> str | None:
        return None if value == "none" else value


DATA = Chosen(
    "kind",
    lambda: DATA_SETTINGS,
    lambda values: "folder" if "root" in values else "rooms",
    aliases=(("several", "concat"),),
)
"""How the section ``data`` is read."""
METHOD = Chosen("name", lambda: METHOD_SETTINGS, lambda values: "htt")
"""How the section ``method`` is read."""


class Config(Settings):
    """Everything that decides a run.

    Examples:
        >>> Config.model_validate({"data": {"kind": "rooms"}, "optim": {"lr": 0.002}}).method.name
        'htt'
    """

    seed: Seed = Field(0, description="of all random draws but the choice of labels, which data.label_seed decides")
    data: Annotated[DataSettings, DATA] = Field(
        default_factory=lambda: DATA.validate({}), description="images and labels"
    )
    tasks: dict[str, TaskOptions] | None = Field(None, description="tasks to learn; null: all of the data set")
    model: ModelSettings = Field(ModelSettings(), description="the network")
    method: Annotated[MethodSettings, METHOD] = Field(
        default_factory=lambda: METHOD.validate({}), description="how partial labels are used"
    )
    optim: OptimSettings = Field(OptimSettings(), description="optimiser and schedule")
    run: RunSettings = Field(RunSettings(), description="the run folder")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_paper(cls, values: Any) -> Any:
        """With ``model.variant=paper`` the published settings of the method are the defaults."""
        if not isinstance(values, Mapping):
            return values
        model, method = values.get("model"), values.get("method", {})
        if not isinstance(model, Mapping) or model.get("variant") != "paper" or not isinstance(method, Mapping):
            return values
        settings = METHOD.classes().get(METHOD.tag_of(method))
        published = getattr(settings, "as_published", {})
        return {**values, "method": {**published, **method}}
