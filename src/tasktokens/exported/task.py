"""A task of an exported model: what its values mean, and how they are drawn and stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasktokens.errors import ConfigError
from tasktokens.utils.atomic import writing
from tasktokens.utils.label_maps import ClassMaps, LabelMaps
from tasktokens.utils.legends import Colour, Legend

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ExportedTask:
    """What `tasktokens.tasks.Task` is to a network, for an exported model.

    Attributes:
        name: in tables and folders, such as ``depth``.
        kind: as in a ``dataset.yaml``.
        channels: C of its values.
        unit: of its values, such as ``m``; empty for classes, probabilities and directions.
        classes: their names; None for tasks without.
        tokens: what each of its logits stands for: classes, or the centres of bins.
        threshold: confidence in [0, 1] above which `Prediction.valid` takes a pixel.
        continuous: whether maps of values may be enlarged.
        unit_length: whether values are vectors of length 1.
        drawn: colours and files; None for kinds of tasks that have not said it.
        decoder: an ONNX model from ``logits`` (1, K, h, w) to ``value`` (1, C, h, w) and ``confidence`` (1, 1, h, w).
        spec: the task's settings, for `tasktokens.tasks.build_task`.
    """

    name: str
    kind: str
    channels: int
    unit: str
    classes: tuple[str, ...] | None
    tokens: tuple[str, ...]
    threshold: float
    continuous: bool
    unit_length: bool
    drawn: LabelMaps | None
    decoder: bytes = field(repr=False)
    spec: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of their numbers; None for tasks without."""
        return self.classes

    def check_stored(self) -> None:
        """Raise `ConfigError` for a kind that has not said how its maps are stored (`Task.maps`)."""
        self._maps("stored")

    def stored_classes(self) -> tuple[tuple[str, str, Colour], ...]:
        """What files store for each class, its name and its colour, as `Task.stored_classes`."""
        return self.drawn.stored_classes(self.classes or ()) if isinstance(self.drawn, ClassMaps) else ()

    def legend(self, value_CHW: Array | None = None) -> Legend:
        """What the colours of `colourise` mean; of classes those in a map."""
        return self._maps("drawn").legend(self.name, value_CHW, self.classes or (), self.unit)

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """A picture (H, W, 3) uint8. Raises `ConfigError` for a kind that has not said how (`Task.maps`)."""
        return self._maps("drawn").colourise(value_CHW, valid_HW)

    def write(self, path: Path, value_CHW: Array, valid_HW: Array | None = None) -> None:
        """Write a label file, PNG or npy. Raises `ConfigError` for a kind that has not said how (`Task.maps`)."""
        stored = self._maps("stored").encode(value_CHW, valid_HW)
        path = path.with_suffix(".npy" if stored.dtype == np.float32 else ".png")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if stored.dtype == np.float32:
                np.save(path, stored)
            else:
                Image.fromarray(np.ascontiguousarray(stored)).save(path, compress_type=3)

    def read_back(self, path: Path) -> tuple[Array | None, Array | None]:
        """None, None: 16-bit files become floats where a value is too large."""
        return None, None

    def _maps(self, what: str) -> LabelMaps:
        if self.drawn is None:
            raise ConfigError(
                f"task '{self.name}' of kind '{self.kind}' does not say how its maps are {what} in exported models; "
                f"take prediction.value, or give its class a method 'maps'"
            )
        return self.drawn
