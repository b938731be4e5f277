"""``tasktokens serve``: the verb that serves a model over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasktokens.commands.options import BatchSize


def serve(
    model: Annotated[Path, typer.Argument(help="A finished run, RUN/best, or a model folder.")],
    host: Annotated[
        str, typer.Option(help="The address to listen on; the default is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: any that is free.")] = 8000,
    device: Annotated[
        str | None, typer.Option(help="Such as cpu or cuda:1; default: the GPU, where there is one.")
    ] = None,
    page: Annotated[bool, typer.Option(help="Also serve the page for people, not the API alone.")] = True,
    max_mb: Annotated[float, typer.Option(min=0.001, help="MiB of a request.")] = 32,
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of an image.")] = 2**24,
    queue: Annotated[int, typer.Option(min=1, max=1024, help="Requests in progress; more are refused with 503.")] = 32,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take; then 504.")] = 60,
    batch_size: BatchSize = None,
) -> None:
    """Serve a model: a page that predicts what is dropped on it, and an HTTP API with its description at /docs."""
    from tasktokens.serving.limits import Limits
    from tasktokens.serving.server import serve as run

    limits = Limits(int(max_mb * 2**20), max_pixels, queue, timeout, batch_size)
    run(model, host, port, limits, device, page, announce=_announce)


def _announce(address: str) -> None:
    print(f"{address}\nopen this address in a browser (API: {address}docs); Ctrl-C ends the server", flush=True)
