"""Writing JSON that every reader takes: NaN and infinity, which JSON does not have, become null."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any


def dumps(
    value: Any, *, indent: int | None = None, ensure_ascii: bool = True, default: Callable[[Any], Any] | None = None
) -> str:
    """``json.dumps`` without ``NaN`` and ``Infinity``, at any depth; the options are those of `json.dumps`.

    Raises:
        TypeError: a value has no JSON form.

    Examples:
        >>> dumps({"mIoU": 41.5, "IoU/sofa": float("nan"), "range": [0.0, float("inf")]})
        '{"mIoU": 41.5, "IoU/sofa": null, "range": [0.0, null]}'
    """
    return json.dumps(finite(value), indent=indent, ensure_ascii=ensure_ascii, default=default, allow_nan=False)


def finite(value: Any) -> Any:
    """The same mappings, lists and plain values with None for numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value
