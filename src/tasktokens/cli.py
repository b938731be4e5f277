"""The command line: one verb a thing to do. Heavy imports happen inside the verbs, so ``--help`` answers at once."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer

from tasktokens.errors import ConfigError, OtherRankError, TaskTokensError
from tasktokens.utils import console, strict_json

app = typer.Typer(
    name="tasktokens",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"tasktokens {version('tasktokens')}")
        raise typer.Exit


@app.callback()
def tasktokens(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and nothing else.")
    ] = False,
) -> None:
    """One network for many dense prediction tasks from partially labelled images; discovers the missing labels."""


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what lies in the output folder.")]
Views = Annotated[
    int, typer.Option(min=1, max=2, help="2: look at images mirrored and enlarged too, in 2.6 times the time.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Model = Annotated[Path, typer.Argument(help="A finished run, or its model folder.")]
Inputs = Annotated[list[str], typer.Argument(help="Images, folders or glob patterns.")]
Root = Annotated[Path | None, typer.Option(help="Where the run's data lies now, if it was moved.")]
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
    from tasktokens.reporting.demo import demo as run

    print(run(out, seed, overwrite, quiet))


@app.command()
def train(
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; see configs/.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Kind of the data, as `tasktokens list` names them (data.kind).")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the data (data.root).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Start a new run from another run's weights (method.stage1_steps=0: they are the teacher)."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train as configured into the run folder (run.dir)."""
    from tasktokens.config import load_config, load_run_config

    # JSON is YAML in which a folder called 2024 is no number; YAML knows no pairs of surrogates, as an emoji's in JSON.
    given = {"kind": data, "root": root}
    chosen = [
        f"data.{key}={strict_json.dumps(str(value), ensure_ascii=False)}" for key, value in given.items() if value
    ]
    settings = (load_run_config if resume else load_config)(config, [*chosen, *(overrides or [])])
    from tasktokens.reporting.train import RunPictures
    from tasktokens.training import trainer

    _print(trainer.train(settings, resume, overwrite, init_from, quiet, [RunPictures()]))


@app.command()
def check(
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="A folder with a dataset.yaml.")] = None,
    data: Annotated[str | None, typer.Option(help="Another kind of data, such as nyud.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where data of that kind lies.")] = None,
    config: Annotated[Path | None, typer.Option(help="Or: a YAML file of settings whose data is meant.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write this page, with panels of images and labels.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: as many as pay.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Examine at most so many images, evenly spread.")] = None,
    quiet: Quiet = False,
) -> None:
    """Look at every image and label: statistics, and what is wrong. Exit code 1 where something is."""
    from tasktokens.inspection.check import check as run
    from tasktokens.inspection.check import print_json, print_report, settings

    report = run(settings(folder, data, root, config), workers, limit, html, quiet)
    print_json(report) if as_json else print_report(report)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run, or RUN/best: its best network by validation.")],
    split: Annotated[
        str | None, typer.Option(help="A split of the data, or holdout; default: what the run measures itself on.")
    ] = None,
    full: Annotated[bool, typer.Option("--full-size", help="At the labels' own size, however the run did.")] = False,
    protocol: Annotated[
        Literal["correct", "paper"], typer.Option(help="correct, or paper: with the quirks of published code.")
    ] = "correct",
    root: Root = None,
) -> None:
    """Print a run's metrics on a split and write them to evaluation-SPLIT.json in the run."""
    from tasktokens.inference.evaluate import evaluate as evaluate_run
    from tasktokens.reporting.tables import print_results

    at: Literal["full"] | None = "full" if full else None
    evaluate_run(run, split, at=at, protocol=protocol, root=root, show=lambda results: print_results(run, results))


@app.command()
def predict(
    model: Model,
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("predictions"),
    views: Views = 1,
    pictures: Annotated[bool, typer.Option(help="Also draw images and predictions in colours.")] = True,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write label files, confidences and coloured pictures of all tasks for images of any size."""
    from tasktokens.inference.predict import predict as run

    run(model, inputs, out, overwrite, quiet, views, pictures)
    _print(out)


@app.command()
def explain(
    model: Model,
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("explanations"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Draw what the network sees in images: task gates, affinity between tasks, token maps, confidences."""
    from tasktokens.inference.explain import explain as run

    run(model, inputs, out, overwrite, quiet)
    print(out)


@app.command()
def discover(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TASK=]NUMBER",
            help="Confidence, 0 to 1, that a pixel must exceed, else it is void: 0.5 for all tasks, depth=0.5 for one; "
            "can be repeated. Default: each task's own (docs/data.md).",
        ),
    ] = None,
    views: Views = 2,
    root: Root = None,
    pictures: Annotated[bool, typer.Option("--pictures", help="Also draw images and labels in colours.")] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Fill in the missing labels of a run's training images: a new data folder, with confidences."""
    from tasktokens.inference.discover import discover as discover_run
    from tasktokens.inference.discover import parse_thresholds
    from tasktokens.reporting.tables import print_discovery

    thresholds = parse_thresholds(threshold or ())
    discovery = discover_run(run, out, thresholds, overwrite, quiet, views, pictures, root)
    if _rank() == 0:
        print_discovery(discovery)
        print(discovery)


@app.command()
def init(
    folder: Annotated[
        Path,
        typer.Argument(help="A folder of images/ and one folder of labels per task, or of a table that names them."),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a dataset.yaml (and manifest.csv) that is there.")
    ] = False,
) -> None:
    """Write the dataset.yaml of your own data folder by looking at it."""
    from tasktokens.inspection.init import init as run
    from tasktokens.inspection.init import print_inferred

    print_inferred(folder, run(folder, force))


@app.command()
def rooms(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    train: Annotated[int, typer.Option(min=1, help="Images for training.")] = 400,
    val: Annotated[int, typer.Option(min=1, help="Images for validation.")] = 40,
    test: Annotated[int, typer.Option(min=1, help="Images for the test.")] = 120,
    height: Annotated[int, typer.Option(min=16, help="Of the images, in pixels.")] = 96,
    width: Annotated[int, typer.Option(min=16, help="Of the images, in pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the rooms: another one, other rooms.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Render the embedded data set as a plain folder with labels of six tasks."""
    from tasktokens.config import parse_config
    from tasktokens.utils.lock import beside

    values = {"train": train, "val": val, "test": test, "render_seed": seed, "render_size": [height, width]}
    source: Any = parse_config({"data": {"kind": "rooms", **values}}, "rooms").data
    with beside(out):  # the folder itself appears when all is in it
        print(source.write(out, (height, width), progress=not quiet))


@app.command()
def prepare(
    data: Annotated[str | None, typer.Option(help="Kind of the data, as `tasktokens list` names them.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Where the data set lies; docs/datasets.md says what to get.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; an interrupted preparation goes on.")] = None,
    classes: Annotated[int | None, typer.Option(help="nyud: 13 or 40; cityscapes: 7 or 19.")] = None,
    depth: Annotated[str | None, typer.Option(help="cityscapes: inverse or metres.")] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Stretch to this size; default: as it is.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Belongs to --height.")] = None,
    jpeg: Annotated[int | None, typer.Option(min=1, max=100, help="Write images as JPEG of this quality.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave unreadable files out and list them.")
    ] = False,
    upright: Annotated[
        bool, typer.Option("--upright", help="Turn images by their EXIF orientation; labels stay as they are.")
    ] = False,
    verify: Annotated[Path | None, typer.Option(help="Only check the files of such a folder.")] = None,
    quiet: Quiet = False,
) -> None:
    """Turn a data set into a compact folder of JPEG and PNG files, which every verb takes as data.root."""
    from tasktokens.datasets import prepare as app_prepare

    if verify is not None:
        faults = app_prepare.verify(verify, quiet)
        print("\n".join(faults) or f"{verify}: all files are as they were written")
        raise typer.Exit(1 if faults else 0)
    values = {"kind": data, "root": root, "classes": classes, "depth": depth}
    source = app_prepare.source_settings({key: value for key, value in values.items() if value is not None})
    if out is None:
        raise ConfigError("--out is not set; name the folder to write")
    if (height is None) != (width is None):
        raise ConfigError("--height and --width belong together; give both or neither")
    size = (height, width) if height is not None and width is not None else None
    print(app_prepare.prepare(source, out, size, jpeg, workers, skip_corrupt, quiet, upright))


@app.command()
def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[FOLDER] | RUN RUN...", help="Default: runs/.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Compare on this split; default: the first run's own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """List the runs in a folder; or compare two and more: settings that differ, metrics, change against the first."""
    from tasktokens.reporting import runs as app_runs

    folders = folders or [Path("runs")]
    if len(folders) == 1:
        found = app_runs.list_runs(folders[0])
        print(app_runs.to_json(found)) if as_json else app_runs.print_runs(found)
    else:
        compared = app_runs.compare_runs(folders, split)
        print(strict_json.dumps(compared, indent=1)) if as_json else app_runs.print_comparison(compared)


@app.command("list")
def list_() -> None:
    """What there is to choose from: kinds of tasks, networks, methods, data, metrics, backbones."""
    from tasktokens.reporting.tables import print_choices

    print_choices()


def main() -> None:
    """Entry point. A user's mistake is one sentence and exit code 2; Ctrl-C is 130, SIGTERM 143."""
    console.print_what_the_console_can()
    # By an exception, so that what is half done is cleaned up on the way out.
    before = signal.signal(signal.SIGTERM, _end)
    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)  # a terminal that was closed; nohup ignores it
    before_hangup = signal.getsignal(hangup)
    if before_hangup != signal.SIG_IGN:
        signal.signal(hangup, _end)
    try:
        app()
    except SystemExit as leaving:
        if not leaving.code and _ranks_joined():
            # Threads of gloo that outlive Python now and then abort a process that has done all its work. Only here:
            # where one rank alone has failed, leaving could wait for the others.
            sys.modules["torch.distributed"].destroy_process_group()
        raise
    except OtherRankError:
        sys.exit(2)  # it was said there
    except TaskTokensError as error:
        _let_the_first_speak()
        console.say(f"error: {' '.join(str(error).split())}")
        sys.exit(2)
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
        console.drop_lost_streams()
        sys.exit(0)
    except OSError as error:
        # What happens to a disk or a folder is no mistake of the program: full, read-only, a name that is too long.
        where = f" ({error.filename})" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "no space is left on the disk" if full else error.strerror or error
        advice = "make room, then go on or start again" if full else "see that the path exists and can be used"
        console.say(f"error: {reason}{where}; {advice}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError as error:
        if not _ranks_joined() or not sys.modules["tasktokens.utils.distributed"].lost_contact(error):
            raise
        console.say(f"error: rank {_rank()} has lost contact with another rank, which says why")
        sys.exit(2)
    finally:
        signal.signal(hangup, before_hangup)
        signal.signal(signal.SIGTERM, before)


def _rank() -> int:
    """Which of the processes that a launcher started this one is."""
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdigit() else 0


def _print(text: object) -> None:
    """A result, once and not by every rank; nobody may be there to read it."""
    if _rank() == 0:
        with console.dispensable():
            print(text, flush=True)


def _ranks_joined() -> bool:
    torch = sys.modules.get("torch.distributed")
    return torch is not None and torch.is_available() and torch.is_initialized()


def _let_the_first_speak() -> None:
    """What is wrong before ranks know of each other is wrong on all: others speak only if nobody ends them."""
    if _rank() > 0 and not _ranks_joined():
        time.sleep(3)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
