"""The components whose settings a configuration holds: data sets and methods, which register themselves.

The registries lie here, below the components, so that no import runs back up: a registry knows its package by name and
imports it on first look-up.
"""

from __future__ import annotations

import copyreg
from functools import cache
from typing import Any, cast

from pydantic import create_model

from tasktokens.config.base import Settings
from tasktokens.config.data import DataSettings
from tasktokens.registry import Registry, View

DATASETS: Registry[Any] = Registry("data set", "tasktokens.datasets")
"""See `tasktokens.datasets.base.DATASETS`, which is the same with its type."""

METHODS: Registry[Any] = Registry("method", "tasktokens.methods")
"""See `tasktokens.methods.METHODS`, which is the same with its type."""


@cache
def data_settings(source: type[Settings]) -> type[DataSettings]:
    """The ``data`` section of a run on such a data set: how images and labels are shown, and where they come from."""
    name = f"{source.__name__.removesuffix('Source')}Data"
    bases: Any = (source, DataSettings)  # in this order: the kind is the data set's own
    settings = cast(type[DataSettings], create_model(name, __base__=bases, __doc__=source.__doc__))
    copyreg.pickle(settings, _reduced)  # a class made here cannot be imported by the process that unpickles
    return settings


def _reduced(settings: DataSettings) -> tuple[Any, ...]:
    source = next(base for base in type(settings).__bases__ if base is not DataSettings)
    return _restored, (source, settings.model_fields_set, dict(settings))


def _restored(source: type[Settings], given: set[str], values: dict[str, Any]) -> DataSettings:
    return data_settings(source).model_construct(given, **values)


DATA_SETTINGS = View(DATASETS, data_settings)
"""The class of the ``data`` section by kind."""

METHOD_SETTINGS = View(METHODS, lambda method: method.settings_class)
"""The class of the ``method`` section by name."""
