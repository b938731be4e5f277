"""The reference of the command line, made from the functions that are its verbs and the help texts they carry."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from tasktokens.cli import app


def verbs_page() -> str:
    """A heading, a sentence, a synopsis and a table of words per verb, for Markdown."""
    return "\n\n".join(_verb(name, function) for name, function in _verbs())


def _verbs() -> Iterator[tuple[str, Callable[..., None]]]:
    """Each verb, then those of two words such as ``review export``."""
    groups = [("", app), *((group.name or "", group.typer_instance) for group in app.registered_groups)]
    for name, group in groups:
        for command in group.registered_commands if group is not None else ():
            if command.callback is not None:
                yield f"{name} {command.name or command.callback.__name__}".strip(), command.callback


def _verb(name: str, function: Callable[..., None]) -> str:
    hints = get_type_hints(function, include_extras=True)
    words = [
        _Word(each.name, hints[each.name], each.default) for each in inspect.signature(function).parameters.values()
    ]
    words.sort(key=lambda word: word.is_option)
    synopsis = " ".join(["tasktokens", name, *(word.shown for word in words if word.in_synopsis)])
    synopsis += " [OPTIONS]" if any(word.is_option and not word.required for word in words) else ""
    lines = [f"## `{name}`", "", _text(function.__doc__), "", "```text", synopsis, "```"]
    rows = [f"| `{_cell(word.shown)}` | {word.default_text} | {_text(word.info.help)} |" for word in words]
    return "\n".join([*lines, "", "| word | default | meaning |", "|---|---|---|", *rows] if rows else lines)


class _Word:
    """An argument or option: what typer makes of a parameter."""

    def __init__(self, name: str, hint: Any, default: Any) -> None:
        self.annotation, self.info = get_args(hint)[0], self._info(hint)
        self.name, self.default = name, default
        self.required = default is inspect.Parameter.empty
        self.is_option = isinstance(self.info, OptionInfo)
        self.in_synopsis = self.required or not self.is_option

    @staticmethod
    def _info(hint: Any) -> ArgumentInfo | OptionInfo:
        return next(each for each in get_args(hint) if isinstance(each, ArgumentInfo | OptionInfo))

    @property
    def shown(self) -> str:
        """As it is typed: ``--out PATH``, ``RUN``, ``[FOLDER]``."""
        if self.is_option:
            usual = [f"--{self.name.replace('_', '-')}"] + [f"--no-{self.name}"] * (self.annotation is bool)
            flag = ", ".join(self._given_names or usual)
            return flag if self.annotation is bool else f"{flag} {self.info.metavar or _kind(self.annotation)}"
        text = str(self.info.metavar or self.name.upper())
        text += "..." if get_origin(self.annotation) is list and not text.endswith("...") else ""
        return text if self.required or text.startswith("[") else f"[{text}]"

    @property
    def _given_names(self) -> list[str]:
        """Names such as ``--full-size``; within `Annotated` the first of them is what typer calls the default."""
        return [each for each in (self.info.default, *(self.info.param_decls or ())) if str(each).startswith("-")]

    @property
    def default_text(self) -> str:
        """What holds where the word is left out."""
        if self.required:
            return "required"
        shown = str(self.default).lower() if self.default is True else self.default
        return "" if self.default in (None, False) else f"`{shown}`"


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "|".join(inner)
    if origin in (Union, types.UnionType, list):
        return next(_kind(each) for each in inner if each is not type(None))
    return {Path: "PATH", int: "NUMBER", float: "NUMBER", str: "TEXT"}[annotation]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _text(text: str | None) -> str:
    """Plain text for a cell: what looks like HTML or a column is escaped."""
    return re.sub(r"\s+", " ", (text or "").replace("|", "\\|").replace("<", "&lt;")).strip()
