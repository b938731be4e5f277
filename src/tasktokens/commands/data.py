"""The verbs that make and examine data: ``init``, ``check``, ``prepare`` and ``rooms``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tasktokens.commands import completion
from tasktokens.commands.options import AsJson, Quiet
from tasktokens.errors import ConfigError
from tasktokens.utils import console


def init(
    folder: Annotated[
        Path,
        typer.Argument(help="A folder with images/ and one folder of labels per task, or with a table of the files."),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing dataset.yaml (and manifest.csv).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a dataset.yaml for your own data folder, inferred from its files."""
    from tasktokens.inspection.init import inferred_json, print_inferred
    from tasktokens.inspection.init import init as run

    found = run(folder, force)
    console.print_json(inferred_json(folder, found)) if as_json else print_inferred(folder, found)


def check(
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="A data folder with a dataset.yaml.")] = None,
    data: Annotated[str | None, typer.Option(help="Instead of a folder: a kind of data set, such as nyud.")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of that data set.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Instead of both: a YAML file of settings; its data is checked.")
    ] = None,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page with panels of images and labels.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes; default: by the number of cores and images.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Examine at most this many images, evenly spread.")] = None,
    quiet: Quiet = False,
) -> None:
    """Examine every image and label: statistics and errors. Exit code 1 if there are errors."""
    from tasktokens.inspection.check import check as run
    from tasktokens.inspection.check import print_report, settings

    report = run(settings(folder, data, root, config), workers, limit, html, quiet)
    console.print_json(report.to_json()) if as_json else print_report(report)
    raise typer.Exit(0 if report.ok else 1)


def prepare(
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "--from",
            help="Kind of data set; `tasktokens list` shows all.",
            autocompletion=completion.data_kinds,
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the downloaded data set; docs/research/datasets.md says what to download."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder; an interrupted preparation is resumed.")] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes: 13 or 40 for nyud, 7 or 19 for cityscapes.")
    ] = None,
    depth: Annotated[str | None, typer.Option(help="Depth of cityscapes: inverse or metres.")] = None,
    absent: Annotated[
        Literal["void", "background"] | None,
        typer.Option(help="What pixels without an annotation are, of formats of annotation tools; default: void."),
    ] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Stretch to this height; default: the original.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Stretch to this width.")] = None,
    jpeg: Annotated[int | None, typer.Option(min=1, max=100, help="Write images as JPEG of this quality.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of processes; default: one per core.")] = None,
    skip_corrupt: Annotated[bool, typer.Option("--skip-corrupt", help="Skip unreadable files and list them.")] = False,
    upright: Annotated[
        bool, typer.Option("--upright", help="Rotate images by their EXIF orientation; labels are not rotated.")
    ] = False,
    verify: Annotated[Path | None, typer.Option(help="Only verify the files of this prepared folder.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Convert a data set to a compact folder of JPEG and PNG files, which every verb takes as data.root."""
    from tasktokens.datasets import prepare as preparing
    from tasktokens.datasets.annotated import AnnotatedSource

    if verify is not None:
        faults = preparing.verify(verify, quiet)
        if as_json:
            console.print_json({"folder": verify, "faults": faults})
        else:
            print("\n".join(faults) or f"{verify}: all files are as they were written")
        raise typer.Exit(1 if faults else 0)
    values = {"kind": data, "root": root, "classes": classes, "depth": depth, "absent": absent}
    source = preparing.source_settings({key: value for key, value in values.items() if value is not None})
    if out is None:
        raise ConfigError("--out is not set; name the folder to write")
    if (height is None) != (width is None):
        raise ConfigError("--height and --width must be given both or neither")
    size = (height, width) if height is not None and width is not None else None
    if isinstance(source, AnnotatedSource):
        other = "background" if source.absent == "void" else "void"
        console.say(f"pixels without an annotation are {source.absent} (--absent {other} changes that)")
    written = preparing.prepare(source, out, size, jpeg, workers, skip_corrupt, quiet, upright)
    console.print_json({"folder": written}) if as_json else print(written)


def rooms(
    out: Annotated[Path, typer.Option(help="Output folder.")],
    train: Annotated[int, typer.Option(min=1, help="Number of training images.")] = 400,
    val: Annotated[int, typer.Option(min=1, help="Number of validation images.")] = 40,
    test: Annotated[int, typer.Option(min=1, help="Number of test images.")] = 120,
    height: Annotated[int, typer.Option(min=16, help="Height in pixels.")] = 96,
    width: Annotated[int, typer.Option(min=16, help="Width in pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of the rooms.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Render the embedded data set of rooms as a data folder with labels of six tasks."""
    from tasktokens.config import parse_config
    from tasktokens.utils.lock import only_writer_of_new

    values = {"train": train, "val": val, "test": test, "render_seed": seed, "render_size": [height, width]}
    source: Any = parse_config({"data": {"kind": "rooms", **values}}, "rooms").data
    with only_writer_of_new(out):  # the folder itself appears when all is in it
        print(source.write(out, (height, width), progress=not quiet))
