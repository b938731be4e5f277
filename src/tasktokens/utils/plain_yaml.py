"""YAML as people mean it: the core schema of YAML 1.2, which `tasktokens.utils.safe_io` reads and writes.

PyYAML follows YAML 1.1, where ``no`` and ``on`` are booleans, ``1e-3`` is text, ``010`` is eight, ``12:30`` is 750 and
a key that stands twice silently loses its first value. A list of classes called ``no`` and ``yes`` must not depend on
that. Here booleans are ``true`` and ``false``, numbers are what JSON calls numbers (also ``0x1F``, ``.5``, ``.inf``),
and everything else is text; a number that begins with a zero and a key that stands twice are errors.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_BOOL, _NULL = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"
_INT, _FLOAT, _MERGE = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
_LEADING_ZERO = "!leading-zero"

_SCHEMA = (
    (_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    (_NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    (_LEADING_ZERO, re.compile(r"^[-+]?0[0-9]+$"), "-+0"),
    (_INT, re.compile(r"^(?:[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+)$"), "-+0123456789"),
    (_FLOAT, re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"), "-+.0123456789"),
    (_FLOAT, re.compile(r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"), "-+."),
    (_MERGE, re.compile(r"^<<$"), "<"),
)
"""Tag, what a plain scalar of it looks like, and its first characters; of several that fit, the first counts."""


class PlainLoader(yaml.SafeLoader):
    """`yaml.SafeLoader` with the schema above."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own attribute)
    """By first character, pairs of tag and pattern; empty, so that those of YAML 1.1 do not apply."""


class PlainDumper(yaml.SafeDumper):
    """`yaml.SafeDumper` that quotes what either version of YAML would take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:  # a value that is used twice is written twice: files are for people
        """True: a value that is used twice is written twice, because files are for people."""
        return True


for _tag, _pattern, _first in _SCHEMA:
    PlainLoader.add_implicit_resolver(_tag, _pattern, list(_first))
    PlainDumper.add_implicit_resolver(_tag, _pattern, list(_first))


def _construct_int(loader: PlainLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node), 0)


def _construct_float(loader: PlainLoader, node: yaml.ScalarNode) -> float:
    # As Python spells infinity and NaN: without the dot.
    return float(re.sub(r"\.(?=[a-zA-Z])", "", loader.construct_scalar(node)))


def _reject_leading_zero(loader: PlainLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    raise ValueError(
        f"line {node.start_mark.line + 1} has {text}, which some take for {int(text)} and some for an octal number: "
        f"write {int(text)}, or '{text}' in quotes where it is text"
    )


PlainLoader.add_constructor(_INT, _construct_int)
PlainLoader.add_constructor(_FLOAT, _construct_float)
PlainLoader.add_constructor(_LEADING_ZERO, _reject_leading_zero)


def check_unique_keys(loader: PlainLoader, node: yaml.MappingNode) -> None:
    """Raise `ValueError` for a key that stands twice in a mapping as it is written, before anything is merged."""
    lines: dict[Any, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        value, line = loader.construct_object(key), key.start_mark.line + 1
        if value in lines:
            where = f"line {line}" if line == lines[value] else f"lines {lines[value]} and {line}"
            raise ValueError(f"the key '{key.value}' stands twice ({where}); keep one of them")
        lines[value] = line


def keep_class_names(root: yaml.Node) -> None:
    """Make text of what names a class and looks like a number: ``1e-3`` in ``classes: [1e-3, wall]`` is no 0.001.

    These are the items of ``classes`` and the keys of ``colours``; where ``mirror`` and ``ids`` name classes, numbers
    that are whole stay the numbers of classes.
    """
    waiting = [root]
    seen = set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                waiting += [key, value]
                for name in _class_names(key, value):
                    name.tag = _TEXT
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _class_names(key: yaml.Node, value: yaml.Node) -> list[yaml.ScalarNode]:
    setting = key.value if isinstance(key, yaml.ScalarNode) else None
    found: list[yaml.Node] = []
    tags: tuple[str, ...] = (_FLOAT, _BOOL)
    if setting == "classes" and isinstance(value, yaml.SequenceNode):
        found, tags = value.value, (_INT, _FLOAT, _BOOL)
    elif setting == "colours" and isinstance(value, yaml.MappingNode):
        found, tags = [name for name, _ in value.value], (_INT, _FLOAT, _BOOL)
    elif setting == "ids" and isinstance(value, yaml.MappingNode):
        found = [name for _, name in value.value]
    elif setting == "mirror" and isinstance(value, yaml.SequenceNode):
        found = [name for pair in value.value if isinstance(pair, yaml.SequenceNode) for name in pair.value]
    return [name for name in found if isinstance(name, yaml.ScalarNode) and name.tag in tags]
