"""Options of ``tasktokens discover`` for work in shards (`tasktokens.inference.shards.discover`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import typer

from tasktokens.errors import ConfigError

Images = Annotated[
    str | None,
    typer.Option(
        help="Other images than the run's: a folder of images, a data folder with labels, or WebDataset tar files (a "
        "folder or a quoted pattern)."
    ),
]
Shards = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Divide the work into this many parts: the same command in several processes and on several machines "
        "shares them. Default: one per 1000 images; of tar files always one per file.",
    ),
]
To = Annotated[
    Literal["folder", "tars"] | None, typer.Option(help="Write a data folder or tar files; default: as the images are.")
]
Engine = Annotated[
    Literal["processes", "ray"] | None,
    typer.Option(help="Who works on shards: this process and others like it, or the workers of Ray."),
]


def wanted(*options: object) -> bool:
    """Whether one of the options was given."""
    return any(option is not None for option in options)


def refuse(options: Mapping[str, object]) -> None:
    """Raise `ConfigError` for options that work in shards does not have."""
    given = [name for name, value in options.items() if value]
    if given:
        raise ConfigError(f"{given[0]} does not go with --images, --shards, --to and --engine; leave it out")
