"""The page for people: drop an image, see every task, move the threshold, click a pixel."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from tasktokens.serving.limits import RefusedError
from tasktokens.serving.panels import CLICKS, CSS, hint, message, panels, pixel
from tasktokens.serving.recent import Recent, gather
from tasktokens.serving.service import Service

_FORGOTTEN = "this prediction is no longer kept; drop the image once more"
_CLICK = "Click a picture to see the values of a pixel."
_KEEP_SECONDS = 60
"""How long an upload may lie in the folder of the page if nothing read it."""


def mount_page(app: FastAPI, service: Service) -> None:
    """Put the page at ``/`` of an application whose own routes come first."""
    page = _Page(service)
    gr.mount_gradio_app(
        app, page.blocks, path="/", footer_links=[], run_history=False, show_error=False, ssr_mode=False,
        mcp_server=False, enable_monitoring=False, pwa=False, max_file_size=service.limits.bytes, css=CSS,
        theme=gr.themes.Default(primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    )  # fmt: skip


class _Page:
    """Components and what they do; predictions are kept by `Recent`, so that files and sessions hold none."""

    def __init__(self, service: Service) -> None:
        self.service, self.recent = service, Recent()
        tasks = ", ".join(f"{name} ({task.kind})" for name, task in service.predictor.tasks.items())
        with gr.Blocks(
            title="TaskTokens", analytics_enabled=False, fill_width=True, delete_cache=(_KEEP_SECONDS, _KEEP_SECONDS)
        ) as self.blocks:
            gr.HTML(f"<h1>TaskTokens</h1>{hint(f'{service.name} predicts {tasks}.')}")
            key = gr.State("")
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    upload = gr.File(label="Image", type="filepath", height=140, elem_id="upload")
                    threshold = gr.Slider(
                        0, 1, 0, step=0.01, label="Threshold", elem_id="threshold",
                        info="Pixels whose confidence does not exceed it are void (black).",
                    )  # fmt: skip
                    values = gr.HTML(hint(_CLICK), elem_id="values", apply_default_css=False)
                with gr.Column(scale=3, min_width=320):
                    pictures = gr.HTML(
                        hint("Drop an image to see what the model predicts for it."), elem_id="pictures",
                        js_on_load=CLICKS, apply_default_css=False,
                    )  # fmt: skip
            gr.HTML('<p class="tt-hint">For programs: <a href="docs">the API</a>.</p>')
            private: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": service.limits.queue}
            upload.upload(self._predict, [upload, threshold], [key, pictures, values, upload], **private)
            threshold.release(self._show, [key, threshold], pictures, show_progress="hidden", **private)
            pictures.click(self._pick, [key, threshold], values, show_progress="hidden", **private)
            self.blocks.queue(max_size=service.limits.queue)

    def _predict(self, path: str, threshold: float) -> tuple[str, str, str, None]:
        """Key, pictures and the hint for an upload, and an empty place for the next; of a bad one a message."""
        try:
            data = Path(path).read_bytes()
            _delete(path)
            self.service.check(data).result()
            gathered = self.service.submit(data, gather).result(self.service.limits.seconds)
        except (RefusedError, TimeoutError, OSError) as error:
            return "", message(str(error) or "no prediction in time; try a smaller image", error=True), "", None
        key = self.recent.add(gathered)
        return key, panels(gathered, key, threshold), hint(_CLICK), None

    def _show(self, key: str, threshold: float) -> Any:
        """The pictures at another threshold."""
        if not key:
            return gr.skip()
        gathered = self.recent.get(key)
        return message(_FORGOTTEN, error=True) if gathered is None else panels(gathered, key, threshold)

    def _pick(self, key: str, threshold: float, event: gr.EventData) -> Any:
        """The values of the pixel that was clicked."""
        across, down = (event._data or {}).get("x"), (event._data or {}).get("y")
        if not key or not isinstance(across, int | float) or not isinstance(down, int | float):
            return gr.skip()
        gathered = self.recent.get(key)
        if gathered is None:
            return message(_FORGOTTEN, error=True)
        return pixel(gathered, min(1.0, max(0.0, across)), min(1.0, max(0.0, down)), threshold)


def _delete(path: str) -> None:
    """Remove an upload, and the folder that gradio made for it."""
    with contextlib.suppress(OSError):
        os.unlink(path)
        os.rmdir(os.path.dirname(path))
