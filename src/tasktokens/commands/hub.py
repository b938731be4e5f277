"""``tasktokens push`` and ``tasktokens pull``: models and data sets to and from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Licence = Annotated[
    str | None,
    typer.Option(
        "--license", help="Its identifier on the Hub, such as apache-2.0, cc-by-nc-4.0 or other; default: unknown."
    ),
]


def push(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|FOLDER", help="A finished run, its best, a model folder, or a data folder.")
    ],
    repository: Annotated[
        str | None,
        typer.Argument(metavar="[USER/NAME[@BRANCH][/FOLDER]]", help="On the Hub; made where there is none."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public/--private", help="Whether everybody may see it, or its owner alone.")
    ] = False,
    license: Licence = None,
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="A data set of the Hub that the model learned from."),
    ] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the folder of a model here, and push nothing.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="With --out: replace a model that is there.")] = False,
) -> None:
    """Push a model or a data folder with a card to the Hugging Face Hub; log in with `hf auth login` or HF_TOKEN."""
    from tasktokens.errors import ConfigError

    is_data = (source / "dataset.yaml").is_file()
    if (repository is None) == (out is None):
        raise ConfigError("push needs one of: user/name of the Hub, or --out FOLDER to write to")
    if is_data and (out is not None or datasets):
        raise ConfigError(f"{source} is a data folder; --out and --dataset go with a model")
    if is_data:
        from tasktokens.datasets.share import push_dataset

        print(push_dataset(source, str(repository), not public, None, license, message))
        return
    from tasktokens.inference.share import push_to_hub, save_pretrained

    if out is not None:
        print(save_pretrained(source, out, license, datasets or (), overwrite))
    else:
        print(push_to_hub(source, str(repository), not public, None, license, datasets or (), message))


def pull(
    address: Annotated[
        str, typer.Argument(metavar="hf://[datasets/]USER/NAME", help="With @REVISION and /FOLDER where wanted.")
    ],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
) -> None:
    """Download a model or a data set of the Hugging Face Hub into a folder."""
    from tasktokens.hub.download import pull as run

    print(run(address, out))
