"""What is predicted: a task is a value that knows its files, geometry, loss, decoding, confidence and metrics.

Everything outside ``tasks/`` treats all tasks alike. Shape legend, used as suffixes throughout the package:
``B`` batch, ``C`` channels, ``H W`` height and width, ``T`` tasks, ``K`` fine-grained tokens, ``D`` token width,
``N`` positions of a sequence.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.metrics.base import Metric
from tasktokens.registry import Registry
from tasktokens.tasks.examine import Summary, Sums, Suspicion
from tasktokens.tasks.files import in_bands, write_stored
from tasktokens.tasks.names import check_task_name
from tasktokens.tasks.stored import StoredLabel, read_stored
from tasktokens.utils.label_maps import LabelMaps
from tasktokens.utils.legends import Colour, Legend

Array = npt.NDArray[Any]

MAX_TOKENS = 4096
"""Largest number of tokens of a task: far above what is useful, so that a typing error does not exhaust the memory."""

TRAINING = ("weight", "threshold", "discovered_weight")
"""Settings of every task that say how it is learned and discovered, not what it is."""


@dataclass(frozen=True)
class Task(ABC):
    """A dense prediction task.

    Attributes:
        name: the name in configurations, folders and tables, such as ``semseg``.
        weight: factor of the task's losses in the total loss.
        threshold: confidence in [0, 1] that a discovered pixel must exceed to supervise the student.
        discovered_weight: factor of the loss on discovered labels, beside ``weight``.

    Raises `ConfigError` for a name that is reserved or could not be a folder's.

    Examples:
        >>> from tasktokens.tasks import build_task
        >>> task = build_task("height", {"kind": "depth", "range": [1, 4], "bins": 3})
        >>> logits = torch.tensor([0.0, 50.0, 0.0]).view(1, 3, 1, 1)
        >>> round(task.decode(logits).item(), 2), round(task.confidence(logits).item(), 2)
        (2.0, 1.0)
    """

    name: str
    weight: float = 1.0
    threshold: float = 0.9
    discovered_weight: float = 1.0

    kind: ClassVar[str]
    """Name of the task kind in a ``dataset.yaml`` and in the registry."""
    label_channels: ClassVar[int] = 1
    """C of label maps (C, H, W)."""
    neutral: ClassVar[tuple[float, ...]] = (0.0,)
    """Per label channel, a value that is safe in every formula; it replaces invalid targets before the loss."""
    pipeline_tag: ClassVar[str] = "image-to-image"
    """What the Hugging Face Hub calls such a prediction, for cards."""
    storage: ClassVar[tuple[str, ...]] = ()
    """Fields that only say how label files are stored."""

    def __post_init__(self) -> None:
        check_task_name(self.name)

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """K: the number of fine-grained tokens, which is the number of logits per pixel."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """The plain values that `tasktokens.tasks.build_task` needs to make this task again."""

    def training(self) -> dict[str, float]:
        """How the task is learned and discovered, which `spec` leaves out: `TRAINING` by name."""
        return {name: getattr(self, name) for name in TRAINING}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Turn the settings of a ``dataset.yaml`` (what `spec` returns) into this class's fields.

        Raises `ConfigError` for an unknown setting, `KeyError`, `TypeError` or
        `ValueError` for a missing or malformed one.
        """
        known_keys(values)
        return {}

    def validate(self) -> str | None:
        """What is wrong with the task's own values, for `build_task`; values of another type raise `TypeError`."""
        for name, value in self.training().items():
            if not is_number(value):
                return f"{name} must be a number, found {value!r}"
        for name in ("weight", "discovered_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                return f"{name} must be finite and not negative, found {getattr(self, name)}"
        if self.num_tokens > MAX_TOKENS:
            return f"at most {MAX_TOKENS} bins, centres or classes, found {self.num_tokens}"
        return None if 0 <= self.threshold <= 1 else f"threshold must be from 0 to 1, found {self.threshold}"

    def predicts_like(self, other: Task) -> bool:
        """Whether the two tasks mean the same prediction, however their label files are stored."""
        stored_as = {field: getattr(self, field) for field in self.storage}
        return type(self) is type(other) and self == replace(other, **stored_as)

    # -- several data sets, and labels that leave something open ---------------------------------------------------
    def join(self, parts: Mapping[str, Task]) -> Joined:
        """One task for those of several data sets that have its name, by data set. Raises `ConfigError`."""
        first = next(iter(parts.values()))
        for part, task in parts.items():
            if not task.predicts_like(first):
                raise ConfigError(
                    f"task '{self.name}' of part '{part}' is {task.spec()}, of another part {first.spec()}; "
                    f"rename one of them, such as tasks: {{{self.name}: {part}_{self.name}}}"
                )
        return Joined(first)

    def coded_as(self, data: Task) -> Task:
        """This task, for labels that another description of the same task has read."""
        return self

    def for_labelled(self, sets: Sequence[Sequence[str]]) -> Task:
        """The task of images of which some are labelled for a part of its classes. Raises `ConfigError`."""
        raise ConfigError(
            f"task '{self.name}' is of kind {self.kind}: 'labelled' names classes, which it does not have"
        )

    def reading(self, names: Sequence[str]) -> Task:
        """The task for label files in which only these classes were labelled; none: all were."""
        return self

    def open_pixels(self, value_CHW: Array) -> Array:
        """Where a label says only what a pixel is not, (H, W) bool; see ``labelled`` of tasks with classes."""
        return np.zeros(value_CHW.shape[1:], bool)

    def restrict(self, logits_BKHW: Tensor, labelled: Sequence[str]) -> Tensor:
        """Logits of pixels that are of none of these classes."""
        return logits_BKHW

    def labelled_names(self) -> tuple[str, ...]:
        """The classes that were labelled in the files that `read` gets; none: all were."""
        return ()

    # -- files -----------------------------------------------------------------------------------------------------
    def read(self, path: Path) -> tuple[Array, Array]:
        """Read a label file: value (C, H, W) and valid (H, W) bool. Raises `LabelError` on bad values."""
        return self.interpret(read_stored(path, self.name))

    def interpret(self, stored: StoredLabel) -> tuple[Array, Array]:
        """What a label file means: value (C, H, W) and valid (H, W) bool. Raises `LabelError` on bad values.

        A task of files that are neither pictures nor arrays implements `read` instead.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement 'interpret', or 'read'")

    def write(self, path: Path, value_CHW: Array, valid_HW: Array | None = None) -> None:
        """Write a label file in the format that `read` takes; pixels that are not valid become void."""
        write_stored(path, in_bands(self.encode, value_CHW, valid_HW))

    def encode(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """What `write` stores of a label, or of some of its rows: integers for a PNG, float32 (H, W) for npy.

        A kind of task has this, or a `write` of its own.
        """
        raise NotImplementedError(f"{type(self).__name__} must have 'encode' or 'write'")

    def storable(self) -> Task:
        """The task with file settings (a scale) under which `write` holds every label in its range."""
        return self

    def read_back(self, path: Path) -> tuple[Array | None, Array | None]:
        """`read`, of a file that might not hold all that was written into it; None, None of others."""
        return (None, None) if self.storable() == self else self.read(path)

    @abstractmethod
    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """A picture (H, W, 3) uint8 of a label or prediction; void is black."""

    def maps(self) -> LabelMaps | None:
        """How maps are drawn and stored, as plain values; None: an exported model gives the values alone."""
        return None

    def legend(self, value_CHW: Array | None = None) -> Legend:
        """What the colours of `colourise` mean; of a label with many classes, those of the classes in it."""
        maps = self.maps()
        if maps is None:
            return Legend(self.name)
        return maps.legend(self.name, value_CHW, self.class_names() or (), self.unit)

    @property
    def unit(self) -> str:
        """Unit of the values, such as ``m``; none for classes, unit vectors and probabilities."""
        return ""

    def value_text(self, value_C: Array) -> str:
        """The value of one pixel (C,) for a person, with its unit or the name of its class.

        Examples:
            >>> from tasktokens.tasks import build_task
            >>> build_task("depth", {"kind": "depth", "range": [0.5, 10]}).value_text(np.array([2.345]))
            '2.35 m'
            >>> build_task("pets", {"kind": "classes", "classes": ["cat", "dog"]}).value_text(np.array([1]))
            'dog'
        """
        return f"{', '.join(f'{value:.3g}' for value in value_C.tolist())} {self.unit}".strip()

    def stored_classes(self) -> tuple[tuple[str, str, Colour], ...]:
        """For each class what label files store for it, its name, and its colour in pictures; none without classes."""
        return ()

    # -- checking --------------------------------------------------------------------------------------------------
    def examine(self, value_CHW: Array, valid_HW: Array) -> dict[str, Array]:
        """Statistics of one label that can be added over all labels; `summarise` takes the totals."""
        return {}

    def examine_stored(self, stored: StoredLabel) -> dict[str, Array]:
        """More such sums, of what a label file stores and `interpret` changes, under other keys."""
        return {}

    def summarise(self, sums: Sums) -> Summary:
        """What the totals of `examine` and `examine_stored` over a data set show; called where there is a label."""
        return Summary()

    def mirror_suspicions(self) -> Sequence[Suspicion]:
        """Settings under which mirrored training images would have wrong labels."""
        return ()

    def seen(self, sums: Sums) -> dict[str, int]:
        """Pixels of each class (of yes and no) in the totals of `examine`; none for tasks without classes."""
        return {}

    # -- geometry --------------------------------------------------------------------------------------------------
    def resize(self, value_CHW: Tensor, valid_1HW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Resize a label map, uint8 or floats, to (height, width); nearest pixel, since labels must not be mixed."""
        if tuple(value_CHW.shape[-2:]) == size:
            return value_CHW, valid_1HW
        # Twice as fast as indexing; ``nearest-exact`` goes by pixel centres.
        value = F.interpolate(value_CHW[None], size, mode="nearest-exact")[0]
        return value, F.interpolate(valid_1HW[None].view(torch.uint8), size, mode="nearest-exact")[0].view(torch.bool)

    def flip(self, value_CHW: Tensor) -> Tensor:
        """Mirror a label map left to right, values included."""
        return value_CHW.flip(-1)

    def flip_logits(self, logits_BKHW: Tensor) -> Tensor:
        """Logits of a mirrored image, brought back: decoding them gives the prediction for the image itself."""
        return logits_BKHW.flip(-1)

    @property
    def mirror_changes_meaning(self) -> bool:
        """Whether the features of an image and of its mirror image mean different labels and have no common mean."""
        return False

    def zoom(self, value_CHW: Tensor, scale: float) -> Tensor:
        """Change values for an image magnified by ``scale`` (only distances change)."""
        return value_CHW

    def zoom_logits(self, logits_BKHW: Tensor, scale: float) -> Tensor:
        """Logits of an image magnified by ``scale``, brought back: the reverse of `zoom`."""
        return logits_BKHW

    def crop_ok(self, value_CHW: Tensor, valid_1HW: Tensor, share: float) -> bool:
        """Whether a crop shows enough of the label: no class covers more than ``share`` of its valid pixels."""
        return True

    def widened(self, scale: tuple[float, float]) -> Task:
        """The task able to express every label after zooming by a factor in ``scale``."""
        return self

    # -- for networks that read labels -----------------------------------------------------------------------------
    @property
    def map_channels(self) -> int:
        """E: channels of `label_map`."""
        return self.label_channels

    def label_map(self, value_BCHW: Tensor) -> Tensor:
        """Labels as floats (B, E, H, W) in about [0, 1], which discriminators and mappings between tasks read."""
        return value_BCHW.float()

    def prediction_map(self, logits_BKHW: Tensor) -> Tensor:
        """The prediction in the form of `label_map`, (B, E, H, W), differentiable: classes as probabilities."""
        return self.label_map(self.decode(logits_BKHW))

    # -- learning --------------------------------------------------------------------------------------------------
    @abstractmethod
    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Loss of each pixel (B, 1, H, W); the target is finite and in range everywhere."""

    def pixel_weight(self, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor | None:
        """Weight of each pixel (B, 1, H, W) in the supervised loss, or None for 1 everywhere."""
        return None

    @abstractmethod
    def decode(self, logits_BKHW: Tensor) -> Tensor:
        """Logits to the prediction (B, C, H, W), in the units of the labels; each pixel by itself."""

    @abstractmethod
    def confidence(self, logits_BKHW: Tensor) -> Tensor:
        """Confidence of the prediction, (B, 1, H, W) in [0, 1]; each pixel by itself."""

    def decode_with_confidence(self, logits_BKHW: Tensor) -> tuple[Tensor, Tensor]:
        """`decode` and `confidence`; a task that takes both from one softmax computes it once."""
        return self.decode(logits_BKHW), self.confidence(logits_BKHW)

    continuous: ClassVar[bool] = False
    """Whether the mean of two predictions is one too, so that a map of them may be enlarged (`enlarge`)."""

    def enlarge(self, prediction_CHW: Tensor, size: tuple[int, int]) -> Tensor:
        """A map of predictions at a larger (height, width), bilinear; for tasks that are `continuous`."""
        return F.interpolate(prediction_CHW[None], size, mode="bilinear", align_corners=False)[0]

    unit_length: ClassVar[bool] = False
    """Whether the values are vectors of length 1, and are so again after being enlarged."""

    @abstractmethod
    def correct(self, prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Where a prediction counts as right, (B, 1, H, W) bool; the confidence estimates how likely that is."""

    def difference(self, first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
        """How far two predictions are apart, (B, 1, H, W) in `difference_unit`: the absolute difference."""
        return (first_BCHW.float() - second_BCHW.float()).abs().mean(dim=1, keepdim=True)

    @property
    def difference_unit(self) -> str:
        """Unit of `difference`, for tables."""
        return ""

    def paper_confidence(self, logits_BKHW: Tensor) -> Tensor:
        """The confidence of HTT as published (section 3.3 and the release), where it differs from ours."""
        return self.confidence(logits_BKHW)

    has_distribution: ClassVar[bool] = True
    """Whether the softmax of the K logits is a distribution over classes, bins or centres, which can be imitated."""

    confidence_weighted: ClassVar[bool] = False
    """Whether the prediction is a mean over bins with an L1 loss: a discovered pixel is weighted by its confidence."""

    @property
    def num_groups(self) -> int:
        """Kinds of predictions whose confidences are not comparable, such as classes; see `group`."""
        return 1

    def group(self, prediction_BCHW: Tensor) -> Tensor:
        """The kind (B, 1, H, W) int64 of each predicted pixel, 0 to ``num_groups`` - 1."""
        return torch.zeros_like(prediction_BCHW[:, :1], dtype=torch.int64)

    # -- evaluation ------------------------------------------------------------------------------------------------
    @abstractmethod
    def metric(self) -> Metric:
        """A fresh accumulator of this task's metrics; its first metric enters Δ_MTL."""

    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, for tasks that have classes."""
        return None

    def token_names(self) -> tuple[str, ...]:
        """What each of the K fine-grained tokens stands for, in a picture: its class, or a number from 0."""
        return self.class_names() or tuple(f"token {k}" for k in range(self.num_tokens))


@dataclass(frozen=True)
class Joined:
    """The task of several data sets.

    Attributes:
        task: for all of them.
        values: for each part whose labels change their values, the new value of each, uint8.
    """

    task: Task
    values: Mapping[str, Array] = field(default_factory=dict)


def distribution(logits_BKHW: Tensor) -> Tensor:
    """The softmax of the logits over classes, bins or centres, (B, K, H, W) fp32."""
    return F.softmax(logits_BKHW.float(), dim=1)


def expectation(probability_BKHW: Tensor, values_KC: Tensor) -> Tensor:
    """Mean of the bin values (K, C) under a `distribution`, (B, C, H, W)."""
    return channel_matmul(values_KC.T, probability_BKHW)


def deviation(probability_BKHW: Tensor, values_K: Tensor) -> Tensor:
    """Standard deviation of the bin values (K,) under a `distribution`, (B, 1, H, W)."""
    moments = expectation(probability_BKHW, torch.stack([values_K, values_K**2], dim=1))
    return (moments[:, 1:2] - moments[:, 0:1] ** 2).clamp(min=0).sqrt()


def moments(logits_BKHW: Tensor, values_KC: Tensor) -> Tensor:
    """Mean of the bin values (K, C) under the softmax of the logits, (B, C, H, W); on a CPU, where the channels of the
    logits come last in memory, in less than half of the time that `expectation` takes, with other rounding.
    """
    count = logits_BKHW.shape[1]
    if count < _WIDE or logits_BKHW.is_cuda:
        return expectation(distribution(logits_BKHW), values_KC)
    batch, _, height, width = logits_BKHW.shape
    probability_NK = F.softmax(logits_BKHW.float().permute(0, 2, 3, 1).reshape(-1, count), dim=1)
    means: Tensor = probability_NK @ values_KC.to(probability_NK)
    return means.view(batch, height, width, -1).permute(0, 3, 1, 2).contiguous()


_WIDE = 16
"""Logits per pixel, below which torch's softmax over the last dimension is slow."""


def largest_probability(logits_BKHW: Tensor, sharpness: float = 1.0) -> Tensor:
    """The largest value of the softmax of ``sharpness`` x logits, (B, 1, H, W)."""
    return F.softmax(sharpness * logits_BKHW.float(), dim=1).amax(dim=1, keepdim=True)


def channel_matmul(matrix_CK: Tensor, x_BKHW: Tensor) -> Tensor:
    """Multiply every pixel's vector by a matrix, (B, C, H, W); several times faster on a CPU than the einsum."""
    flat_BCN: Tensor = matrix_CK.to(x_BKHW) @ x_BKHW.flatten(2)
    return flat_BCN.view(x_BKHW.shape[0], len(matrix_CK), *x_BKHW.shape[-2:])


def known_keys(values: Mapping[str, Any], *known: str) -> None:
    """Raise `ConfigError` for a setting that a kind of task does not have."""
    for key in values:
        if key not in known:
            raise ConfigError(f"no setting '{key}'{did_you_mean(str(key), known)}; known: {', '.join(known) or 'none'}")


def check_numbers(kind: type[Task], given: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where a field of a kind that is a number was given text or a truth value."""
    for each in fields(kind):
        if each.type in ("float", "int", "float | None", "int | None") and not is_number(given.get(each.name, 0)):
            raise ConfigError(f"{each.name} must be a number, found {given[each.name]!r}")


def parse_range(value: Any) -> tuple[float, float]:
    """The setting ``range``: two numbers. Raises `ConfigError` for anything else."""
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(is_number, value)):
        return value[0], value[1]
    raise ConfigError(f"range must be two numbers such as [0.5, 10], found {value!r}")


def is_number(value: Any) -> bool:
    """Whether a setting is a number; YAML's truth values are none, though Python's are."""
    return isinstance(value, int | float) and not isinstance(value, bool)


KINDS: Registry[type[Task]] = Registry("task kind", "tasktokens.tasks")
"""The class of each ``kind`` of task."""
