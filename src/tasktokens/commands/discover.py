"""``tasktokens discover``: of the images of a run, or of any images in shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from tasktokens.commands import completion
from tasktokens.commands.options import AsJson, BatchSize, Overwrite, Quiet, Root
from tasktokens.errors import ConfigError
from tasktokens.utils import console
from tasktokens.utils.exit_codes import launched_rank

Threshold = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[TASK=]NUMBER",
        help="Confidence, 0 to 1, that a pixel must exceed to be kept: 0.5 for all tasks, depth=0.5 for one task; "
        "may be repeated. Default: the task's own, fixed, such as 0.9 for classes (docs/concepts/discovery.md).",
        autocompletion=completion.thresholds,
    ),
]
TeacherViews = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER|LIST",
        help="How the network sees each image, as for predict; default: as the run's own teacher saw them.",
    ),
]
Teacher = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK=FOLDER",
        help="Labels with confidences that another model or a person made, as the discovered labels of a task; may "
        "be repeated.",
    ),
]
Pictures = Annotated[bool, typer.Option("--pictures", help="Also write coloured pictures of images and labels.")]
Page = Annotated[
    bool,
    typer.Option("--page", help="Also write discovery.html: table, histograms of confidence, least confident images."),
]

# Of work in shards (`tasktokens.inference.shards.discover`).
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


def discover(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    out: Annotated[Path, typer.Option(help="Output folder.")],
    threshold: Threshold = None,
    views: TeacherViews = None,
    teacher: Teacher = None,
    root: Root = None,
    pictures: Pictures = False,
    page: Page = False,
    images: Images = None,
    shards: Shards = None,
    to: To = None,
    engine: Engine = None,
    batch_size: BatchSize = None,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Discover the missing labels of a run's training images; writes a new data folder with confidences.

    With --images, --shards, --to or --engine: of any images, in parts that several processes and machines share.
    """
    from tasktokens.discovery.views import views_from_text
    from tasktokens.inference.brought_labels import parse_teachers
    from tasktokens.inference.chosen_thresholds import parse_thresholds
    from tasktokens.inference.discover import discover as discover_run
    from tasktokens.reporting.tables import print_discovery

    thresholds, teachers = parse_thresholds(threshold or ()), parse_teachers(teacher or ())
    seen = None if views is None else views_from_text(views)
    if any(option is not None for option in (images, shards, to, engine)):
        _refuse_in_shards({"--teacher": teachers, "--pictures": pictures, "--page": page})
        from tasktokens.inference.shards.discover import discover_shards

        discovery = discover_shards(
            run, out, images, shards, to, engine or "processes", thresholds, seen, root, batch_size, overwrite, quiet
        )  # fmt: skip
    else:
        discovery = discover_run(
            run, out, thresholds, overwrite, quiet, seen, pictures, root, page, teachers, batch_size
        )  # fmt: skip
    if launched_rank() > 0:
        return
    if as_json:
        console.print_json(discovery.to_dict() | {"folder": str(discovery), "warnings": discovery.warnings})
    else:
        print_discovery(discovery)
        print(discovery)


def _refuse_in_shards(options: Mapping[str, object]) -> None:
    """Raise `ConfigError` for options that work in shards does not have."""
    given = [name for name, value in options.items() if value]
    if given:
        raise ConfigError(f"{given[0]} does not go with --images, --shards, --to and --engine; leave it out")
