"""Names, ids and colours of classes as they stand in a ``dataset.yaml``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.tasks.mirror import Pairs
from tasktokens.utils.legends import Colour


def class_name(value: Any) -> str:
    """A class's name: text, or a number that stands for itself. What YAML takes for a truth value stays a word."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise ConfigError(f"the name of a class must be text, found {value!r}; put it into quotes")
    return str(value)


def whole_id(value: Any) -> int:
    """A stored class id as an int. Raises `ConfigError` for a number that is not whole."""
    try:
        if not isinstance(value, bool) and float(value) == int(value):
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(f"'ids' must name whole stored ids, found {value!r}")


def parse_ids(value: Any, names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """The setting ``ids``: pairs of a stored id and a class index. Raises `ConfigError`."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"'ids' must map each stored id to its class, such as {{7: road}}, found {value!r}")
    return tuple((whole_id(id), class_index("ids", of, names)) for id, of in value.items())


def class_index(setting: str, value: Any, names: tuple[str, ...]) -> int:
    """A class given by its number or its name."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    name = class_name(value)
    if name not in names:
        raise ConfigError(f"'{setting}' names the class '{name}'{did_you_mean(name, names)}, which is not in classes")
    return names.index(name)


def parse_mirror(value: Any, names: tuple[str, ...]) -> Pairs:
    """The setting ``mirror``: pairs of class names, as pairs of class indices. Raises `ConfigError`."""
    if not isinstance(value, list | tuple) or any(not isinstance(p, list | tuple) or len(p) != 2 for p in value):
        raise ConfigError(
            f"'mirror' must be a list of pairs of classes, such as [[left arm, right arm]], found {value!r}"
        )
    return tuple((class_index("mirror", a, names), class_index("mirror", b, names)) for a, b in value)


def parse_colours(values: Iterable[Any]) -> tuple[Colour, ...]:
    """RGB colours, three ints of 0 to 255 each. Raises `ConfigError` for anything else."""
    colours = []
    if not isinstance(values, list | tuple):
        raise ConfigError(f"'colours' must be a list of [red, green, blue], or map names to them, found {values!r}")
    for value in values:
        if (
            not isinstance(value, list | tuple)
            or len(value) != 3
            or not all(isinstance(v, int) and 0 <= v <= 255 for v in value)
        ):
            raise ConfigError(f"a colour must be [red, green, blue] with values of 0 to 255, found {value!r}")
        colours.append((value[0], value[1], value[2]))
    return tuple(colours)
