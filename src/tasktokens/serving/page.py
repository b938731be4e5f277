"""The page for people: drop an image, see every task, move the threshold, click a pixel."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import gradio as gr
from fastapi import FastAPI, File, UploadFile
from starlette.responses import JSONResponse

from tasktokens.serving.api import in_time
from tasktokens.serving.page_filter import PAGE_IMAGE
from tasktokens.serving.panels import CLICKS, CSS, DROP, DROPPED, hint, message, panels, pixel
from tasktokens.serving.recent import Recent, gather
from tasktokens.serving.service import Service

_FORGOTTEN = "this prediction is no longer kept; drop the image once more"
_CLICK = "Click a picture to see the values of a pixel."


def mount_page(app: FastAPI, service: Service) -> None:
    """Put the page at ``/`` of an application whose own routes come first; `PageFilter` must stand before it."""
    recent = Recent()

    @app.post(PAGE_IMAGE, include_in_schema=False)
    async def image_(image: Annotated[UploadFile, File()]) -> JSONResponse:
        data = await image.read()
        await asyncio.wrap_future(service.check(data))
        gathered = await in_time(service, data, gather)
        return JSONResponse({"key": recent.add(gathered)}, headers={"Cache-Control": "no-store"})

    gr.mount_gradio_app(
        app, _Page(service, recent).blocks, path="/", footer_links=[], run_history=False, show_error=False,
        ssr_mode=False, mcp_server=False, enable_monitoring=False, pwa=False, css=CSS,
        theme=gr.themes.Default(primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    )  # fmt: skip


class _Page:
    """Components and what they do; predictions are kept by `Recent`, so that neither files nor sessions hold any."""

    def __init__(self, service: Service, recent: Recent) -> None:
        self.recent = recent
        tasks = ", ".join(f"{name} ({task.kind})" for name, task in service.predictor.tasks.items())
        with gr.Blocks(title="TaskTokens", analytics_enabled=False, fill_width=True) as self.blocks:
            gr.HTML(f"<h1>TaskTokens</h1>{hint(f'{service.name} predicts {tasks}.')}")
            key = gr.State("")
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    drop = gr.HTML(DROP, elem_id="upload", js_on_load=DROPPED, apply_default_css=False)
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
            private: dict[str, Any] = {
                "api_visibility": "private", "concurrency_limit": service.limits.queue, "show_progress": "hidden",
            }  # fmt: skip
            drop.upload(self._open, threshold, [key, pictures, values], **private)
            threshold.change(self._show, [key, threshold], pictures, trigger_mode="always_last", **private)
            pictures.click(self._pick, [key, threshold], values, **private)
            self.blocks.queue(max_size=4 * service.limits.queue)

    def _open(self, threshold: float, event: gr.EventData) -> tuple[str, str, str]:
        """Key, pictures and the hint for an image that was sent; of a bad one the message."""
        answer = event._data if isinstance(event._data, dict) else {}
        key, error = str(answer.get("key", "")), str(answer.get("error", _FORGOTTEN))
        gathered = self.recent.get(key)
        if gathered is None:
            return "", message(error[:1000], error=True), ""
        return key, panels(gathered, key, threshold), hint(_CLICK)

    def _show(self, key: str, threshold: float) -> Any:
        """The pictures at another threshold."""
        if not key:
            return gr.skip()
        gathered = self.recent.get(key)
        return message(_FORGOTTEN, error=True) if gathered is None else panels(gathered, key, threshold)

    def _pick(self, key: str, threshold: float, event: gr.EventData) -> Any:
        """The values of the pixel that was clicked."""
        place = event._data if isinstance(event._data, dict) else {}
        across, down = place.get("x"), place.get("y")
        if not key or not isinstance(across, int | float) or not isinstance(down, int | float):
            return gr.skip()
        gathered = self.recent.get(key)
        if gathered is None:
            return message(_FORGOTTEN, error=True)
        return pixel(gathered, min(1.0, max(0.0, across)), min(1.0, max(0.0, down)), threshold)
