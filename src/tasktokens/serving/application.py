"""The whole application: API, page, and what stands before them."""

from __future__ import annotations

from starlette.types import ASGIApp

from tasktokens.inference.predictor import Predictor
from tasktokens.serving.api import create_api
from tasktokens.serving.guard import Guard
from tasktokens.serving.limits import Limits
from tasktokens.serving.page_filter import PageFilter
from tasktokens.serving.service import Service


def create_app(predictor: Predictor, name: str, limits: Limits, address: tuple[str, int], page: bool = True) -> ASGIApp:
    """An ASGI application for one model.

    Args:
        predictor: the model; nothing else may use it.
        name: of the model, for answers.
        limits: what is accepted.
        address: host and port that will be listened on, for `Guard`.
        page: whether there is a page for people at ``/``.
    """
    service = Service(predictor, name, limits)
    app = create_api(service)
    if not page:
        return Guard(app, limits, service.monitor, address)
    from tasktokens.serving.page import mount_page

    mount_page(app, service)
    return Guard(PageFilter(app), limits, service.monitor, address)
