"""The HTTP interface: ``POST /predict``, ``/health``, ``/metrics``, and its description at ``/docs``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, File, Header, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from tasktokens.serving.answers import Health, PredictionAnswer, Problem, json_answer, npz_answer, png_answer
from tasktokens.serving.limits import RefusedError, too_slow
from tasktokens.serving.service import Asked, Service

Answer = TypeVar("Answer")

Format = Literal["json", "png", "npz"]
MEDIA: dict[Format, str] = {"json": "application/json", "png": "image/png", "npz": "application/x-npz"}
"""Media type of each format of an answer."""

_Responses = dict[int | str, dict[str, Any]]

_REFUSALS: dict[int, str] = {
    400: "The file is empty, or the form is broken.",
    406: "None of the formats in `Accept` can be sent.",
    408: "The request did not arrive in time.",
    413: "More bytes or pixels than allowed.",
    415: "The file is no picture of a known format.",
    422: "A field is missing or wrong, or the picture is cut off or damaged.",
    500: "The model failed.",
    503: "Too many requests are in progress; `Retry-After` says when to come back.",
    504: "No prediction within the time limit.",
}


def create_api(service: Service) -> FastAPI:
    """The application for one model; closing it closes the service."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPIOffline(
        title="TaskTokens",
        version=version("tasktokens"),
        redoc_url=None,
        lifespan=lifespan,
        description=_about(service),
    )
    app.state.service = service
    app.exception_handler(RefusedError)(_refused)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http_error)
    _add_predict(app, service)
    _add_operation(app, service)
    return app


def _add_predict(app: FastAPI, service: Service) -> None:
    refusals: _Responses = {status: {"model": Problem, "description": text} for status, text in _REFUSALS.items()}
    refusals[503]["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    binary = {MEDIA[name]: {"schema": {"type": "string", "format": "binary"}} for name in ("png", "npz")}

    @app.post(
        "/predict",
        tags=["Model"],
        summary="Predict all tasks of an image",
        response_model=PredictionAnswer,
        responses={200: {"content": binary, "description": "The prediction, in the format asked for."}, **refusals},
    )
    async def predict(
        image: Annotated[
            UploadFile,
            File(
                description="A picture: JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000 or PPM.",
                json_schema_extra={"format": "binary"},  # by which Swagger UI offers to choose a file
            ),
        ],
        format: Annotated[
            Format | None,
            Query(
                description="json: each task's picture, legend and mean confidence. png: one picture, as `tasktokens "
                "predict` draws it. npz: values and confidences at the image's own size. Default: by `Accept`."
            ),
        ] = None,
        threshold: Annotated[
            float | None,
            Query(ge=0, le=1, description="Pixels whose confidence does not exceed it are void; default: none is."),
        ] = None,
        accept: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> Response:
        started = time.monotonic()
        chosen = format or _accepted(accept or "*/*")
        data = await image.read()
        await asyncio.wrap_future(service.check(data))
        answer = await in_time(service, data, _writer(service, chosen, threshold))
        service.monitor.seconds.observe(time.monotonic() - started)
        return Response(answer, media_type=MEDIA[chosen], headers={"Cache-Control": "no-store"})


def _add_operation(app: FastAPI, service: Service) -> None:
    health: _Responses = {
        503: {"model": Health, "description": "The thread of the model has ended; start the server anew."}
    }

    @app.get(
        "/health", tags=["Operation"], summary="Whether the model answers", response_model=Health, responses=health
    )
    async def health_(response: Response) -> Health:
        response.status_code = 200 if service.worker.is_alive else 503
        predictor = service.predictor
        return Health(
            status="ok" if service.worker.is_alive else "stopped", version=version("tasktokens"), model=service.name,
            device=str(predictor.device), tasks={name: task.kind for name, task in predictor.tasks.items()},
        )  # fmt: skip

    plain: _Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @app.get(
        "/metrics", tags=["Operation"], summary="Counters for Prometheus", response_class=Response, responses=plain
    )
    async def metrics() -> Response:
        return Response(service.monitor.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _writer(service: Service, format: Format, threshold: float | None) -> Callable[[Asked], bytes]:
    if format == "json":
        return lambda asked: json_answer(asked, service.name, threshold)
    write = png_answer if format == "png" else npz_answer
    return lambda asked: write(asked, threshold)


async def in_time(service: Service, data: bytes, write: Callable[[Asked], Answer]) -> Answer:
    """What a request gets. Raises `RefusedError`; 504 also while the image is decoded or the answer written."""
    future = asyncio.wrap_future(service.submit(data, write))
    try:
        return await asyncio.wait_for(future, service.limits.seconds)
    except TimeoutError as error:
        raise too_slow(service.limits) from error


def _accepted(accept: str) -> Format:
    """The format that an ``Accept`` header prefers; JSON where several are equal. Raises `RefusedError`."""
    quality: dict[Format, float] = {}
    for format, media in MEDIA.items():
        ranges = {media: 3, f"{media.partition('/')[0]}/*": 2, "*/*": 1}
        found = [(ranges[kind], q) for kind, q in _ranges(accept) if kind in ranges]
        quality[format] = max(found)[1] if found else 0.0  # the most specific range counts
    best = max(quality, key=lambda format: quality[format])
    if quality[best] <= 0:
        raise RefusedError(406, f"Accept must allow one of {', '.join(MEDIA.values())}, found '{accept[:100]}'")
    return best


def _ranges(accept: str) -> list[tuple[str, float]]:
    ranges = []
    for part in accept.split(","):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        qualities = [word[2:] for word in parameters if word.startswith("q=")]
        try:
            ranges.append((kind, float(qualities[0]) if qualities else 1.0))
        except ValueError:
            ranges.append((kind, 0.0))
    return ranges


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse({"error": error.message}, error.status, headers)


async def _invalid(_: Request, error: Exception) -> Response:
    """A missing or wrong field, in a sentence."""
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    return JSONResponse({"error": "; ".join(faults)[:1000]}, 422)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


def _about(service: Service) -> str:
    tasks = ", ".join(f"`{name}` ({task.kind})" for name, task in service.predictor.tasks.items())
    limits = service.limits
    return (
        f"Predictions of the model `{service.name}`: {tasks}.\n\nA request has at most {limits.bytes / 2**20:.4g} MiB, "
        f"an image {limits.pixels / 1e6:.4g} megapixels; {limits.queue} requests are taken at a time, each for "
        f"{limits.seconds:g} seconds. Errors are JSON with the field `error`. The [page](/) is for people."
    )
