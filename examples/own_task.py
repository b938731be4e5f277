"""A kind of task of your own: a temperature per pixel. ``python examples/own_task.py``

What a task must say is what is here: its files, its loss, how logits become a value and a confidence, and its metric.
Whatever is not here (networks, methods, discovery, tables) treats it like any other.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import tasktokens
from tasktokens.errors import LabelError
from tasktokens.losses import masked_loss
from tasktokens.metrics import METRICS, Metric
from tasktokens.tasks import KINDS, Task
from tasktokens.tasks.base import Array
from tasktokens.utils.colours import colour_map


@METRICS.register("heat")
class HeatError(Metric):
    """Mean absolute error in kelvin."""

    higher_is_better = {"heatErr": False}  # noqa: RUF012
    units = {"heatErr": "K"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__(2)

    @property
    def primary(self) -> str:
        return "heatErr"

    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        error = torch.where(valid_B1HW, prediction_BCHW.double() - target_BCHW.double(), 0.0).abs()
        return torch.stack([error.sum(), valid_B1HW.sum().double()])

    def compute(self) -> dict[str, float]:
        return {"heatErr": (self.state[0] / self.state[1]).item()}


@KINDS.register("heat")  # from here on a dataset.yaml may say `kind: heat`
@dataclass(frozen=True)
class Heat(Task):
    """A temperature in kelvin: the first logit is the value, the second the log of how unsure it is."""

    threshold: float = 0.3
    kind = "heat"
    neutral = (300.0,)
    confidence_weighted = True

    @property
    def num_tokens(self) -> int:
        return 2

    def spec(self) -> dict[str, object]:
        return {"kind": self.kind}

    def read(self, path: Path) -> tuple[Array, Array]:
        if path.suffix != ".npy":
            raise LabelError(f"label file {path} of task '{self.name}' must be an .npy of kelvin, NaN where void")
        plane = np.load(path, allow_pickle=False)
        valid = np.isfinite(plane)
        return np.where(valid, plane, 300).astype(np.float32)[None], valid

    def write(self, path: Path, value_CHW: Array, valid_HW: Array | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        plane = value_CHW[0] if valid_HW is None else np.where(valid_HW, value_CHW[0], np.nan)
        np.save(path.with_suffix(".npy"), plane.astype(np.float32))

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        colours = colour_map((value_CHW[0] - 250) / 100)
        return colours if valid_HW is None else np.where(valid_HW[..., None], colours, np.uint8(0))

    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        return (self.decode(logits_BKHW) - target_BCHW).abs() / 50 + 0.1 * logits_BKHW[:, 1:2] ** 2

    def decode(self, logits_BKHW: Tensor) -> Tensor:
        return 300 + 50 * logits_BKHW[:, 0:1].float()

    def confidence(self, logits_BKHW: Tensor) -> Tensor:
        return (-logits_BKHW[:, 1:2].float()).sigmoid()

    def correct(self, prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        return (prediction_BCHW - target_BCHW).abs() < 5

    def metric(self) -> HeatError:
        return HeatError()


if __name__ == "__main__":
    torch.manual_seed(0)
    network = tasktokens.create_model("htt", {"heat": {"kind": "heat"}}, backbone="test_resnet", width=16)
    task, optimizer = network.tasks["heat"], torch.optim.Adam(network.parameters(), lr=3e-3)
    images = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    kelvin, valid = torch.full((2, 1, 32, 48), 350.0), torch.ones(2, 1, 32, 48, dtype=torch.bool)
    for step in range(40):
        logits = network(images)["heat"].logits_at((32, 48))
        total, count = masked_loss(task, logits, kelvin, valid)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        if step % 13 == 0:
            print(f"step {step}: {(task.decode(logits) - kelvin).abs().mean():.1f} K off")
