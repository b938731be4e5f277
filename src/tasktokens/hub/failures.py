"""What the Hub and its client raise, as one sentence that says what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tasktokens.errors import HubError, TaskTokensError
from tasktokens.hub.address import HubAddress

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@contextlib.contextmanager
def told_in_one_sentence(address: HubAddress, doing: str) -> Iterator[None]:
    """Raise `HubError` for whatever goes wrong in the block. ``doing``: ``downloaded`` or ``written``."""
    try:
        yield
    except (TaskTokensError, AssertionError):
        raise
    except Exception as error:  # the HTTP libraries of different versions have errors of their own
        raise HubError(f"{address} cannot be {doing}: {_reason(address, error)}") from error


def _reason(address: HubAddress, error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    what = "data set" if address.kind == "dataset" else "model"
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{'datasets/' if address.kind == 'dataset' else ''}{address.repository}"
        return f"its owner grants access on request; ask for it at {page}, then {LOG_IN}"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"the Hub has no {what} '{address.repository}' that you may see; check the name (a data set begins with "
            f"hf://datasets/), and where it is private, {LOG_IN}"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"'{address.repository}' has no revision '{address.revision}'; give one of its branches, tags or commits"
    if isinstance(error, OfflineModeIsEnabled) or (isinstance(error, LocalEntryNotFoundError) and is_offline()):
        return (
            f"HF_HUB_OFFLINE is set, and it is not complete in the cache {constants.HF_HUB_CACHE}; download it once "
            f"with a network, or copy the cache of a machine that has it"
        )
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return f"a file is missing there ({_first_line(error)})"
    if isinstance(error, LocalTokenNotFoundError):
        return f"there is no token; {LOG_IN}"
    if status in (401, 403):
        return f"the Hub refuses the token, or its rights do not suffice ({status}); {LOG_IN} with one that may"
    if status == 400:
        return f"the Hub refuses the request ({_first_line(error)})"
    if status == 429:
        return "the Hub allows no more requests for now; wait some minutes, then start again"
    if isinstance(error, HFValidationError):
        return f"its name is refused ({_first_line(error)})"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left for the cache {constants.HF_HUB_CACHE}; make room, or set HF_HOME to another disk"
    if isinstance(error, PermissionError):
        return f"the cache {constants.HF_HUB_CACHE} cannot be written; set HF_HOME to a folder of your own"
    if isinstance(error, HfHubHTTPError):
        return f"the Hub answers {status} ({_first_line(error)}); try again later"
    return f"the connection to {constants.ENDPOINT} fails or broke off ({_first_line(error)}); start again to resume"


def is_offline() -> bool:
    """Whether the user has told the client to ask nobody."""
    return bool(constants.HF_HUB_OFFLINE)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
    server = getattr(cause, "server_message", None)
    text = str(server) if server else str(cause)
    return " ".join(text.split())[:200] or type(cause).__name__
