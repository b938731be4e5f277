"""Named components: task kinds, data sets, methods, networks, metrics.

A component registers itself by a decorator in a file of its own; no list elsewhere is edited::

    @METHODS.register("mine")
    class Mine(Method): ...

Built-in components are the modules of a package, which are imported on first look-up. Packages outside
announce theirs by an entry point whose group is the package's name, such as ``tasktokens.methods``::

    [project.entry-points."tasktokens.methods"]
    mine = "my_package.method"
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from tasktokens.errors import ConfigError, did_you_mean

Component = TypeVar("Component")
Class = TypeVar("Class")


class UnknownComponentError(ConfigError, KeyError):
    """No component has the name; a `KeyError` too, as mappings raise, so that ``get`` and ``in`` work."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show quotes


class Registry(Mapping[str, Component]):
    """Components of one sort by name; a mapping that imports components on demand.

    Args:
        sort: what they are, for messages, such as ``method``.
        package: whose modules hold the built-in ones; also the group of entry points.

    Examples:
        >>> from tasktokens.tasks import KINDS
        >>> KINDS["depth"].__name__, "dept" in KINDS
        ('Depth', False)
    """

    def __init__(self, sort: str, package: str) -> None:
        self.sort, self.package = sort, package
        self._known: dict[str, Component] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[Class], Class]:
        """A decorator that names a component.

        Raises:
            ConfigError: another component has the name.
        """

        def add(component: Class) -> Class:
            other = self._known.get(name)
            if other is not None and _place(other) != _place(component):
                raise ConfigError(f"two components are the {self.sort} '{name}': {_place(other)}, {_place(component)}")
            self._known[name] = component  # type: ignore[assignment]
            return component

        return add

    def __getitem__(self, name: str) -> Component:
        """The component of that name. Raises `UnknownComponentError` with the nearest name and all names."""
        if name not in self:
            raise UnknownComponentError(
                f"there is no {self.sort} '{name}'{did_you_mean(name, self)}; found: {', '.join(self)}"
            )
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a component; it is imported. Raises `ConfigError` where an outside one cannot be."""
        if not isinstance(name, str):
            return False
        if name not in self._known and name in self._modules:
            import_module(f"{self.package}.{name}")  # most lie in a module of their own name
        if name not in self._known:
            self._load()
        if name not in self._known and name in self._outside:
            self._load_outside(self._outside[name])
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        """All names in alphabetical order; outside packages are not imported for that."""
        self._load()
        return iter(sorted({*self._known, *self._outside}))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _load(self) -> None:
        """Import the package's own modules, any of which may register components."""
        for module in () if self._complete else self._modules:
            import_module(f"{self.package}.{module}")
        self._complete = True

    def _load_outside(self, entry: EntryPoint) -> None:
        """Import what an entry point names: a component, or a module that registers one."""
        try:
            component = entry.load()
        except Exception as error:  # an import can raise anything; the message names the package
            raise ConfigError(
                f"the entry point '{entry.name}' of {entry.group} ({entry.value}) cannot be loaded "
                f"({type(error).__name__}: {error}); fix or uninstall that package"
            ) from error
        if entry.name not in self._known and isinstance(component, type):
            self._known[entry.name] = component  # type: ignore[assignment]

    @cached_property
    def _modules(self) -> tuple[str, ...]:
        return tuple(module.name for module in pkgutil.iter_modules(import_module(self.package).__path__))

    @cached_property
    def _outside(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.package)}


def _place(component: object) -> str:
    return f"{getattr(component, '__module__', '')}.{getattr(component, '__qualname__', component)}"


class View(Mapping[str, Class]):
    """What belongs to each component of a registry, such as its settings class, by the component's name."""

    def __init__(self, registry: Registry[Component], of: Callable[[Component], Class]) -> None:
        self._registry, self._of = registry, of

    def __getitem__(self, name: str) -> Class:
        return self._of(self._registry[name])

    def __contains__(self, name: object) -> bool:
        return name in self._registry

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry)

    def __len__(self) -> int:
        return len(self._registry)
