"""Options and arguments that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasktokens.commands import completion

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what the output folder holds.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Do not show progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
PredictModel = Annotated[
    Path,
    typer.Argument(
        help="A finished run, its model folder, hf://user/name, an exported .onnx or .xml, or demo: the model that "
        "ships."
    ),
]
Model = Annotated[
    Path, typer.Argument(help="A finished run, its model folder, hf://user/name, or demo: the model that ships.")
]
Inputs = Annotated[list[str], typer.Argument(help="Images, folders or glob patterns.")]
Root = Annotated[Path | None, typer.Option(help="Folder of the run's data, if it has moved since training.")]
Views = Annotated[
    str,
    typer.Option(
        metavar="NUMBER|LIST",
        help="2: average with a mirrored, enlarged view of each image; takes 2.6 times as long. Or a list of [zoom, "
        "mirrored], such as [[1, false], [1.5, true]].",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1, help="Images of one size that go through the network together; default: 16 on a GPU, 1 on a CPU."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings that override the file, such as optim.lr=1e-3.",
        autocompletion=completion.settings,
    ),
]
