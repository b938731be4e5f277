"""MTPSL: a prediction without a label must agree with another task's label in a space that the two share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.config import MethodSettings
from tasktokens.data.sample import Batch
from tasktokens.data.transforms import resize_labels
from tasktokens.discovery.pseudo_labels import inside
from tasktokens.losses import Term
from tasktokens.methods.base import (
    FIRST_STEP,
    METHODS,
    PreparedBatch,
    Stage,
    StepOptions,
    label_counts,
    supervised_term,
)
from tasktokens.methods.image_noise import ImageNoise
from tasktokens.methods.mtl import Supervised
from tasktokens.models import TaskOutput
from tasktokens.models.backbones import recorded_maps
from tasktokens.models.joint import PairMapping
from tasktokens.models.layers import upsample
from tasktokens.tasks import Task


class MtpslMethod(MethodSettings):
    """Cross-task consistency in joint spaces of pairs of tasks (Li, Liu, Bilen, CVPR 2022)."""

    name: Literal["mtpsl"] = "mtpsl"
    steps: int = Field(1000, ge=1, description="updates of the weights")
    cross_task: float = Field(2.0, ge=0, description="weight of the cross-task loss; published: NYUD 2, Cityscapes 1")
    regularisation: float = Field(0.5, ge=0, description="in it, weight of each map's distance from image features")
    ramp: float = Field(0.5, ge=0, le=1, description="share of the steps over which it grows to its weight")
    mapping_lr: float = Field(1.0, gt=0, description="factor of optim.lr for the mapping network")
    mapping_width: int = Field(64, ge=8, le=1024, description="channels of the mapping network's first layers")


@dataclass(frozen=True)
class MtpslBatch(PreparedBatch):
    """A prepared batch with the noise of hard samples of classes."""

    noise: ImageNoise


@METHODS.register("mtpsl")
class Mtpsl(Supervised):
    """For every image, task s without a label and task t with one: both maps go to the joint space of (s, t).

    The loss is 1 - cos(m_s, m_t) + 0.5 (1 - cos(m_s, f)) + 0.5 (1 - cos(m_t, f)), where m_s comes from the prediction
    of s, m_t from the label of t and f is the image's feature, without gradient. One mapping network serves all pairs,
    with an input convolution of each task and layers that are conditioned on the ordered pair (FiLM). Classes enter
    as hard samples (Gumbel softmax with straight-through gradients), depth as a share of its maximum, normals as
    (n + 1) / 2 (`Task.label_map`). The weight grows linearly over half of the training.

    Source: Li, Liu, Bilen, *Learning Multiple Dense Prediction Tasks from Partially Annotated Data* (CVPR 2022,
    https://arxiv.org/abs/2111.14893). Written from the paper; no code of the authors is used.

    Deviations: maps are compared at half the size of the heads' output (an eighth of the image's), where the published
    network has them at full size, and only where the label is valid; the feature f is all four maps of the backbone,
    since ours has no single last one; scale and shift of a pair are parameters, not the output of a second network; the
    mapping network shares the schedule of the run (published: its own, lr 1e-3, halved every 30 epochs).
    """

    settings_class: ClassVar[type[MethodSettings]] = MtpslMethod

    def __init__(self, tasks: Mapping[str, Task], settings: MtpslMethod) -> None:
        super().__init__(tasks, settings)
        self.settings: MtpslMethod = settings
        self.mapping: PairMapping | None = None

    def stages(self) -> tuple[Stage, ...]:
        """A single stage."""
        return (Stage("mtpsl", self.settings.steps),)

    def begin(self, student: nn.Module) -> None:
        """Make the mapping network, for the channels of the student's backbone."""
        features = sum(student.backbone.channels)  # type: ignore[union-attr,arg-type]
        channels = [task.map_channels for task in self.tasks.values()]
        self.mapping = PairMapping(channels, features, self.settings.mapping_width)

    def state(self) -> nn.Module | None:
        """The mapping network."""
        return self.mapping

    @property
    def state_lr(self) -> float:
        """``mapping_lr``."""
        return self.settings.mapping_lr

    def prepare(self, batch: Batch, generator: torch.Generator, options: StepOptions = FIRST_STEP) -> MtpslBatch:
        """Draw the noise of class samples too."""
        first = super().prepare(batch, generator, options)
        return MtpslBatch(**vars(first), noise=ImageNoise.draw(generator, options.shard, len(batch.ids)))

    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        """Supervised terms, and of each task the distance of its predictions from the labels of others."""
        assert isinstance(prepared, MtpslBatch)
        with recorded_maps(student) as maps:
            outputs: dict[str, TaskOutput] = student(prepared.image)
        labels = prepared.batch.labels
        terms = [
            supervised_term(task, outputs[name].select(labels[name].rows), labels[name], prepared.sampler)
            for name, task in self.tasks.items()
        ]
        ramp = self.settings.ramp * self.settings.steps
        weight = self.settings.cross_task * min(1.0, (prepared.options.step + 1) / max(1.0, ramp))
        totals, pairs = self._distances(prepared, outputs, [x.detach() for x in maps]), self._pairs(prepared)
        count = torch.stack(list(pairs.values())).sum()
        return [*terms, *(Term(f"cross_task/{name}", weight, totals[name], count) for name in self.tasks)]

    def counts(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """Labelled pixels; and pairs of a missing and a given label of an image, of all tasks."""
        pairs = torch.stack(list(self._pairs(prepared).values())).sum()
        labelled = {f"loss/{name}": count for name, count in label_counts(prepared).items()}
        return labelled | {f"cross_task/{name}": pairs for name in self.tasks}

    def _pairs(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """For each task how many labels of other tasks there are for images that lack its own."""
        labels = prepared.batch.labels
        return {
            name: torch.stack([
                _lacking(labels[name].rows, other.rows).sum() for key, other in labels.items() if key != name
            ]).sum() if len(labels) > 1 else torch.zeros((), device=prepared.image.device)
            for name in labels
        }  # fmt: skip

    def _distances(
        self, prepared: MtpslBatch, outputs: Mapping[str, TaskOutput], features: list[Tensor]
    ) -> dict[str, Tensor]:
        """Of each task the sum over its pairs of the loss, each averaged over the valid positions."""
        assert self.mapping is not None
        labels, names = prepared.batch.labels, list(self.tasks)
        size = next(iter(outputs.values())).logits.shape[-2:]
        predicted = {name: self._sampled(prepared, name, outputs[name].logits) for name in names}
        given = {name: resize_labels(self.tasks[name], labels[name], (size[0], size[1])) for name in names}
        todo = [(s, t) for t in names if len(labels[t].rows) for s in names if s != t]
        totals = {name: outputs[name].logits.new_zeros(()) for name in names}
        if not todo:
            return totals
        maps = []
        for s, t in todo:
            value, valid = given[t]
            label = torch.where(valid, self.tasks[t].label_map(value), 0.0)
            maps += [(names.index(s), names.index(t), predicted[s][labels[t].rows]),
                     (names.index(t), names.index(s), label)]  # fmt: skip
        joint = self.mapping(maps)
        half = joint[0].shape[-2:]
        feature = torch.cat([upsample(x, half) for x in features], dim=1)
        for number, (s, t) in enumerate(todo):
            rows, valid = labels[t].rows, inside(given[t][1], half)
            loss = self._loss(joint[2 * number], joint[2 * number + 1], feature[rows])
            mean = torch.where(valid, loss, 0.0).sum((1, 2, 3)) / valid.sum((1, 2, 3)).clamp(min=1)
            totals[s] = totals[s] + (mean * _lacking(labels[s].rows, rows)).sum()
        return totals

    def _loss(self, of_s: Tensor, of_t: Tensor, feature: Tensor) -> Tensor:
        """The loss at each position, (n, 1, h, w)."""
        weight = self.settings.regularisation
        between = _distance(of_s, of_t)
        return between + weight * (_distance(of_s, feature) + _distance(of_t, feature))

    def _sampled(self, prepared: MtpslBatch, name: str, logits: Tensor) -> Tensor:
        """The predicted map (B, E, h, w); classes are sampled, with the gradient of their probabilities."""
        task = self.tasks[name]
        if task.class_names() is None:
            return task.prediction_map(logits)
        shape = (logits.shape[1], logits.shape[2], logits.shape[3])
        soft = F.softmax(logits + prepared.noise.gumbel(list(self.tasks).index(name), shape, logits.device), dim=1)
        hard = torch.zeros_like(soft).scatter_(1, soft.argmax(dim=1, keepdim=True), 1.0)
        return hard + soft - soft.detach()


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """One minus the cosine at each position, (n, 1, h, w)."""
    return 1 - F.cosine_similarity(one.float(), other.float(), dim=1).unsqueeze(1)


def _lacking(have: Tensor, rows: Tensor) -> Tensor:
    """For each of ``rows`` (n,) 1.0 where it is none of ``have``; nothing waits for the device."""
    return (~torch.isin(rows, have)).float()
