"""``tasktokens review``: the verbs that show, export and import labels for review."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from tasktokens.commands.options import AsJson, Quiet
from tasktokens.utils import console

_DEFAULT = "show"


class _ShowByDefault(TyperGroup):
    """``review FOLDER`` is ``review show FOLDER``."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        if arguments and arguments[0] not in (*self.commands, "-h", "--help"):
            arguments = [_DEFAULT, *arguments]
        return super().parse_args(context, arguments)


app = typer.Typer(cls=_ShowByDefault, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})

Folder = Annotated[Path, typer.Argument(help="A data folder with discovered labels, such as discover writes.")]
Top = Annotated[int | None, typer.Option(min=1, help="Only the labels of this many images, the most doubtful.")]
Task = Annotated[str | None, typer.Option(help="The task, where there are several with classes.")]


@app.command(_DEFAULT)
def show(
    folder: Folder,
    top: Top = None,
    page: Annotated[bool, typer.Option("--serve", help="Serve a page in which labels are reviewed.")] = False,
    host: Annotated[
        str, typer.Option(help="With --serve: the address to listen on; the default is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --serve: the port; 0: any that is free.")] = 8765,
    by: Annotated[
        str | None,
        typer.Option(help="Rank by these criteria of uncertain,disagreement,rare,unlike; default: the first two."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Rank images by what a correction is worth and write review.csv, or serve the review page (--serve)."""
    if page:
        from tasktokens.review.server import serve

        serve(folder, host, port, top, announce=_announce)
        return
    from dataclasses import asdict

    from tasktokens.review.ranking import DEFAULT, rank_images

    chosen = DEFAULT if by is None else [name.strip() for name in by.split(",")]
    ranked = rank_images(folder, chosen, quiet=quiet)[:top]
    with console.ignore_lost_output():
        if as_json:
            console.print_json([asdict(image) for image in ranked])
        else:
            lines = [f"{image.id} ({', '.join(image.tasks)}): {image.reason}" for image in ranked]
            print("\n".join(lines) or "every discovered label has been reviewed")


def _announce(address: str) -> None:
    print(f"{address}\nopen this address in a browser; Ctrl-C ends the review", flush=True)


@app.command("export")
def export(
    folder: Folder,
    format: Annotated[
        str, typer.Option(help="cvat, label_studio, coco, panoptic, cityscapes_png, voc, yolo, parquet, or maps.")
    ],
    out: Annotated[Path, typer.Option(help="The zip to write.")],
    top: Top = None,
    task: Task = None,
    given: Annotated[bool, typer.Option("--given", help="Also labels that were given.")] = False,
    images: Annotated[bool, typer.Option(help="Also the image files.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the zip if it exists.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write discovered labels as a zip that an annotation tool reads."""
    from tasktokens.review.exporting import export_labels

    with console.ignore_lost_output():
        print(export_labels(folder, format, out, top, task, given, images, overwrite, quiet))


@app.command("import")
def import_(
    folder: Folder,
    annotations: Annotated[Path, typer.Argument(help="What the tool exported: a zip, a folder or a file.")],
    format: Annotated[str | None, typer.Option(help="The format; default: told from the content.")] = None,
    task: Task = None,
    given: Annotated[
        Literal["refuse", "keep", "replace"], typer.Option(help="What to do where given labels came back changed.")
    ] = "refuse",
    unchanged: Annotated[
        Literal["accept", "open"], typer.Option(help="Whether labels that came back as they were are accepted.")
    ] = "accept",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Take over what was accepted, corrected and rejected in an annotation tool: all of it, or nothing."""
    from tasktokens.review.importing import import_labels

    found = import_labels(folder, annotations, format, task, given, unchanged, quiet)
    with console.ignore_lost_output():
        console.print_json(found.to_dict()) if as_json else print("\n".join(found.lines()))


@app.command("undo")
def undo(folder: Folder) -> None:
    """Take back the last decision or import that still stands."""
    from tasktokens.review.decisions import open_decisions

    with open_decisions(folder) as decisions:
        keys = decisions.undo()
    print(f"{len(keys)} labels are as they were before" if keys else "there is nothing to take back")
