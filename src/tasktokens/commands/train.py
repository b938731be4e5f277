"""``tasktokens demo`` and ``tasktokens train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasktokens.commands import completion
from tasktokens.commands.options import Overrides, Overwrite, Quiet
from tasktokens.commands.printing import print_result
from tasktokens.utils import strict_json


def demo(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of the visible labels, the networks and the order of images.")] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train, compare, discover, predict and report on an embedded data set. No downloads."""
    from tasktokens.reporting.demo import demo as run

    print(run(out, seed, overwrite, quiet))


def train(
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; see configs/.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Kind of data set (data.kind); `tasktokens list` shows all.", autocompletion=completion.data_kinds
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

    print_result(trainer.train(settings, resume, overwrite, init_from, quiet, [RunPictures()]))
