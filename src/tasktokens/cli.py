"""The command line: one verb a thing to do. Heavy imports happen inside the verbs, so ``--help`` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tasktokens.errors import TaskTokensError

app = typer.Typer(
    name="tasktokens",
    help="One network for many dense prediction tasks from partially labelled images; discovers the missing labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what lies in the output folder.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as optim.lr=1e-3")
]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of labels, networks and order.")] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """The main job on an embedded data set: train, compare, discover, predict, report. No downloads."""
    from tasktokens.apps.demo import demo as run

    print(run(out, seed, overwrite, quiet))


@app.command()
def train(
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; see configs/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    init_from: Annotated[Path | None, typer.Option(help="Start a new run from another run's weights.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train as configured into the run folder (run.dir)."""
    from tasktokens.config import load_config

    settings = load_config(config, overrides or [])
    from tasktokens.engine.train import train as run

    print(run(settings, resume, overwrite, init_from, quiet))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    split: Annotated[str, typer.Option(help="A split of the data, or holdout.")] = "test",
    full: Annotated[bool, typer.Option("--full-size", help="At the labels' own size, however the run did.")] = False,
) -> None:
    """Print a run's metrics on a split and write them to evaluation-SPLIT.json in the run."""
    from tasktokens.apps.tables import print_results
    from tasktokens.engine.evaluate import evaluate as evaluate_run

    print_results(run, evaluate_run(run, split, at="full" if full else None))


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A finished run, or its model folder.")],
    inputs: Annotated[list[str], typer.Argument(help="Images, folders or glob patterns.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("predictions"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write label files, confidences and coloured pictures of all tasks for images of any size."""
    from tasktokens.apps.predict import predict as run

    run(model, inputs, out, overwrite, quiet)
    print(out)


@app.command()
def discover(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Confidence below which a pixel is void.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Fill in the missing labels of a run's training images: a new data folder, with confidences."""
    from tasktokens.apps.discover import discover as discover_run

    print(discover_run(run, out, threshold, overwrite, quiet))


@app.command()
def rooms(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    train: Annotated[int, typer.Option(min=1)] = 400,
    val: Annotated[int, typer.Option(min=1)] = 40,
    test: Annotated[int, typer.Option(min=1)] = 120,
    height: Annotated[int, typer.Option(min=16)] = 96,
    width: Annotated[int, typer.Option(min=16)] = 128,
    seed: Annotated[int, typer.Option()] = 0,
    quiet: Quiet = False,
) -> None:
    """Render the embedded data set as a plain folder with labels of six tasks."""
    from tasktokens.data.rooms import write_rooms

    print(write_rooms(out, {"train": train, "val": val, "test": test}, height, width, seed, progress=not quiet))


@app.command("list")
def list_() -> None:
    """What there is to choose from: kinds of tasks, networks, methods, data, backbones."""
    from tasktokens.apps.tables import print_choices

    print_choices()


def main() -> None:
    """Entry point. A user's mistake is one sentence and exit code 2; Ctrl-C is 130."""
    try:
        app()
    except TaskTokensError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
