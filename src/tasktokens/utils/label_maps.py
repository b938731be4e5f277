"""How maps of labels and predictions are drawn and stored, as plain values: for tasks, and for exported models.

A task builds one of these from its settings (`Task.maps`); an exported model carries it as JSON. Nothing here needs
torch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tasktokens.utils.legends import Colour, Legend

Array = npt.NDArray[Any]

OUTSIDE: Colour = (128, 128, 128)
"""In pictures, the colour of a class that was not labelled in an image."""
OUTSIDE_NAME = "a class that was not labelled here"
_STEPS = 64
"""Colours of a bar."""
_VOID_OF_PROBABILITY: Colour = (25, 25, 70)
"""Dark blue, since black means "no"."""


@dataclass(frozen=True)
class LabelMaps(ABC):
    """Colours and stored values of one task's maps."""

    kind: ClassVar[str]

    @abstractmethod
    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """A picture (H, W, 3) uint8; void is black unless the class says otherwise."""

    @abstractmethod
    def encode(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """What a label file stores: integers for a PNG, float32 (H, W) for npy."""

    @abstractmethod
    def legend(self, title: str, value_CHW: Array | None = None, names: Sequence[str] = (), unit: str = "") -> Legend:
        """What the colours mean.

        Args:
            title: what is shown, such as the task's name.
            value_CHW: of classes, those in it alone; default: all.
            names: of the classes.
            unit: of the values.
        """

    def plain(self) -> dict[str, Any]:
        """JSON values from which `maps_from_plain` makes this again."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class ClassMaps(LabelMaps):
    """Class numbers.

    Attributes:
        colours: of each class in pictures.
        stored: the id that files hold for each class; none: they hold the colours.
        void: ids that mean "no label".
    """

    colours: tuple[Colour, ...]
    stored: tuple[int, ...] = ()
    void: tuple[int, ...] = ()
    kind: ClassVar[str] = "classes"

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """A colour per class; grey for a class that was not labelled."""
        palette = np.array([*self.colours, OUTSIDE], np.uint8)
        colours: Array = palette[value_CHW[0].astype(np.int64).clip(0, len(self.colours))]
        return _black_outside(colours, valid_HW)

    def encode(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """Ids or colours; void is a void id, or transparent."""
        ids = value_CHW[0].astype(np.int64)
        if not self.stored:
            stored: Array = np.array(self.colours, np.uint8)[ids]
        else:
            used = np.array(self.stored)
            deep = used.max() > 255
            stored = used[ids].astype(np.uint16 if deep else np.uint8)
            void = [id for id in self.void if 0 <= id <= (65535 if deep else 255)]
            if valid_HW is not None and (void or deep):
                # 16-bit files have no alpha; where no void id is named, take one that is no class.
                free = next(id for id in range(65535, -1, -1) if id not in used)
                stored, valid_HW = np.where(valid_HW, stored, stored.dtype.type((void or [free])[0])), None
        if valid_HW is not None:
            alpha = np.where(valid_HW, np.uint8(255), np.uint8(0))
            stored = np.concatenate([stored.reshape(*ids.shape, -1), alpha[..., None]], axis=-1)
        return stored

    def legend(self, title: str, value_CHW: Array | None = None, names: Sequence[str] = (), unit: str = "") -> Legend:
        """A colour per class, of all classes or of those in a map."""
        shown = range(len(self.colours)) if value_CHW is None else np.unique(value_CHW).astype(int).tolist()
        swatches = [(self.colours[i], names[i]) for i in shown if i < len(self.colours)]
        if any(i >= len(self.colours) for i in shown):
            swatches.append((OUTSIDE, OUTSIDE_NAME))
        return Legend(title, tuple(swatches))

    def stored_classes(self, names: Sequence[str]) -> tuple[tuple[str, str, Colour], ...]:
        """The id or ``#rrggbb`` that files store, the name, and the picture's colour of each class."""
        stored = map(str, self.stored) if self.stored else ("#{:02x}{:02x}{:02x}".format(*c) for c in self.colours)
        return tuple(zip(stored, names, self.colours, strict=True))


@dataclass(frozen=True)
class ProbabilityMaps(LabelMaps):
    """Probabilities in [0, 1].

    Attributes:
        as_floats: whether files hold floats, since their grey values have another meaning.
    """

    as_floats: bool = False
    kind: ClassVar[str] = "probability"

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """Grey, from black for 0 to white for 1; void is dark blue."""
        grey = np.rint(value_CHW[0].clip(0, 1) * 255).astype(np.uint8)
        rgb = np.repeat(grey[..., None], 3, axis=-1)
        return rgb if valid_HW is None else np.where(valid_HW[..., None], rgb, np.array(_VOID_OF_PROBABILITY, np.uint8))

    def encode(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """Grey of 8 bits with alpha for void, or floats."""
        if self.as_floats:
            return floats(value_CHW[0].clip(0, 1), valid_HW)
        grey = np.rint(value_CHW[0].clip(0, 1) * 255).astype(np.uint8)
        alpha = None if valid_HW is None else np.where(valid_HW, np.uint8(255), np.uint8(0))
        return grey if alpha is None else np.stack([grey, alpha], axis=-1)

    def legend(self, title: str, value_CHW: Array | None = None, names: Sequence[str] = (), unit: str = "") -> Legend:
        """A bar from no to yes."""
        values = np.linspace(0, 1, _STEPS, dtype=np.float32)
        return Legend(title, bar=self.colourise(values[None, None])[0], ends=("no, 0", "yes, 1"))


@dataclass(frozen=True)
class ScalarMaps(LabelMaps):
    """One number per pixel, in evenly spread colours; files hold floats.

    Attributes:
        minimum, maximum: ends of the colours, in the labels' unit.
        colours: from the low to the high end.
    """

    minimum: float
    maximum: float
    colours: tuple[Colour, ...]
    kind: ClassVar[str] = "scalar"

    def place(self, value_HW: Array) -> Array:
        """Where values lie between the ends of the colours, in [0, 1]."""
        place: Array = (value_HW - self.minimum) / (self.maximum - self.minimum)
        return place

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """Colours from the lower to the upper end of the range; void is black."""
        unit = np.nan_to_num(self.place(value_CHW[0]).clip(0, 1))
        number = np.minimum((unit * np.float32(len(self.colours))).astype(np.int64), len(self.colours) - 1)
        return _black_outside(np.array(self.colours, np.uint8)[number], valid_HW)

    def encode(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """Floats in the user's unit; NaN is void."""
        return floats(value_CHW[0], valid_HW)

    def legend(self, title: str, value_CHW: Array | None = None, names: Sequence[str] = (), unit: str = "") -> Legend:
        """A linear colour bar with both ends of the range."""
        values = np.linspace(self.minimum, self.maximum, _STEPS, dtype=np.float32)
        ends = (f"{self.minimum:.4g} {unit}".strip(), f"{self.maximum:.4g} {unit}".strip())
        return Legend(title, bar=self.colourise(values[None, None])[0], ends=ends)


@dataclass(frozen=True)
class DepthMaps(ScalarMaps):
    """Depth, or inverse depth, in colours of its logarithm: near is at the upper end.

    Attributes:
        inverse: whether values grow towards the camera.
        scale, offset: a stored integer v means ``(v + offset) * scale``.
        void: stored values that mean "no label", besides 0.
    """

    inverse: bool = False
    scale: float = 0.001
    offset: float = 0.0
    void: tuple[float, ...] = ()
    kind: ClassVar[str] = "depth"

    def place(self, value_HW: Array) -> Array:
        """On the logarithm's scale."""
        low_to_high: Array = (np.log(value_HW.clip(self.minimum, self.maximum)) - math.log(self.minimum)) / math.log(
            self.maximum / self.minimum
        )
        return low_to_high if self.inverse else 1 - low_to_high

    def encode(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """16 bits, or floats where the values do not fit."""
        lowest = max(1, math.floor(-self.offset) + 1)  # nothing that would be read as 0 metres or less
        stored = np.rint(value_CHW[0] / self.scale - self.offset)
        if stored.max(initial=0) > 65535:  # in 16 bits it would be nearer than it is; floats always mean the same
            return floats(value_CHW[0], valid_HW)
        stored = stored.clip(lowest, 65535).astype(np.uint16)
        if self.void:
            # Predictions that would be read as void move to the nearest number below that is not, or above 0.
            taken = np.isin(stored, self.void)
            free = np.setdiff1d(np.arange(1, 65536), self.void)
            stored[taken] = free[np.searchsorted(free, stored[taken], side="right").clip(1) - 1]
        return stored if valid_HW is None else np.where(valid_HW, stored, np.uint16(0))

    def legend(self, title: str, value_CHW: Array | None = None, names: Sequence[str] = (), unit: str = "") -> Legend:
        """A logarithmic colour bar with both ends of the range."""
        values = np.geomspace(self.minimum, self.maximum, _STEPS, dtype=np.float32)
        ends = (f"{self.minimum:.3g} {unit}".strip(), f"{f'{self.maximum:.3g} {unit}'.strip()} (logarithmic)")
        return Legend(title, bar=self.colourise(values[None, None])[0], ends=ends)


@dataclass(frozen=True)
class VectorMaps(LabelMaps):
    """Unit vectors, as 8-bit RGB.

    Attributes:
        signs: factor of each component in pictures.
        frame: what the three channels of files are in our axes, such as ``("x", "-y", "-z")``.
        directions: what vectors along and against each axis are called in a legend; without a name, they are left out.
    """

    signs: tuple[int, int, int] = (1, 1, 1)
    frame: tuple[str, str, str] = ("x", "y", "z")
    directions: tuple[str, ...] = ("+x", "-x", "+y", "-y", "+z", "-z")
    kind: ClassVar[str] = "vectors"

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """RGB = (v + 1) x 127.5 of the components times their signs; void is black."""
        return _black_outside(_bytes(value_CHW, np.array(self.signs, np.float32)), valid_HW)

    def encode(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """8-bit RGB, (n + 1) x 127.5, in the files' frame; void is (128, 128, 128)."""
        if self.frame != ("x", "y", "z"):
            theirs = [(-1 if axis[0] == "-" else 1) * value_CHW["xyz".index(axis[-1])] for axis in self.frame]
            value_CHW = np.stack(theirs)
        stored = _bytes(value_CHW)
        return stored if valid_HW is None else np.where(valid_HW[..., None], stored, np.uint8(128))

    def legend(self, title: str, value_CHW: Array | None = None, names: Sequence[str] = (), unit: str = "") -> Legend:
        """Colours of the named axis directions."""
        axes = np.stack([sign * axis for axis in np.eye(3, dtype=np.float32) for sign in (1, -1)], axis=1)
        named = zip(self.colourise(axes[:, None])[0].tolist(), self.directions, strict=True)
        return Legend(title, tuple(((r, g, b), name) for (r, g, b), name in named if name))


def floats(plane_HW: Array, valid_HW: Array | None = None) -> Array:
    """A plane as float32; NaN where it is not valid."""
    plane: Array = plane_HW.astype(np.float32)
    return plane if valid_HW is None else np.where(valid_HW, plane, np.float32(np.nan))


def maps_from_plain(values: Mapping[str, Any]) -> LabelMaps:
    """What `LabelMaps.plain` gave. Raises `KeyError`, `TypeError` or `ValueError` for anything else.

    Examples:
        >>> maps_from_plain({"kind": "probability", "as_floats": True})
        ProbabilityMaps(as_floats=True)
    """
    fields = {name: _tuples(value) for name, value in values.items() if name != "kind"}
    return _KINDS[values["kind"]](**fields)


_KINDS: dict[str, type[LabelMaps]] = {
    each.kind: each for each in (ClassMaps, ProbabilityMaps, ScalarMaps, DepthMaps, VectorMaps)
}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _black_outside(colours_HW3: Array, valid_HW: Array | None) -> Array:
    return colours_HW3 if valid_HW is None else np.where(valid_HW[..., None], colours_HW3, np.uint8(0))


def _bytes(value_CHW: Array, signs: Array | None = None) -> Array:
    """Components in [-1, 1] as bytes (H, W, C)."""
    vectors = np.moveaxis(value_CHW, 0, -1)
    signed = vectors if signs is None else vectors * signs
    stored: Array = np.rint((signed.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return stored
