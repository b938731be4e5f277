"""The command line: each verb is a function of `tasktokens.commands`.

Heavy imports happen inside the verbs, so ``--help`` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from tasktokens.commands import compare, data, discover, export, hub, predict, review, serve, train
from tasktokens.utils import console
from tasktokens.utils.exit_codes import exit_codes
from tasktokens.utils.memory import keep_freed_memory

app = typer.Typer(
    name="tasktokens",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
"""The command line; each verb is a command."""

app.command()(train.demo)
app.command()(train.train)
app.command()(data.check)
app.command()(predict.evaluate)
app.command(cls=predict.OptionalTile)(predict.predict)
app.command()(predict.explain)
app.command()(discover.discover)
app.command()(export.export)
app.command()(serve.serve)
app.command()(data.init)
app.command()(data.rooms)
app.command()(data.prepare)
app.command()(compare.compare)
app.command()(compare.runs)
app.command("list")(compare.list_)
app.command()(hub.push)
app.command()(hub.pull)
app.add_typer(review.app, name="review", help="Review discovered labels: list, page, to and from annotation tools.")


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


def main() -> None:
    """Entry point; see `exit_codes` for how it ends."""
    console.replace_unprintable()
    with exit_codes():
        app()


if __name__ == "__main__":
    main()
