"""DiffusionMTL: noisy predictions or features of a task are denoised with the help of all tasks' predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tasktokens.config import MethodSettings
from tasktokens.data.sample import Batch
from tasktokens.losses import Term
from tasktokens.methods.base import (
    FIRST_STEP,
    METHODS,
    Method,
    PreparedBatch,
    Stage,
    StepOptions,
    label_counts,
    supervised_term,
)
from tasktokens.methods.image_noise import ImageNoise
from tasktokens.models import TaskOutput, head_rows
from tasktokens.tasks import Task


class DiffusionFeatureMethod(MethodSettings):
    """DiffusionMTL on task features (Ye & Xu, CVPR 2024)."""

    name: Literal["diffusion_feature"] = "diffusion_feature"
    steps: int = Field(1000, ge=1, description="updates of the weights")
    intermediate: float = Field(0.5, ge=0, description="weight of the losses of the preliminary predictions")


class DiffusionPredictionMethod(MethodSettings):
    """DiffusionMTL on predicted maps (Ye & Xu, CVPR 2024)."""

    name: Literal["diffusion_prediction"] = "diffusion_prediction"
    steps: int = Field(1000, ge=1, description="updates of the weights")
    intermediate: float = Field(0.5, ge=0, description="weight of the losses of the preliminary predictions")


@dataclass(frozen=True)
class DiffusionBatch(PreparedBatch):
    """A prepared batch with the noise that is added."""

    noise: ImageNoise


@METHODS.register("diffusion_feature")
class FeatureDiffusionMtl(Method):
    """Given labels supervise each task before and after denoising; missing ones take part through the condition.

    Preliminary heads give a feature and a prediction of every task. The predictions, without gradient, are embedded
    together as the condition. The feature of a labelled task is noised over 2 steps (variances 1e-3 to 1e-2) and
    denoised by four blocks of cross-attention, whose queries come from the condition at a quarter of the size; each
    step predicts the clean feature, and a last head decodes it.

    Source: Ye, Xu, *DiffusionMTL: Learning Multi-Task Denoising Diffusion Model from Partially Annotated Data* (CVPR
    2024, https://arxiv.org/abs/2403.15389). Written from the paper's description; no code of the authors is used.

    Deviations: preliminary heads are those of our MTL baseline, and widths are `model.width`; both steps are unrolled
    in training, as in prediction, with one draw of noise; in prediction no noise is added (its standard deviation is
    0.1), so that a prediction is repeatable and depends on its image alone; the embedding of the two steps is learned;
    labelled pairs alone are denoised in training.
    """

    settings_class: ClassVar[type[MethodSettings]] = DiffusionFeatureMethod
    network: str = "diffusion_feature"

    def __init__(self, tasks: Mapping[str, Task], settings: DiffusionFeatureMethod | DiffusionPredictionMethod) -> None:
        super().__init__(tasks)
        self.settings = settings

    def stages(self) -> tuple[Stage, ...]:
        """A single stage."""
        return (Stage("diffusion", self.settings.steps),)

    def prepare(self, batch: Batch, generator: torch.Generator, options: StepOptions = FIRST_STEP) -> DiffusionBatch:
        """Draw the noise of the diffusion too."""
        first = super().prepare(batch, generator, options)
        return DiffusionBatch(**vars(first), noise=ImageNoise.draw(generator, options.shard, len(batch.ids)))

    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        """Supervised terms of the denoised and of the preliminary predictions."""
        assert isinstance(prepared, DiffusionBatch)
        labels = prepared.batch.labels
        rows = {name: head_rows(item.rows, item.absent) for name, item in labels.items()}
        outputs, terms = student(prepared.image, rows, noise=prepared.noise), []
        for name, task in self.tasks.items():
            output = outputs[name]
            first = TaskOutput(output.preliminary, output.feature)
            terms.append(supervised_term(task, output, labels[name], prepared.sampler))
            before = supervised_term(task, first, labels[name], prepared.sampler)
            terms.append(replace(before, name=f"preliminary/{name}", weight=before.weight * self.settings.intermediate))
        return terms

    def counts(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """Labelled pixels per task, for either prediction."""
        counts = label_counts(prepared)
        return {f"{kind}/{name}": count for name, count in counts.items() for kind in ("loss", "preliminary")}


@METHODS.register("diffusion_prediction")
class PredictionDiffusionMtl(FeatureDiffusionMtl):
    """As `FeatureDiffusionMtl`, where the predicted map (`Task.prediction_map`) is noised and denoised.

    The same source and deviations; each step's prediction of the clean map is that of its logits.
    """

    settings_class: ClassVar[type[MethodSettings]] = DiffusionPredictionMethod
    network: str = "diffusion_prediction"
