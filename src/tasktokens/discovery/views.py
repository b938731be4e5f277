"""How a teacher sees an image: as it is, mirrored, enlarged; what it says of several views is averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasktokens.errors import ConfigError
from tasktokens.utils.safe_io import load_yaml

ImageView = tuple[float, bool]
"""By how much an image is enlarged, to multiples of 32 pixels, and whether it is mirrored."""

Views = Sequence[ImageView] | Mapping[str, Sequence[ImageView]]
"""Of all tasks alike, or by task."""

AS_IT_IS: ImageView = (1.0, False)
"""The image itself."""

VIEW_ZOOM = 1.25
"""Zoom of a second view relative to the image."""

LARGEST_ZOOM = 4.0
"""Beyond it a view takes sixteen times the memory of the image."""

MOST_VIEWS = 32
"""Far above what is useful, so that a typing error is a message."""


def second_view(zoom: float = VIEW_ZOOM) -> tuple[ImageView, ImageView]:
    """An image as it is, and its mirror image, enlarged."""
    return AS_IT_IS, (zoom, True)


def usable_views(views: Sequence[ImageView], mirror: bool) -> tuple[ImageView, ...]:
    """Each view once; none of them mirrored where mirror images mean something else.

    Examples:
        >>> usable_views([(1.0, False), (1.0, True), (1.25, True)], mirror=False)
        ((1.0, False), (1.25, False))
    """
    return tuple(dict.fromkeys((float(zoom), mirrored and mirror) for zoom, mirrored in views))


def views_by_task(
    views: Views | None, tasks: Iterable[str], default: Sequence[ImageView]
) -> dict[str, tuple[ImageView, ...]]:
    """The views of each task: its own, those of all tasks, or the default."""
    if isinstance(views, Mapping):
        return {name: tuple(views.get(name, default)) for name in tasks}
    return dict.fromkeys(tasks, tuple(default if views is None else views))


def parse_views(value: Any) -> Views:
    """A list of [zoom, mirrored], or such a list by task, from plain values. Raises `ValueError` in one sentence.

    Examples:
        >>> parse_views([[1, False], [1.25, True]]), parse_views({"depth": [[1, False]]})
        ([(1.0, False), (1.25, True)], {'depth': [(1.0, False)]})
        >>> parse_views([[1, True]])
        Traceback (most recent call last):
        ValueError: one view at least must not be mirrored, such as [1, false]
    """
    if isinstance(value, Mapping) and value:
        return {str(name): _parse_list(views) for name, views in value.items()}
    return _parse_list(value)


def _parse_list(value: Any) -> list[ImageView]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not 1 <= len(value) <= MOST_VIEWS:
        raise ValueError(
            f"views are a list of 1 to {MOST_VIEWS} pairs [zoom, mirrored], such as [[1, false], [1.25, true]], or "
            f"such a list by task"
        )
    views = [_parse_view(each) for each in value]
    if all(mirrored for _, mirrored in views):
        raise ValueError("one view at least must not be mirrored, such as [1, false]")
    return views


def _parse_view(value: Any) -> ImageView:
    pair = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    zoom, mirrored = pair if len(pair) == 2 else (None, None)
    number = isinstance(zoom, int | float) and not isinstance(zoom, bool) and math.isfinite(zoom)
    if not number or not isinstance(mirrored, bool) or not 0 < float(zoom or 0) <= LARGEST_ZOOM:
        raise ValueError(f"a view is a pair [zoom above 0 up to {LARGEST_ZOOM:g}, true or false], not {value!r}")
    return float(zoom or 0), mirrored


def views_from_text(text: str) -> int | Views:
    """A number of views, or a list of them as YAML, of the command line. Raises `ConfigError`.

    Examples:
        >>> views_from_text("2"), views_from_text("[[1, false], [1.5, true]]")
        (2, [(1.0, False), (1.5, True)])
    """
    try:
        value = load_yaml(text)
        return value if isinstance(value, int) and not isinstance(value, bool) else parse_views(value)
    except ValueError as error:
        raise ConfigError(f"--views must be 1, 2 or a list such as [[1, false], [1.25, true]]: {error}") from error
