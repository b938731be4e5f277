"""A trained model applied to images of any size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tasktokens.data.transforms import resize_image
from tasktokens.discovery.pseudo_labels import forward_views
from tasktokens.discovery.views import AS_IT_IS, VIEW_ZOOM, Views, parse_views, second_view, views_by_task
from tasktokens.errors import ConfigError
from tasktokens.inference.file_network import load_network
from tasktokens.inference.results import Prediction
from tasktokens.models.decoding import decode_bands, decode_with_confidence_at
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.utils.file_kinds import is_exported
from tasktokens.utils.resizing import working_size


class Asked(NamedTuple):
    """What a network says of one image.

    Attributes:
        logits: (1, K, h, w) of every task.
        disagreement: of each task with several views, see `forward_views`.
    """

    logits: dict[str, Tensor]
    disagreement: Mapping[str, float]


class Predictor:
    """The network of a model, applied to arrays; `tasktokens.inference.model.Model` takes images of any kind.

    The image is resized, keeping its shape, to about as many pixels as the training images had; predictions come back
    at the image's own size.

    Args:
        path: a run, the model folder in it, or an exported file, which is computed on the CPU.
        device: such as ``cpu`` or ``cuda:1``; default: the GPU, where there is one.
        views: 2: the mean of an image and its mirror image, enlarged by a quarter. More accurate, 2.6 times as slow.
            Or a list of (zoom, mirrored), or such a list by task (`tasktokens.discovery.views`).
            Enlarged only, and no more than training images were, where those were not mirrored (`ModelInfo`).
        batch_size: how many images of one size streams of images compute at once. Default: 16 on a GPU; 1 on a CPU,
            where more is no faster unless images are small, and differs by the rounding of float32.

    Raises:
        ConfigError: another number of views, a batch size below 1, or a device that is not there.
        CheckpointError: no model there.
    """

    def __init__(
        self,
        path: str | Path,
        device: torch.device | str | None = None,
        views: int | Views = 1,
        batch_size: int | None = None,
    ) -> None:
        if isinstance(views, int) and views not in (1, 2):
            raise ConfigError(f"views must be 1 or 2, or a list of them, found {views!r}")
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, found {batch_size}")
        if is_exported(path):
            if isinstance(device, str) and device != "cpu":  # somebody asked for it
                raise ConfigError(
                    f"exported models are computed on the CPU here, found device '{device}'; leave it out"
                )
            device = "cpu"
        self.device = _device(device)
        self.batch_size = batch_size or (1 if self.device.type == "cpu" else 16)
        self.network, self.info = load_network(path, self.device, folded=True)
        self.views = self._views(views)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks that the model predicts, by name."""
        return self.info.tasks

    @property
    def views_by_task(self) -> dict[str, list[list[float | bool]]]:
        """How each task's images are seen, as plain values."""
        return {name: [[*view] for view in own] for name, own in views_by_task(self.views, self.tasks, ()).items()}

    @property
    def zoom(self) -> float:
        """By how much a second view is enlarged: where it is no mirror image, it must at least be of a size seen."""
        seen = self.info.largest_zoom
        return VIEW_ZOOM if self.info.mirrored or seen is None else min(VIEW_ZOOM, max(1.0, seen))

    def _views(self, views: int | Views) -> Views:
        if isinstance(views, int):
            return (AS_IT_IS,) if views == 1 else second_view(self.zoom)
        try:
            return parse_views(views)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def __call__(self, image_HW3: Array) -> dict[str, Prediction]:
        """Predict all tasks of one uint8 RGB image."""
        return self.batch([image_HW3])[0]

    def batch(self, images_HW3: Sequence[Array]) -> list[dict[str, Prediction]]:
        """Predict all tasks of uint8 RGB images; those that the network sees at one size go through it together."""
        logits = self.logits([self.prepare(image) for image in images_HW3])
        sizes = [(image.shape[0], image.shape[1]) for image in images_HW3]
        return [self.decode(of_image, size) for of_image, size in zip(logits, sizes, strict=True)]

    def prepare(self, image_HW3: Array) -> Tensor:
        """What the network gets to see of an image: (1, 3, h, w) uint8 at the working size, on its device."""
        image = torch.from_numpy(np.require(image_HW3, requirements=["C", "W"])).permute(2, 0, 1)
        resized = resize_image(image, working_size((image_HW3.shape[0], image_HW3.shape[1]), self.info.size))
        return resized.contiguous()[None].to(self.device)

    @torch.no_grad()  # not inference_mode: bin centres are cached, and training after it would get such tensors
    def logits(self, seen_13hw: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """For each image that was prepared the logits (1, K, h, w) of every task; those of one size together."""
        return [asked.logits for asked in self.ask(seen_13hw, compare=False)]

    @torch.no_grad()
    def ask(self, seen_13hw: Sequence[Tensor], compare: bool = True) -> list[Asked]:
        """As `logits`; with ``compare`` also how far the views disagree."""
        found: dict[int, Asked] = {}
        for size in dict.fromkeys(image.shape for image in seen_13hw):
            rows = [row for row, image in enumerate(seen_13hw) if image.shape == size]
            image_B3hw = torch.cat([seen_13hw[row] for row in rows])
            differ: dict[str, Tensor] | None = {} if compare else None
            outputs = forward_views(self.tasks, self.network, image_B3hw, self.views, self.info.mirrored, differ)
            shares = {name: share.tolist() for name, share in (differ or {}).items()}
            for number, row in enumerate(rows):
                logits = {name: output.logits[number : number + 1] for name, output in outputs.items()}
                found[row] = Asked(logits, {name: share[number] for name, share in shares.items()})
        return [found[row] for row in range(len(seen_13hw))]

    def decode(self, logits_1Khw: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Prediction]:
        """Predictions at (height, width) from the logits of the tasks for one image."""
        return {name: self.decode_task(name, logits_1Khw[name], size) for name in self.tasks}

    @torch.no_grad()
    def decode_bands(self, name: str, logits_1Khw: Tensor, size: tuple[int, int]) -> Iterator[Prediction]:
        """The prediction of one task from top to bottom: of a photograph it fills hundreds of MB."""
        for band in decode_bands(self.tasks[name], logits_1Khw, size):
            yield Prediction(self.tasks[name], band.value_CnW.cpu().numpy(), band.confidence_nW.cpu().numpy())

    @torch.no_grad()
    def decode_task(self, name: str, logits_1Khw: Tensor, size: tuple[int, int]) -> Prediction:
        """The prediction of one task."""
        value, confidence = decode_with_confidence_at(self.tasks[name], logits_1Khw, size)
        return Prediction(self.tasks[name], value.cpu().numpy(), confidence.cpu().numpy())


def _device(device: torch.device | str | None) -> torch.device:
    """The device that is meant. Raises `ConfigError` where it is not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ConfigError(f"device '{device}' cannot be used ({reason}); give cpu, or leave it out") from error
    return found
