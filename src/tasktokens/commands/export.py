"""``tasktokens export``: the verb that writes a network for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasktokens.commands.options import AsJson, Root
from tasktokens.utils import console


def export(
    run: Annotated[Path, typer.Argument(help="A finished run, its best, or a model folder.")],
    format: Annotated[
        str, typer.Option(help="onnx, openvino (an .xml with a .bin), or torch (torch.export).")
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: model.onnx, model.xml or model.pt2 in the run.")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32; fp16: weights of 16 bits; int8: the backbone's convolutions in 8 bits, calibrated on training "
            "images of the run. What fp16 and int8 cost is measured."
        ),
    ] = "fp32",
    split: Annotated[
        str | None, typer.Option(help="Measure network and file on this split; fp16, int8: run.evaluate of the run.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure on this many images, evenly spread.")] = None,
    root: Root = None,
    as_json: AsJson = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a network as one file for other programs, checked against PyTorch at three sizes."""
    from tasktokens.exporting.export import export as run_export
    from tasktokens.exporting.export import table
    from tasktokens.utils.tables import tables_that_fit

    found = run_export(run, format, out, precision, overwrite, split, limit, root)
    with console.ignore_lost_output():
        if as_json:
            console.print_json(found.to_dict())
            return
        terminal = console.table_console()
        compared = [(f"{height}x{width}", f"{value:.1e}") for (height, width), value in found.differences.items()]
        columns = [("size", [size for size, _ in compared]), ("difference to PyTorch", [text for _, text in compared])]
        for each in tables_that_fit(columns, terminal):
            terminal.print(each)
        if found.split is not None:
            title = f"{found.split}, {found.images} images"
            for each in tables_that_fit(table(found), terminal, title):
                terminal.print(each)
        print(f"{found.path} ({found.format}, {found.precision}, {found.mb:.1f} MB)")
