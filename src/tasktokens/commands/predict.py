"""The verbs that ask a trained network: ``evaluate``, ``predict`` and ``explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from tasktokens.commands.options import AsJson, BatchSize, Model, Overwrite, PredictModel, Quiet, Root, Views
from tasktokens.commands.printing import print_result
from tasktokens.errors import ConfigError
from tasktokens.utils import console


def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run, or RUN/best: its best network by validation.")],
    split: Annotated[
        str | None, typer.Option(help="A split of the data, or holdout; default: run.evaluate of the run.")
    ] = None,
    full: Annotated[bool, typer.Option("--full-size", help="Measure at the labels' own size.")] = False,
    protocol: Annotated[
        Literal["correct", "paper"], typer.Option(help="paper: with the quirks of published code.")
    ] = "correct",
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Print a run's metrics on a split and write them to evaluation-SPLIT.json in the run."""
    from tasktokens.inference.evaluate import evaluate as evaluate_run
    from tasktokens.reporting.tables import print_results

    at: Literal["full"] | None = "full" if full else None

    def show(results: Any) -> None:
        console.print_json(results) if as_json else print_results(run, results)

    evaluate_run(run, split, at=at, protocol=protocol, root=root, show=show)


Tile = Annotated[
    str | None,
    typer.Option(
        metavar="[SIZE]",
        help="Predict images in overlapping tiles at their own resolution, whatever their size: 512 pixels per "
        "side, or 384x512 (height x width); without a number about the size of the training images.",
    ),
]


class OptionalTile(TyperCommand):
    """``--tile`` may stand without a size: what follows is then another option, or a file that is no size."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        """As click's, after ``auto`` is put in where no size follows."""
        following = [*arguments[1:], "-"]
        words: list[str] = []
        for word, after in zip(arguments, following, strict=True):
            words.append(word)
            if word == "--tile" and not after[:1].isdigit() and after != "auto":
                words.append("auto")
        return super().parse_args(context, words)


def predict(
    model: PredictModel,
    inputs: Annotated[list[str], typer.Argument(help="Images, videos, folders or glob patterns.")],
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("predictions"),
    views: Views = "1",
    pictures: Annotated[bool, typer.Option(help="Also write coloured pictures of images and predictions.")] = True,
    tile: Tile = None,
    overlap: Annotated[
        int | None, typer.Option(help="With --tile: pixels that neighbouring tiles share; default: a quarter.")
    ] = None,
    labels: Annotated[bool, typer.Option(help="Of videos: write label files of the frames.")] = True,
    every: Annotated[int, typer.Option(min=1, help="Of videos: predict every N-th frame only.")] = 1,
    batch_size: BatchSize = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Predict all tasks for images of any size and for videos: label files, confidences and coloured pictures."""
    from tasktokens.discovery.views import views_from_text
    from tasktokens.inference.predict import predict as run

    size: Any = None
    if tile is not None:
        from tasktokens.inference.tiles import parse_tile  # needs torch, as tiles do

        size = parse_tile(tile)
    seen = views_from_text(views)
    run(model, inputs, out, overwrite, quiet, seen, pictures, batch_size, size, overlap, labels, every)
    print_result(out)


def explain(
    model: Model,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Images, folders or glob patterns; --influence: default: the images of the run's test."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("explanations"),
    influence: Annotated[
        bool, typer.Option("--influence", help="How much predictions change when a token, gate or scale is changed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --influence: print the rows as JSON only.")] = False,
    root: Root = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Draw what the network computes for images: task gates, affinity between tasks, token maps, confidences."""
    if influence:
        from tasktokens.inference.influence import influence as measure
        from tasktokens.reporting.tables import print_influence

        found = measure(model, inputs, out, overwrite, quiet, root)
        console.print_json(found.rows) if as_json else print_influence(found)
        return
    if not inputs or as_json or root is not None:
        raise ConfigError("give the images to explain; --json and --root, and no images, go with --influence")
    from tasktokens.inference.explain import explain as run

    run(model, inputs, out, overwrite, quiet)
    print(out)
