"""The reference of the command line, made from the help that it prints."""

from __future__ import annotations

import re
from typing import Any

import typer

from tasktokens.cli import app


def verbs_page() -> str:
    """A heading, a sentence, a synopsis and a table of options per verb, for Markdown."""
    command: Any = typer.main.get_command(app)
    return "\n\n".join(_verb(name, verb) for name, verb in command.commands.items())


def _verb(name: str, verb: Any) -> str:
    shown = [each for each in verb.params if not getattr(each, "hidden", False)]
    arguments = [each for each in shown if each.param_type_name == "argument"]
    options = [each for each in shown if each.param_type_name == "option"]
    words = [_argument(each) for each in arguments]
    synopsis = " ".join(["tasktokens", name, *words, "[OPTIONS]"])
    lines = [f"## `{name}`", "", _text(verb.help), "", "```text", synopsis, "```"]
    table = [f"| `{_cell(_argument(each))}` | | {_text(_help(each))} |" for each in arguments]
    table += [f"| {_names(each)} | {_default(each)} | {_text(_help(each))} |" for each in options]
    return "\n".join([*lines, "", "| word | default | meaning |", "|---|---|---|", *table] if table else lines)


def _argument(each: Any) -> str:
    name = str(each.metavar or each.name.upper())
    name += "..." if each.nargs == -1 and not name.endswith("...") and "RUN RUN" not in name else ""
    return name if each.required or name.startswith("[") else f"[{name}]"


def _names(each: Any) -> str:
    value = "" if each.is_flag else f" {each.metavar or _kind(each)}"
    return ", ".join(f"`{_cell(option + value)}`" for option in [*each.opts, *each.secondary_opts])


def _kind(each: Any) -> str:
    choices = getattr(each.type, "choices", None)
    return "|".join(choices) if choices else str(each.type.name).upper()


def _default(each: Any) -> str:
    if each.is_flag or each.default in (None, ()) or callable(each.default):
        return ""
    return f"`{_cell(str(each.default))}`"


def _help(each: Any) -> str:
    return str(getattr(each, "help", None) or "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _text(text: str | None) -> str:
    """Plain text for a cell: what looks like HTML or a column is escaped."""
    return re.sub(r"\s+", " ", (text or "").replace("|", "\\|").replace("<", "&lt;")).strip()
