"""The verbs that compare: ``compare``, ``runs`` and ``list``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasktokens.commands import completion
from tasktokens.commands.options import AsJson, Overrides, Quiet
from tasktokens.errors import ConfigError
from tasktokens.utils import console


def compare(
    suite: Annotated[
        str | None,
        typer.Argument(
            help="quick, nyud, nyud_segnet, cityscapes, pascal_context (--list says more), a YAML file, or results to "
            "show (JSON).",
            autocompletion=completion.suites,
        ),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Output folder; default: runs/compare/SUITE.")] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="In place of the suite's, such as mtl,htt.", autocompletion=completion.methods),
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


def list_(as_json: AsJson = False) -> None:
    """List the kinds of tasks, networks, methods, data sets, metrics and backbones."""
    from tasktokens.reporting.tables import choices, print_choices

    console.print_json(choices()) if as_json else print_choices()
