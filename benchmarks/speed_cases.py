"""What `speed.py` times: networks, the bare backbone, training steps of either stage, and a large convolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from flops import TASKS
from tasktokens.config import Config
from tasktokens.data.sample import Batch, Label, Sample, collate
from tasktokens.data.soft_labels import SoftLabels
from tasktokens.methods import Method, StepOptions, build_method
from tasktokens.models import NETWORKS, Network, Rows, TaskOutput
from tasktokens.models.backbones import Backbone
from tasktokens.models.files import ModelInfo
from tasktokens.models.fold import fold_batch_norms
from tasktokens.models.layers import Design
from tasktokens.tasks import Task, build_task
from tasktokens.training.nan_guard import finite_guard
from tasktokens.training.optim import make_optimizer
from tasktokens.training.step import Step
from tasktokens.utils.distributed import start, training_precision

Do = Callable[[], object]

HTT = {"name": "htt", "stage1_steps": 1000, "stage2_steps": 1000}
LIVE = HTT | {"teacher": "live", "views": [[1, False]], "token_level": 0.1}
METHODS = {"htt": HTT, "paper": LIVE, "mtl": {"name": "mtl"}, "deeplab": {"name": "mtl"}}
"""By variant; the first two have a second stage."""

CONVOLUTION = (256, 256, 3, 64)
"""Channels in and out, kernel, side of the large convolution whose speed is the ceiling."""


@dataclass(frozen=True)
class Case:
    """One network at one size."""

    variant: str
    backbone: str
    size: tuple[int, int]
    tasks: int
    batch: int
    device: str
    precision: str

    @property
    def two_stages(self) -> bool:
        """Whether its method has a second stage."""
        return METHODS[self.variant]["name"] == "htt"


@NETWORKS.register("deeplab")
class SharedDeepLab(Network):
    """What is quickly written with torchvision: a DeepLab v3 head per task on the backbone's last map, at stride 16."""

    def __init__(self, tasks: Mapping[str, Task], backbone: Backbone, design: Design) -> None:
        super().__init__(tasks)
        self.backbone = backbone
        self.heads = nn.ModuleDict(
            {name: DeepLabHead(backbone.channels[-1], task.num_tokens) for name, task in tasks.items()}
        )

    def forward(self, image_B3HW: Tensor, rows: Rows | None = None) -> dict[str, TaskOutput]:
        """As `Network.forward`; a head computes all images whatever ``rows`` says."""
        last = self.backbone(image_B3HW)[-1]
        outputs = {}
        for name, head in self.heads.items():
            output = TaskOutput(head(last).float(), last)
            outputs[name] = output if rows is None else output.select(rows[name])
        return outputs


class Recorded(nn.Module):
    """A teacher whose outputs were computed before: the second stage without a teacher's forward pass."""

    def __init__(self, outputs: dict[str, TaskOutput]) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, image_B3HW: Tensor) -> dict[str, TaskOutput]:
        """The outputs, whatever the images."""
        return self.outputs


class Workload:
    """All that is done with one network, on random images that lie on the device; each image has one label."""

    def __init__(self, case: Case) -> None:
        variant = "paper" if case.variant == "paper" else "htt"
        self.config = Config.model_validate(
            {
                "model": {"variant": variant, "backbone": case.backbone, "pretrained": False},
                "method": METHODS[case.variant],
                "optim": {"loss_stride": 2},
                "run": {"precision": case.precision, "device": case.device},
            }
        )
        self.accelerator = start(self.config.run, training_precision(self.config.run))
        self.case, self.tasks = case, tasks(case.tasks)
        torch.manual_seed(0)
        self.batch = random_batch(self.tasks, case.batch, case.size).to(self.accelerator.device)

    def network(self) -> Network:
        """A new one, on the device."""
        kind = "htt" if self.case.two_stages else self.case.variant
        network = ModelInfo(kind, self.config.model, self.tasks, self.case.size).build()
        if self.case.variant == "deeplab":
            network.backbone.network = dilated(self.case.backbone)  # type: ignore[union-attr]
        return network.to(self.accelerator.device)

    def predict(self) -> Do:
        """A forward pass with batch norms folded, to logits at the heads' size."""
        return self._forward(fold_batch_norms(self.network().eval()))

    def predict_backbone(self) -> Do:
        """The same of the backbone alone."""
        backbone = nn.Sequential(Backbone(self.case.backbone)).to(self.accelerator.device).eval()
        return self._forward(fold_batch_norms(backbone.to(memory_format=torch.channels_last)))

    def _forward(self, network: nn.Module) -> Do:
        @torch.no_grad()
        def do() -> object:
            with self.accelerator.autocast():
                return network(self.batch.image)

        return do

    def step(self, discovery: bool) -> Do:
        """A step of the first stage, or of the second with what the teacher found computed before."""
        network = self.network()
        method: Method = build_method(self.config.method, self.tasks)
        if (state := method.state()) is not None:
            state.to(self.accelerator.device)
        teacher, batch, once = None, self.batch, method.stages()[-1].discovered
        if discovery:
            with torch.no_grad():
                outputs = self.network().eval()(batch.image)
            teacher = None if once else Recorded(outputs)
            batch = replace(batch, discovered=discovered(batch, outputs)) if once else batch
        optimizer = make_optimizer(network, self.config.optim)
        prepared, stepper = self.accelerator.prepare(network, optimizer)
        guard = finite_guard(optimizer, network, self.accelerator)
        step = Step(method, self.accelerator, prepared, stepper, guard, self.config.optim.clip)
        options = StepOptions(500, teacher is not None, 0.3, loss_stride=2, discovered=discovery and once)

        def do() -> object:
            return step([method.prepare(batch, torch.Generator().manual_seed(0), options)], teacher)

        return do

    def step_backbone(self) -> Do:
        """A forward and backward pass and an update of the backbone alone."""
        backbone = Backbone(self.case.backbone).to(self.accelerator.device, memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(backbone.parameters(), fused=True)

        def do() -> object:
            with self.accelerator.autocast():
                loss = torch.stack([x.float().mean() for x in backbone(self.batch.image)]).sum()
            loss.backward()
            nn.utils.clip_grad_norm_(backbone.parameters(), self.config.optim.clip)
            optimizer.step()
            optimizer.zero_grad()
            return None

        return do


def discovered(batch: Batch, outputs: Mapping[str, TaskOutput]) -> dict[str, SoftLabels]:
    """What a teacher that was asked once says of the images without a label."""
    return {
        name: SoftLabels(labels.absent, outputs[name].logits[labels.absent].half())
        for name, labels in batch.labels.items()
    }


def dilated(backbone: str) -> nn.Module:
    """The backbone's network at stride 16."""
    import timm

    return timm.create_model(backbone, features_only=True, out_indices=(-4, -3, -2, -1), output_stride=16)


def convolution(accelerator: Accelerator, batch: int) -> Do:
    """A large convolution."""
    inputs, outputs, kernel, side = CONVOLUTION
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2).to(accelerator.device)
    layer = layer.to(memory_format=torch.channels_last)
    x = torch.randn(batch, inputs, side, side, device=accelerator.device).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def do() -> object:
        with accelerator.autocast():
            return layer(x)

    return do


def tasks(count: int) -> dict[str, Task]:
    """The three tasks of the published setting, over and over under other names."""
    kinds = list(TASKS.items())
    chosen = [kinds[number % len(kinds)] for number in range(count)]
    return {
        (name if number < len(kinds) else f"{name}{number}"): build_task(name, spec)
        for number, (name, spec) in enumerate(chosen)
    }


def random_batch(tasks: Mapping[str, Task], images: int, size: tuple[int, int]) -> Batch:
    """Images of noise, each with a label of one task that is valid everywhere."""
    names, samples = list(tasks), []
    valid = torch.ones(1, *size, dtype=torch.bool)
    for number in range(images):
        name = names[number % len(names)]
        value = torch.rand(tasks[name].label_channels, *size) + 1
        image = torch.randint(256, (3, *size), dtype=torch.uint8)
        samples.append(Sample(str(number), image, valid, {name: Label(value, valid)}))
    return collate(samples, {name: task.label_channels for name, task in tasks.items()})
