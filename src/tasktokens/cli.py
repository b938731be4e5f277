"""The command line: one function per verb. Heavy imports happen inside the verbs, so ``--help`` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from tasktokens import cli_completion, cli_export, cli_hub, cli_review, cli_serve, cli_shards
from tasktokens.cli_options import AsJson, BatchSize, Model, Overrides, Overwrite, PredictModel, Quiet, Root, Views
from tasktokens.errors import ConfigError
from tasktokens.utils import console, strict_json
from tasktokens.utils.exit_codes import exit_codes, launched_rank
from tasktokens.utils.memory import keep_freed_memory

app = typer.Typer(
    name="tasktokens",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
"""The command line; each verb below is a command."""

app.add_typer(cli_review.app, name="review", help="Review discovered labels: list, page, to and from annotation tools.")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"tasktokens {version('tasktokens')}")
        raise typer.Exit


@app.callback()
def tasktokens(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """One network for many dense prediction tasks from partially labelled images; discovers the missing labels."""
    keep_freed_memory()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of the visible labels, the networks and the order of images.")] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train, compare, discover, predict and report on an embedded data set. No downloads."""
    from tasktokens.reporting.demo import demo as run

    print(run(out, seed, overwrite, quiet))


@app.command()
def train(
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; see configs/.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Kind of data set (data.kind); `tasktokens list` shows all.", autocompletion=cli_completion.data_kinds
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the data set (data.root).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the run's last checkpoint.")] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Start from another run's weights; with method.stage1_steps=0 they are the teacher."),
    ] = None,
    discovered: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder of labels with confidences that was discovered elsewhere: the second stage alone, on these "
            "and the given labels; may be repeated (data.discovered)."
        ),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train a network as configured; results go to the run folder (run.dir)."""
    from tasktokens.config import load_config, load_run_config

    # JSON is YAML in which a folder called 2024 is no number; YAML knows no pairs of surrogates, as an emoji's in JSON.
    given = {"kind": data, "root": root}
    chosen = [
        f"data.{key}={strict_json.dumps(str(value), ensure_ascii=False)}" for key, value in given.items() if value
    ]
    if discovered:
        folders = [str(folder) for folder in discovered]
        chosen.append(f"data.discovered={strict_json.dumps(folders, ensure_ascii=False)}")
    load = load_run_config if resume else load_config
    settings = load(config, [*chosen, *(overrides or [])])
    if discovered and hasattr(settings.method, "stage1_steps"):  # a method without it is refused for another reason
        settings = load(config, [*chosen, "method.stage1_steps=0", *(overrides or [])])
    from tasktokens.reporting.train import RunPictures
    from tasktokens.training import trainer

    _print(trainer.train(settings, resume, overwrite, init_from, quiet, [RunPictures()]))


@app.command()
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


@app.command()
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


class _OptionalTile(TyperCommand):
    """``--tile`` may stand without a size: what follows is then another option, or a file that is no size."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        following = [*arguments[1:], "-"]
        words: list[str] = []
        for word, after in zip(arguments, following, strict=True):
            words.append(word)
            if word == "--tile" and not after[:1].isdigit() and after != "auto":
                words.append("auto")
        return super().parse_args(context, words)


@app.command(cls=_OptionalTile)
def predict(
    model: PredictModel,
    inputs: Annotated[list[str], typer.Argument(help="Images, videos, folders or glob patterns.")],
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("predictions"),
    views: Views = "1",
    pictures: Annotated[bool, typer.Option(help="Also write coloured pictures of images and predictions.")] = True,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="[SIZE]",
            help="Predict images in overlapping tiles at their own resolution, whatever their size: 512 pixels per "
            "side, or 384x512 (height x width); without a number about the size of the training images.",
        ),
    ] = None,
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
    _print(out)


@app.command()
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
    from tasktokens.errors import ConfigError

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


@app.command()
def discover(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    out: Annotated[Path, typer.Option(help="Output folder.")],
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TASK=]NUMBER",
            help="Confidence, 0 to 1, that a pixel must exceed to be kept: 0.5 for all tasks, depth=0.5 for one task; "
            "may be repeated. Default: the task's own, fixed, such as 0.9 for classes (docs/concepts/discovery.md).",
            autocompletion=cli_completion.thresholds,
        ),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|LIST",
            help="How the network sees each image, as for predict; default: as the run's own teacher saw them.",
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=FOLDER",
            help="Labels with confidences that another model or a person made, as the discovered labels of a task; may "
            "be repeated.",
        ),
    ] = None,
    root: Root = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Also write coloured pictures of images and labels.")
    ] = False,
    page: Annotated[
        bool,
        typer.Option(
            "--page", help="Also write discovery.html: table, histograms of confidence, least confident images."
        ),
    ] = False,
    images: cli_shards.Images = None,
    shards: cli_shards.Shards = None,
    to: cli_shards.To = None,
    engine: cli_shards.Engine = None,
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
    if cli_shards.wanted(images, shards, to, engine):
        cli_shards.refuse({"--teacher": teachers, "--pictures": pictures, "--page": page})
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


app.command()(cli_export.export)
app.command()(cli_serve.serve)


@app.command()
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


@app.command()
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


@app.command()
def prepare(
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "--from",
            help="Kind of data set; `tasktokens list` shows all.",
            autocompletion=cli_completion.data_kinds,
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


@app.command()
def compare(
    suite: Annotated[
        str | None,
        typer.Argument(
            help="quick, nyud, nyud_segnet, cityscapes, pascal_context (--list says more), a YAML file, or results to "
            "show (JSON).",
            autocompletion=cli_completion.suites,
        ),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Output folder; default: runs/compare/SUITE.")] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="In place of the suite's, such as mtl,htt.", autocompletion=cli_completion.methods),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="In place of the suite's, such as 0,1,2.")] = None,
    labels: Annotated[str | None, typer.Option(help="one, random, full, shares such as 0.1, or CSV files.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps per network.")] = None,
    split: Annotated[str | None, typer.Option(help="What to measure on, such as test or holdout.")] = None,
    tuned: Annotated[
        Path | None,
        typer.Option(help="Results of settings to choose from, on held-out images: each method takes its best."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; default: one per GPU or core.")] = None,
    as_json: AsJson = False,
    list_suites: Annotated[
        bool, typer.Option("--list", help="Say what each suite is that comes with the package.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train and measure every method of a suite: one table, one page. The same command goes on where it stopped."""
    from tasktokens.reporting.comparison.compare import compare as run
    from tasktokens.reporting.comparison.suite import about, print_suites, shipped
    from tasktokens.reporting.comparison.tables import parse_list, print_lines, print_results_file

    if list_suites:
        console.print_json({name: about(name) for name in shipped()}) if as_json else print_suites()
        return
    if suite is None:
        raise ConfigError("compare needs a suite: a YAML file, or one of those that `tasktokens compare --list` names")
    if suite.endswith(".json"):
        print_results_file(Path(suite), as_json)
        return
    found = run(
        suite, out, overrides or (), jobs, quiet, tuned, methods=parse_list("--methods", methods),
        seeds=parse_list("--seeds", seeds, int), labels=parse_list("--labels", labels), steps=steps, split=split,
    )  # fmt: skip
    if as_json:
        console.print_json(found.rows)
    else:
        print_lines(found.columns, found.lines)
        for each in found.equal_shares:
            print(each.sentence())
        print(found.folder / "report.html")


@app.command()
def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER] | RUN RUN...", help="A folder of runs to list (default: runs/), or runs to compare."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split to compare on; default: run.evaluate of the first run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the runs in a folder, or compare two or more runs: settings that differ, metrics, change from the first."""
    from tasktokens.reporting import compare_runs
    from tasktokens.reporting import runs as listing

    folders = folders or [Path("runs")]
    if len(folders) == 1:
        found = listing.list_runs(folders[0])
        console.print_json(listing.to_json(found)) if as_json else listing.print_runs(found)
    else:
        compared = compare_runs.compare_runs(folders, split)
        console.print_json(compared) if as_json else compare_runs.print_comparison(compared)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the kinds of tasks, networks, methods, data sets, metrics and backbones."""
    from tasktokens.reporting.tables import choices, print_choices

    console.print_json(choices()) if as_json else print_choices()


app.command()(cli_hub.push)
app.command()(cli_hub.pull)


def main() -> None:
    """Entry point; see `exit_codes` for how it ends."""
    console.replace_unprintable()
    with exit_codes():
        app()


def _print(text: object) -> None:
    """Print a result on the first rank only; a closed output is ignored."""
    if launched_rank() == 0:
        with console.ignore_lost_output():
            print(text, flush=True)


if __name__ == "__main__":
    main()
