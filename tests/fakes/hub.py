"""A Hugging Face Hub of this machine: the few requests that its client makes to create, list, read and commit.

Written from the client's own requests. It keeps repositories in memory, with commits, branches, privacy and tokens.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits by their hash; branches and tags by name."""

    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, branch: str = "main") -> str:
        oid = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[oid] = dict(files)
        self.refs[branch] = oid
        return oid

    def oid(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)

    @property
    def main(self) -> Files:
        return self.commits[self.refs["main"]]


@dataclass
class FakeHub:
    """What the server knows, and what tests change: the token it takes, how many bytes of a file it sends."""

    token: str = "hf_right"
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    breaks_after: int | None = None
    ignores: str | None = None
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def add(self, name: str, files: Files, kind: str = "model", **state: Any) -> Repository:
        repository = self.repositories[kind, name] = Repository(**state)
        repository.commit(files)
        return repository


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Nothing on the screen."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    # -- answers ---------------------------------------------------------------------------------------------------
    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        parts = path.strip("/").split("/")
        if parts == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts[0] == "api" and parts[1] in ("models", "datasets"):
            self._api(parts[1].removesuffix("s"), "/".join(parts[2:4]), parts[4:], body)
        elif "resolve" not in parts:
            self._error(404, None, "Not found")
        else:
            kind = "dataset" if parts[0] == "datasets" else "model"
            parts = parts[1:] if kind == "dataset" else parts
            self._file(kind, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def _create(self, asked: dict[str, Any]) -> None:
        if not self._has_token():
            self._error(401, None, "Invalid username or password.")
            return
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        key = (asked.get("type") or "model", name)
        if not name.startswith("user/"):
            self._error(403, None, f"You don't have the rights to create a {key[0]} under this namespace")
            return
        if key in self.hub.repositories:
            self._error(409, None, "You already created this repo", {"url": f"{self.hub.url}/{name}"})
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"  # by the client's version
        self.hub.add(name, {".gitattributes": b""}, key[0], private=private)
        self._json({"url": f"{self.hub.url}/{'datasets/' if key[0] == 'dataset' else ''}{name}", "name": name})

    def _has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _found(self, kind: str, name: str) -> Repository | None:
        repository = self.hub.repositories.get((kind, name))
        if repository is None or (repository.private and not self._has_token()):
            self._error(404 if self._has_token() else 401, "RepoNotFound", "Repository not found")
            return None
        return repository

    def _at(self, repository: Repository, revision: str) -> tuple[str, Files] | None:
        oid = repository.oid(revision)
        if oid is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return oid, repository.commits[oid]

    def _api(self, kind: str, name: str, rest: list[str], body: bytes) -> None:
        repository = self._found(kind, name)
        if repository is None:
            return
        what, revision = rest[0] if rest else "revision", "/".join(rest[1:]) or "main"
        if what == "branch":
            repository.refs.setdefault(revision, repository.refs["main"])
            self._json({})
            return
        if what in ("tree", "paths-info"):
            revision = rest[1]
        at = self._at(repository, revision)
        if at is None:
            return
        oid, files = at
        if what == "revision":
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": name, "sha": oid, "private": repository.private, "siblings": siblings, "tags": []})
        elif what in ("tree", "paths-info"):
            self._json([{"type": "file", "path": p, "size": len(c), "oid": _etag(c)} for p, c in files.items()])
        elif not self._has_token():
            self._error(403, None, "Forbidden: you need write access")
        elif what == "preupload":
            asked = json.loads(body)["files"]
            self._json({"files": [{"path": f["path"], "uploadMode": "regular",
                                   "shouldIgnore": f["path"] == self.hub.ignores} for f in asked]})  # fmt: skip
        else:
            self._commit(repository, revision, name, files, body)

    def _commit(self, repository: Repository, branch: str, name: str, files: Files, body: bytes) -> None:
        new = dict(files)
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                new[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del new[line["value"]["path"]]
        oid = repository.commit(new, branch)
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid, "success": True})

    def _file(self, kind: str, name: str, revision: str, path: str) -> None:
        repository = self._found(kind, name)
        at = None if repository is None else self._at(repository, revision)
        if repository is None or at is None:
            return
        if repository.gated and not self._has_token():
            self._error(403, "GatedRepo", f"Access to model {name} is restricted.")
            return
        content = at[1].get(path)
        if content is None:
            self._error(404, "EntryNotFound", f"{path} does not exist")
            return
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        rest = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{_etag(content)}"')
        self.send_header("X-Repo-Commit", at[0])
        self.send_header("Content-Length", str(len(rest)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.breaks_after is not None and len(rest) > self.hub.breaks_after:
            self.wfile.write(rest[: self.hub.breaks_after])
            self.close_connection = True
        else:
            self.wfile.write(rest)

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for key, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _error(self, status: int, code: str | None, message: str, more: dict[str, str] | None = None) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._json({"error": message, **(more or {})}, status, headers)


def _etag(content: bytes) -> str:
    """The hash that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A hub that answers in the block, at its `url`."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
