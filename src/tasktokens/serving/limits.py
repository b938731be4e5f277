"""What a server accepts, and the answers where it does not."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from tasktokens.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        bytes: of a request.
        pixels: of an image, by its header: more are refused before anything is decoded.
        queue: requests in progress, those that wait for the model included; more are refused with 503.
        seconds: that a request may take, from its last byte on (and as long for the body itself); then 504.
        batch: images of one size that go through the network together; default: 16 on a GPU, 1 on a CPU, where more
            takes memory and is no faster.

    Raises:
        ConfigError: a value that is not above 0.

    Examples:
        >>> Limits(seconds=5).queue
        32
        >>> Limits(queue=0)
        Traceback (most recent call last):
        tasktokens.errors.ConfigError: queue must be above 0, found 0
    """

    bytes: int = 32 * 2**20
    pixels: int = 2**24
    queue: int = 32
    seconds: float = 60
    batch: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{field.name} must be above 0, found {value}")


class RefusedError(Exception):
    """A request that gets no prediction.

    Args:
        status: of HTTP.
        message: what was expected and what was found, for the client.
        retry_after: seconds after which the client may ask again.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


def too_large(limits: Limits) -> RefusedError:
    """413: more bytes than allowed."""
    return RefusedError(413, f"a request may have {limits.bytes} bytes; send a smaller image")


def too_slow(limits: Limits) -> RefusedError:
    """504: no prediction in time."""
    return RefusedError(504, f"no prediction within {limits.seconds:g} seconds; try a smaller image, or later")
