"""``tasktokens serve``: the process that listens."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasktokens.errors import ConfigError
from tasktokens.inference.predictor import Predictor
from tasktokens.serving.limits import Limits
from tasktokens.utils import console
from tasktokens.utils.own_host import is_loopback, page_address

OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False", "GRADIO_SSR_MODE": "False",
}  # fmt: skip
"""The environment in which gradio asks nothing of the network; set before it is imported."""


def serve(
    model: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    device: str | None = None,
    page: bool = True,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve a model until the process is interrupted.

    Args:
        model: a run, its ``best``, or a model folder.
        host: the address to listen on; the default is reachable from this machine alone.
        port: 0 for any that is free.
        limits: of requests; default: `Limits`.
        device: see `tasktokens.load`.
        page: also serve the page for people, not the API alone.
        announce: is called with the server's address when it listens.

    Raises:
        CheckpointError: there is no model, or it is damaged.
        ConfigError: the packages of the extra ``serve`` are missing, or the address cannot be listened on.
    """
    with _listening(host, port) as listener, _private_folder() as folder:
        os.environ.update(OFFLINE, GRADIO_TEMP_DIR=folder)
        try:
            import uvicorn

            from tasktokens.serving.application import create_app
        except ImportError as error:
            raise ConfigError(
                f"tasktokens serve needs the package {error.name}: pip install 'tasktokens[serve]'"
            ) from error
        limits, address = limits or Limits(), (host, listener.getsockname()[1])
        predictor = Predictor(model, device)
        app = create_app(predictor, _name(Path(model)), limits, address, page)
        if not is_loopback(host):
            console.say(
                f"warning: whoever reaches {host}:{address[1]} can use the model; put a proxy with TLS and a login "
                f"before it (docs/operate/security.md)"
            )
        announce(page_address(*address))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=3, server_header=False, ws="none"
        )
        uvicorn.Server(config).run([listener])


def _name(model: Path) -> str:
    """What clients are told: not where on this machine the model lies."""
    parts = model.resolve().parts
    return "/".join(parts[-2:] if parts[-1] in ("best", "model") else parts[-1:])


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "is in use; choose another --port, or 0 for any" if taken else f"cannot be listened on ({error})"
        raise ConfigError(f"the address {host}:{port} {why}") from error
    with listener:
        yield listener


@contextmanager
def _private_folder() -> Iterator[str]:
    """Where uploads of the page lie until they are read: for this user alone, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="tasktokens-serve-", ignore_cleanup_errors=True) as folder:
        yield folder
