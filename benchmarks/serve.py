"""A server under load, a third of it bad: ``benchmarks/results/serve.json``.

``good_ok`` counts photographs that were answered with 200 and a prediction of their own size, ``bad_4xx`` requests that
must be refused and were, with a sentence, ``crashes`` everything else: 5xx, a broken connection, a dead server.
``p95_s`` is of the good ones at this concurrency, ``bad_max_s`` of the slowest refusal (until its first line arrives:
the rest of a body that is too large is still being written then), ``memory_growth_mb`` what the
server's resident memory has grown by since the end of a first load of a fifth as many requests.

    python benchmarks/serve.py --out benchmarks/results/serve.json

The network is HTT on ResNet-18 as configured by default, with random weights, for 288x384: what it says does not
matter here. ``--model`` takes a trained one. Needs the extra ``serve`` and httpx.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import psutil
from PIL import Image

SIZES = ((288, 384), (480, 640), (768, 1024), (640, 480))
"""(height, width) of the good images."""


class Sent(NamedTuple):
    """One request and what became of it."""

    kind: str
    good: bool
    ok: bool
    status: int
    seconds: float


def photograph(height: int, width: int, seed: int) -> bytes:
    """A JPEG of large blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks.repeat(16, 0).repeat(16, 1)).save(buffer, "JPEG")
    return buffer.getvalue()


def png(height: int, width: int, rows: bytes, comment: bytes = b"") -> bytes:
    """A PNG of RGB with these rows of pixels, and a compressed comment, whatever its header says."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    text = chunk(b"zTXt", b"comment\0\0" + zlib.compress(comment, 9)) if comment else b""
    pixels = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + header + text + pixels + chunk(b"IEND", b"")


def bad_uploads(limit: int) -> dict[str, tuple[str, bytes | None]]:
    """File name and bytes of every kind of request that must be refused; None: no file at all."""
    photo = photograph(480, 640, 0)
    return {
        "no image": ("notes.txt", b"no picture " * 100),
        "bomb": ("bomb.png", png(50_000, 50_000, bytes(20_000_000))),
        "pixels": ("large.png", png(5000, 5000, bytes(5000 * 15_001))),
        "huge": ("huge.png", bytes(limit + limit // 4)),
        "empty": ("empty.png", b""),
        "truncated": ("cut.jpg", photo[: len(photo) // 2]),
        "wrong type": ("page.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        "path tricks": ("../../../../etc/passwd\0.png", b"root:x:0:0"),
        "comment": ("comment.png", png(40, 56, bytes(40 * 169), comment=bytes(200_000_000))),
        "no file": ("", None),
    }


async def load(address: str, requests: int, concurrent: int, limit: int) -> list[Sent]:
    """Send requests, a third of them bad, ``concurrent`` at once; ``limit`` is the server's in bytes."""
    bad = list(bad_uploads(limit).items())
    good = [(size, photograph(*size, seed)) for seed, size in enumerate(SIZES)]
    numbers, sent = iter(range(requests)), []
    limits = httpx.Limits(max_connections=concurrent)

    async def work(client: httpx.AsyncClient) -> None:
        for number in numbers:
            if number % 3 == 2:
                kind, (name, data) = bad[number // 3 % len(bad)]
                if kind == "huge":
                    sent.append(await _send_huge(address, len(data or b"")))
                else:
                    sent.append(await _send_bad(client, kind, name, data))
            else:
                size, photo = good[number % len(good)]
                sent.append(await _send_good(client, size, photo, ("json", "npz", "png")[number % 5 % 3]))

    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as client:
        await asyncio.gather(*(work(client) for _ in range(concurrent)))
    return sent


async def _send_good(client: httpx.AsyncClient, size: tuple[int, int], photo: bytes, format: str) -> Sent:
    started = time.monotonic()
    try:
        answer = await client.post("predict", files={"image": ("photo.jpg", photo)}, params={"format": format})
    except httpx.HTTPError:
        return Sent(format, True, False, 0, time.monotonic() - started)
    seconds = time.monotonic() - started
    return Sent(
        format, True, answer.status_code == 200 and _is_right(answer, size, format), answer.status_code, seconds
    )


def _is_right(answer: httpx.Response, size: tuple[int, int], format: str) -> bool:
    if format == "json":
        values = answer.json()
        return (values["height"], values["width"]) == size
    if format == "npz":
        return all(array.shape[:2] == size for array in np.load(io.BytesIO(answer.content)).values())
    return answer.content.startswith(b"\x89PNG")


async def _send_bad(client: httpx.AsyncClient, kind: str, name: str, data: bytes | None) -> Sent:
    started = time.monotonic()
    try:
        answer = await client.post("predict", files=None if data is None else {"image": (name, data)})
    except httpx.HTTPError:
        return Sent(kind, False, False, 0, time.monotonic() - started)
    refused = 400 <= answer.status_code < 500 and bool(answer.json()["error"])
    return Sent(kind, False, refused, answer.status_code, time.monotonic() - started)


async def _send_huge(address: str, size: int) -> Sent:
    """A body that is too large; the answer is read while it is written."""
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rstrip("/").rpartition(":")[2]))
    head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    writer.write(f"{head}Content-Length: {size}\r\n\r\n".encode())
    writing = asyncio.create_task(_write(writer, size))
    status = int((await reader.readline()).split()[1])
    seconds = time.monotonic() - started
    sentence = b'{"error":' in await reader.read()
    await writing
    writer.close()
    return Sent("huge", False, status == 413 and sentence, status, seconds)


async def _write(writer: asyncio.StreamWriter, size: int) -> None:
    with contextlib.suppress(OSError):
        for _ in range(size // 2**16):
            writer.write(bytes(2**16))
            await writer.drain()


def untrained(folder: Path) -> Path:
    """A model as `tasktokens train` makes it by default, with random weights."""
    import torch

    from tasktokens.config.settings import ModelSettings
    from tasktokens.models import build_network
    from tasktokens.models.files import ModelInfo, save_model
    from tasktokens.tasks import build_task

    specs: dict[str, dict[str, Any]] = {
        "semseg": {"kind": "classes", "classes": [f"class {number}" for number in range(13)]},
        "depth": {"kind": "depth", "range": [0.5, 10]},
        "normals": {"kind": "normals"},
    }
    tasks = {name: build_task(name, spec) for name, spec in specs.items()}
    settings = ModelSettings(pretrained=False)
    torch.manual_seed(0)
    save_model(folder, build_network("htt", tasks, settings), ModelInfo("htt", settings, tasks, (288, 384)))
    return folder


def measure(model: Path, requests: int, concurrent: int, batch: int | None) -> dict[str, Any]:
    """A row: a server of its own, a first load, the measured load."""
    from tasktokens.serving import Limits

    command = [sys.executable, "-m", "tasktokens.cli", "serve", str(model), "--port", "0"]
    command += [] if batch is None else ["--batch-size", str(batch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.match(r"http://\S+", server.stdout.readline())
            assert found is not None
            process = psutil.Process(server.pid)
            asyncio.run(load(found[0], requests // 5, concurrent, Limits().bytes))
            before, started = process.memory_info().rss, time.monotonic()
            sent = asyncio.run(load(found[0], requests, concurrent, Limits().bytes))
            wall, after = time.monotonic() - started, process.memory_info().rss
            alive = server.poll() is None and httpx.get(found[0] + "health", timeout=20).status_code == 200
            counted = httpx.get(found[0] + "metrics", timeout=20).text
        finally:
            server.terminate()
    return row(sent, concurrent, alive) | {
        "memory_growth_mb": round((after - before) / 2**20, 1), "memory_mb": round(after / 2**20),
        "images_per_s": round(sum(each.good for each in sent) / wall, 2), "batch": batch or "default",
        "mean_batch": round(_value(counted, "batch_images_sum") / _value(counted, "batch_images_count"), 2),
    }  # fmt: skip


def row(sent: Sequence[Sent], concurrent: int, alive: bool) -> dict[str, Any]:
    """Counts and times of a load."""
    good, bad = ([each for each in sent if each.good == wanted] for wanted in (True, False))
    good_ok, bad_4xx = (sum(each.ok for each in some) for some in (good, bad))
    return {
        "requests": len(sent), "concurrent": concurrent, "good": len(good), "good_ok": good_ok, "bad": len(bad),
        "bad_4xx": bad_4xx, "crashes": len(sent) - good_ok - bad_4xx + (not alive),
        "p95_s": round(float(np.quantile([each.seconds for each in good], 0.95)), 2),
        "bad_max_s": round(max(each.seconds for each in bad), 2),
        "failed": sorted({f"{each.kind}: {each.status}" for each in sent if not each.ok}),
        "bad_slowest": max(bad, key=lambda each: each.seconds).kind,
    }  # fmt: skip


def _value(text: str, name: str) -> float:
    found = re.search(rf"^tasktokens_{name} (\S+)$", text, re.M)
    assert found is not None
    return float(found[1])


def main() -> None:
    """Write the rows that the command line asks for."""
    from tasktokens.models.files import load_model
    from tasktokens.reporting.provenance import describe

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a trained run in place of random weights")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--concurrent", type=int, default=16)
    parser.add_argument("--batches", type=int, nargs="+", default=[None])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or untrained(Path(folder) / "model")
        network, info = load_model(model)
        parameters = sum(each.numel() for each in network.parameters())
        rows = [measure(model, arguments.requests, arguments.concurrent, batch) for batch in arguments.batches]
    head = describe(
        "server and clients share the cores; torch has one thread", [0], measured=["src/tasktokens/serving"]
    )
    network_facts = {"network": info.network, "backbone": info.settings.backbone, "parameters": parameters}
    text = json.dumps(head | network_facts | {"size": info.size, "rows": rows}, indent=1)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    for each in rows:
        print(each)


if __name__ == "__main__":
    main()
