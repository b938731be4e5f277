"""A trained model over HTTP: a page for people and an API for programs (extra ``serve``).

`limits` says what is accepted, `uploads` reads it, `worker` owns the model, `service` puts the two behind a queue,
`answers` writes JSON, PNG and npz, `api` is the HTTP interface, `guard` what stands before it, `page` the page, and
`server` the process.
"""

from __future__ import annotations

from tasktokens.serving.limits import Limits

__all__ = ["Limits"]
