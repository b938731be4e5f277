"""Ways to spoil a file, from an empty one to a bomb. Each takes the path of a good file and a source of randomness."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Damage = Callable[[Path, random.Random], None]
RAN = "hostile-code-ran"
"""What a hostile file would leave behind in the working folder."""


class Hostile:
    """Creates a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (RAN,)


def content(data: bytes) -> Damage:
    return lambda path, dice: path.write_bytes(data) and None


def text(line: str) -> Damage:
    return content(line.encode("utf-8", "surrogatepass"))


def instead(make: Callable[[Path], object]) -> Damage:
    """Something else in place of the file."""

    def spoil(path: Path, dice: random.Random) -> None:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        make(path)

    return spoil


def cut(path: Path, dice: random.Random) -> None:
    """Truncate at a random place."""
    os.truncate(path, dice.randrange(1, max(2, path.stat().st_size)))


def flip(path: Path, dice: random.Random, within: int | None = None, count: int = 6) -> None:
    """Change some bytes, of the first ``within`` of them."""
    data = bytearray(path.read_bytes())
    for _ in range(count):
        data[dice.randrange(min(within or len(data), len(data)))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def flip_head(path: Path, dice: random.Random) -> None:
    """Change some of the first bytes, where a file says what it is."""
    flip(path, dice, 64)


def random_bytes(path: Path, dice: random.Random) -> None:
    path.write_bytes(dice.randbytes(dice.randrange(1, 3000)))


FILE: dict[str, Damage] = {
    "empty": content(b""),
    "truncated": cut,
    "bytes flipped": flip,
    "head flipped": flip_head,
    "random bytes": random_bytes,
    "zeros": content(bytes(4096)),
    "a letter": content(b"Sehr geehrte Damen und Herren,\n"),
    "a page": content(b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
    "a pickle": content(pickle.dumps(Hostile())),
    "a folder": instead(Path.mkdir),
    "a link to itself": instead(lambda path: path.symlink_to(path)),
    "a dangling link": instead(lambda path: path.symlink_to("/nowhere/at/all")),
    "a pipe": instead(os.mkfifo),
    "an endless device": instead(lambda path: path.symlink_to("/dev/zero")),
}


# -- pictures ----------------------------------------------------------------------------------------------------------
def png(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG whose header claims what it likes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", data or zlib.compress(bytes(2000))) + chunk(b"IEND", b"")
    )


def tiff(width: int, height: int) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 4, height), (279, 4, min(width * height, 2**32 - 1))]  # fmt: skip
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + body + bytes(4)


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


def _ztxt() -> bytes:
    body = b"Comment\0\0" + zlib.compress(bytes(200 * 2**20), 9)
    return struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 56 40\n%%EndComments\n(" + RAN.encode() + b") (w) file\nshowpage\n"
PICTURE: dict[str, Damage] = {
    "png of 10^10 pixels": content(png(100_000, 100_000)),
    "png of 2^31 columns": content(png(2**31 - 1, 1)),
    "png of 150 megapixels": content(png(15_000, 10_000)),
    "png of 0 rows": content(png(56, 0)),
    "png of 7 bits": content(png(56, 40, depth=7)),
    "png with text that unpacks to 200 MB": lambda path, dice: path.write_bytes(png(56, 40, extra=_ztxt())) and None,
    "tiff of 10^10 pixels": content(tiff(100_000, 100_000)),
    "tiff of 2^32 columns": content(tiff(2**32 - 1, 2**32 - 1)),
    "bmp of 10^9 pixels": content(bmp(2**15, 2**15)),
    "bmp of negative size": content(bmp(-56, -40)),
    "gif of 65535 a side": content(b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"\x3b"),
    "eps, which a program would draw": content(EPS),
    "svg": content(b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://192.0.2.1/x.png'/></svg>"),
}


# -- arrays ------------------------------------------------------------------------------------------------------------
def npy(array: Any, **settings: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **settings)
    return file.getvalue()


def npy_claim(shape: str, kind: str = "<f4", data: bytes = bytes(64)) -> bytes:
    """An npy whose header claims what it likes."""
    head = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head + data


def npz(*members: tuple[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def _v3() -> bytes:
    head = "{'descr': [('ä', '<f4')], 'fortran_order': False, 'shape': (2,), }\n".encode()
    return b"\x93NUMPY\x03\0" + struct.pack("<I", len(head)) + head + bytes(8)


_ARRAYS: dict[str, bytes] = {
    "npy of 10^12 numbers": npy_claim("(1000000, 1000000)"),
    "npy of 2^70 numbers": npy_claim(f"({2**35}, {2**35})"),
    "npy of 40x56 that holds less": npy_claim("(40, 56)"),
    "npy of negative shape": npy_claim("(-40, 56)"),
    "npy with code in its header": npy_claim(f"(__import__('os').mkdir({RAN!r}), 3)"),
    "npy with a long header": npy_claim("(" + "1," * 4000 + ")"),
    "npy of 1 GB a number": npy_claim("(40, 56)", "|V1000000000"),
    "npy of version 3": _v3(),
    "npy of pickled objects": npy(np.array([[Hostile()]], object), allow_pickle=True),
    "npy of text": npy(np.full((40, 56), "floor")),
    "npy of dates": npy(np.full((40, 56), np.datetime64("2024-01-01"))),
    "npy of complex numbers": npy(np.full((40, 56), 1 + 1j)),
    "npy of fields": npy(np.zeros((40, 56), [("a", "<f4"), ("b", "<i2")])),
    "npy of one number": npy(np.float32(3)),
    "npy of a row": npy(np.zeros(56, np.float32)),
    "npy of five dimensions": npy(np.zeros((1, 1, 40, 56, 1), np.float32)),
    "npy of five channels": npy(np.zeros((40, 56, 5), np.float32)),
    "npy of no row": npy(np.zeros((0, 56), np.float32)),
    "npy of another size": npy(np.ones((17, 23), np.float32)),
}
ARRAY: dict[str, Damage] = {name: content(data) for name, data in _ARRAYS.items()}
ARCHIVE: dict[str, Damage] = {
    "npz of 10^12 numbers": content(npz(("arr_0.npy", npy_claim("(1000000, 1000000)")))),
    "npz of pickled objects": content(npz(("arr_0.npy", _ARRAYS["npy of pickled objects"]))),
    "npz with no array": content(npz()),
    "npz with three arrays": content(npz(*((f"{name}.npy", npy(np.ones((40, 56)))) for name in "abc"))),
    "npz that holds zeros for days": lambda path, dice: path.write_bytes(npz(("arr_0", bytes(300 * 2**20)))) and None,
    "npz with a path that leads out": content(npz(("../../escaped.npy", npy(np.ones((9, 9), np.complex64))))),
    "npz cut in half": lambda path, dice: path.write_bytes(npz(("arr_0.npy", npy(np.ones((40, 56)))))[:150]) and None,
    "npz that is an npy": content(npy(np.ones((40, 56)))),
    "npz with a wrong checksum": content(
        npz(("arr_0.npy", npy(np.ones((40, 56)))), packing=0).replace(b"\0\xf0?", b"\0\xf1?", 9)
    ),
}


def as_ending(ending: str, damage: Damage) -> Damage:
    """The damage in a file of another ending beside which the old one is gone."""

    def spoil(path: Path, dice: random.Random) -> None:
        new = path.with_suffix(ending)
        path.rename(new)
        damage(new, dice)

    return spoil


def values(change: Callable[[Any], Any]) -> Damage:
    """The file as an npy with other values."""

    def spoil(path: Path, dice: random.Random) -> None:
        stored = np.load(path) if path.suffix == ".npy" else np.asarray(Image.open(path))
        path.unlink()
        np.save(path.with_suffix(".npy"), change(stored))

    return spoil


def _plane(array: Any, value: float) -> Any:
    changed = array.astype(np.float32)
    changed[10:20] = value
    return changed


LABEL: dict[str, Damage] = {
    "not a number here and there": values(lambda a: _plane(a, np.nan)),
    "not a number at all": values(lambda a: np.full(a.shape, np.nan, np.float32)),
    "infinity": values(lambda a: _plane(a, np.inf)),
    "1e38": values(lambda a: _plane(a, 1e38)),
    "minus 5": values(lambda a: _plane(a, -5)),
    "transposed": values(lambda a: np.swapaxes(a, 0, 1)),
    "a row less": values(lambda a: a[1:]),
    "two channels more": values(lambda a: np.stack([a] * 3, -1) if a.ndim == 2 else a[..., 0]),
    "64-bit whole numbers": values(lambda a: a.astype(np.int64) + 2**40),
    "bool": values(lambda a: a > 100),
}
