"""A trained model applied to images of any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tasktokens.data.transforms import resize_image, working_size
from tasktokens.discovery.pseudo_labels import VIEW_ZOOM, forward_views
from tasktokens.errors import ConfigError
from tasktokens.models.decoding import full_logits
from tasktokens.models.files import load_model
from tasktokens.models.layers import upsample
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array


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
        device: default: the GPU, where there is one.
        views: 2: the mean of an image and its mirror image, enlarged by a quarter. Surer, in 2.6 times the time.

    Raises:
        ConfigError: another number of views. CheckpointError: no model there.
    """

    def __init__(self, path: Path, device: torch.device | None = None, views: int = 1) -> None:
        if views not in (1, 2):
            raise ConfigError(f"an image can be looked at with 1 or 2 views, found views={views!r}")
        self.views = views
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network, self.info = load_model(path, self.device)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks that the model predicts, by name."""
        return self.info.tasks

    @torch.no_grad()  # not inference_mode: bin centres are cached, and training after it would get such tensors
    def __call__(self, image_HW3: Array) -> dict[str, Prediction]:
        """Predict all tasks of one uint8 RGB image."""
        outputs = forward_views(self.tasks, self.network, self.prepare(image_HW3), self.views, VIEW_ZOOM)
        size = (image_HW3.shape[0], image_HW3.shape[1])
        return self.decode({name: output.logits for name, output in outputs.items()}, size)

    def prepare(self, image_HW3: Array) -> Tensor:
        """What the network gets to see of an image: (1, 3, h, w) uint8 at the working size, on its device."""
        image = torch.from_numpy(image_HW3.copy()).permute(2, 0, 1)
        resized = resize_image(image, working_size((image_HW3.shape[0], image_HW3.shape[1]), self.info.size))
        return resized.contiguous()[None].to(self.device)

    @torch.no_grad()
    def decode(self, logits_1Khw: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Prediction]:
        """Predictions at (height, width) from the logits of the tasks for one image."""
        predictions = {}
        for name, task in self.tasks.items():
            logits = full_logits(logits_1Khw[name], size)
            value, confidence = task.decode(logits)[0].cpu(), task.confidence(logits)[0].cpu()
            value = task.resize(value, torch.ones_like(value[:1], dtype=torch.bool), size)[0]
            confidence = upsample(confidence[None], size)[0]
            predictions[name] = Prediction(value.numpy(), confidence[0].numpy())
        return predictions
