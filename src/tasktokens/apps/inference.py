"""A trained model applied to images of any size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from tasktokens.engine.model_file import load_model
from tasktokens.models.layers import upsample
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array

_LARGEST = 2_000_000  # pixels at which logits are decoded; K maps of a large photograph would fill the memory


@dataclass(frozen=True)
class Prediction:
    """One task of one image: value (C, H, W) in the task's units, confidence (H, W) in [0, 1]."""

    value: Array
    confidence: Array

    def sure(self, task: Task) -> Array:
        """Pixels (H, W) bool whose confidence exceeds the task's threshold."""
        above: Array = self.confidence > task.threshold
        return above


class Predictor:
    """Loads a model once and predicts image by image.

    The image is resized, keeping its shape, to about as many pixels as the training images had; predictions come back
    at the image's own size.

    Args:
        path: a run, or the model folder in it.
    """

    def __init__(self, path: Path) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network, self.info = load_model(path, self.device)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks that the model predicts, by name."""
        return self.info.tasks

    @torch.inference_mode()
    def __call__(self, image_HW3: Array) -> dict[str, Prediction]:
        """Predict all tasks of one uint8 RGB image."""
        size = (image_HW3.shape[0], image_HW3.shape[1])
        image = torch.from_numpy(image_HW3.transpose(2, 0, 1).copy())[None].to(self.device)
        resized = F.interpolate(image.float(), working_size(size, self.info.size), mode="bilinear", antialias=True)
        shrink = min(1.0, math.sqrt(_LARGEST / (size[0] * size[1])))
        decoded = (max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink)))
        outputs = self.network(resized.round().clamp(0, 255))
        predictions = {}
        for name, task in self.tasks.items():
            logits = upsample(outputs[name].logits.float(), decoded)
            value, confidence = task.decode(logits)[0].cpu(), task.confidence(logits)[0].cpu()
            if decoded != size:
                value = task.resize(value, torch.ones(1, *decoded, dtype=torch.bool), size)[0]
                confidence = upsample(confidence[None], size)[0]
            predictions[name] = Prediction(value.numpy(), confidence[0].numpy())
        return predictions


def working_size(image: tuple[int, int], trained: tuple[int, int]) -> tuple[int, int]:
    """Size of the image's shape with about the training images' area, in multiples of 32 (the coarsest stride)."""
    factor = math.sqrt(trained[0] * trained[1] / (image[0] * image[1]))
    height, width = (max(32, round(side * factor / 32) * 32) for side in image)
    return height, width
