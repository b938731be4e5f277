"""Reading untrusted files: pictures, arrays, JSON and YAML that would fill memory or run code are rejected.

Nothing here unpickles or starts another program, and what a file claims to hold is looked at before memory is asked for
(docs/operate/security.md). Whatever is wrong is a `ValueError` or `OSError` that does not name the file; callers do.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import stat
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from tasktokens.errors import ConfigError
from tasktokens.utils.tiff import describe_bands

if TYPE_CHECKING:  # exported models are used where there is no YAML
    import yaml

    from tasktokens.utils.plain_yaml import PlainLoader

MAX_PIXELS, MAX_ROWS = "TASKTOKENS_MAX_PIXELS", "TASKTOKENS_MAX_ROWS"
_DEFAULTS = {MAX_PIXELS: 2**27, MAX_ROWS: 10_000_000}
BYTES_PER_PIXEL = 32
"""Four channels of 64 bits: no picture or label has more."""

FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of pictures that are decoded in this process (MPO among JPEG); others, such as EPS, would start a program."""

MAX_YAML_BYTES, MAX_YAML_VALUES, MAX_YAML_DEPTH = 2**20, 100_000, 50


def limit(name: str) -> int:
    """A limit: the environment variable of that name, or its default. Raises `ConfigError` where it is no number."""
    text = os.environ.get(name, "").strip()
    if not text:
        return _DEFAULTS[name]
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"the environment variable {name} must be a whole number above 0, found '{text}'")
    return int(text)


def check_pixels(height: int, width: int) -> None:
    """Raise `ValueError` for more pixels than ``TASKTOKENS_MAX_PIXELS``."""
    most = limit(MAX_PIXELS)
    if height * width > most:
        raise ValueError(
            f"it claims {width}x{height} pixels, more than {most}; if that is meant, set {MAX_PIXELS} higher"
        )


def require_regular_file(path: Path) -> None:
    """Raise `ValueError` for what is no ordinary file: reading a pipe or a device may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is a folder, or no ordinary file")


def open_picture(source: Path | IO[bytes]) -> Image.Image:
    """Open a picture of one of `FORMATS`, to be closed by the caller; nothing is decoded yet."""
    if isinstance(source, Path):
        require_regular_file(source)
    if limit(MAX_PIXELS) > _DEFAULTS[MAX_PIXELS] and Image.MAX_IMAGE_PIXELS is not None:
        # Pillow has a limit of its own, at which it warns; it refuses twice as many.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, limit(MAX_PIXELS))
    try:
        image = Image.open(source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        most = limit(MAX_PIXELS)
        raise ValueError(f"it claims more than {most} pixels; if that is meant, set {MAX_PIXELS} higher") from error
    except UnidentifiedImageError as error:
        bands = describe_bands(source) if isinstance(source, Path) else None
        if bands is None:
            raise
        raise ValueError(
            f"it is {bands}, of which no picture can be made; expected 1 band (grey), 3 (RGB) or 4 (RGBA) of 8 bits, "
            f"or 1 of 16 or 32: export the bands that are meant"
        ) from error
    try:
        check_pixels(image.height, image.width)
        _require_right_decoder(image)
    except ValueError:
        image.close()
        raise
    return image


def _require_right_decoder(image: Image.Image) -> None:
    """Raise `ValueError` for what Pillow decodes into other pixels without a word: 16-bit planes, uncompressed."""
    tags = getattr(image, "tag_v2", {})
    planes, bits, compression = tags.get(284, 1) == 2, max(tags.get(258, (8,))), tags.get(259, 1)
    if planes and bits > 8 and compression == 1 and tags.get(277, 1) > 1:
        raise ValueError(
            f"it has {bits} bits per channel in a plane per channel, uncompressed, which cannot be read rightly here: "
            f"store it with compression, or with the channels of a pixel beside each other"
        )


# -- arrays ------------------------------------------------------------------------------------------------------------
def read_npy(path: Path) -> npt.NDArray[Any]:
    """Read an npy that holds numbers."""
    require_regular_file(path)
    with path.open("rb") as file:
        return _read_npy(file, path.stat().st_size)


def read_npz(archive: zipfile.ZipFile, member: str) -> npt.NDArray[Any]:
    """Read a member of an npz, an npy that holds numbers; the archive is not unpacked."""
    with archive.open(member) as file:
        return _read_npy(file, archive.getinfo(member).file_size)


def _read_npy(file: IO[bytes], size: int) -> npt.NDArray[Any]:
    """An npy of ``size`` bytes, whose header is checked first."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of npy, which plain numbers do not need")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which would have to be unpickled")
    if any(side < 0 for side in shape):
        raise ValueError(f"its header claims the shape {shape}")
    check_pixels(math.prod(shape[:1]), math.prod(shape[1:2]))
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > size or claimed > BYTES_PER_PIXEL * limit(MAX_PIXELS):
        raise ValueError(f"its header claims {claimed} bytes, shape {shape}, in a file of {size}")
    file.seek(0)
    return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def check_inflated_size(path: Path) -> None:
    """Raise `ValueError` for a MATLAB file of version 5 whose compressed parts unpack to more than a label can need."""
    require_regular_file(path)
    most, found = BYTES_PER_PIXEL * limit(MAX_PIXELS), 0
    with path.open("rb") as file:
        order: Literal["little", "big"] = "little" if file.read(128)[126:] == b"IM" else "big"
        while len(tag := file.read(8)) == 8:
            kind, size = (int.from_bytes(part, order) for part in (tag[:4], tag[4:]))
            if kind != _COMPRESSED:
                file.seek(size, os.SEEK_CUR)
                continue
            inflate, packed = zlib.decompressobj(), file.read(size)
            while packed and not inflate.eof:
                found += len(inflate.decompress(packed, 2**20))
                packed = inflate.unconsumed_tail
                if found > most:
                    raise ValueError(f"it unpacks to more than {most} bytes; if that is meant, set {MAX_PIXELS} higher")


_COMPRESSED = 15
"""The kind of an element of a MATLAB file that is compressed."""


# -- text --------------------------------------------------------------------------------------------------------------
def decode_text(data: bytes) -> str:
    """Text as editors, spreadsheets and shells save it: UTF-8, or UTF-16 and UTF-32 with a byte-order mark.

    Line ends stay as they are. Raises `ValueError` for any other encoding: guessing would change names in silence.

    Examples:
        >>> decode_text("Küche".encode("utf-16"))
        'Küche'
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"it is not text in {encoding.upper()}: line {data.count(_NEWLINE, 0, error.start) + 1} has the byte "
            f"0x{data[error.start]:02x}{_guess(encoding, data)}; {_SAVE}"
        ) from error
    if "\0" in text:
        raise ValueError(f"it holds the character NUL, as UTF-16 without a byte-order mark does; {_SAVE}")
    return text.replace("\ufeff", "")  # also inside, where files were joined


def _guess(encoding: str, data: bytes) -> str:
    """What a file without a mark may be, for a sentence: text of older programs, or no text at all."""
    if encoding != "utf-8" or b"\0" in data:
        return ""
    return "; it may be in a code page such as Windows-1252 (ANSI) or Latin-1"


_NEWLINE = b"\n"
_SAVE = "save it as UTF-8 (in Excel: CSV UTF-8; in an editor: save with encoding, UTF-8)"
_MARKS = (  # the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


def read_text(path: Path) -> str:
    """Read a text file; see `decode_text`. Raises `OSError` and `ValueError`, which do not name the file."""
    require_regular_file(path)
    return decode_text(path.read_bytes())


def load_json(text: str) -> Any:
    """Parse JSON; what nests too deeply is a `ValueError` too."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    require_regular_file(path)
    return load_json(path.read_text(encoding="utf-8"))


def load_yaml(text: str) -> Any:
    """Parse YAML of plain values, by the core schema of YAML 1.2 (`tasktokens.utils.plain_yaml`).

    Raises `ValueError` for what is no YAML, a key that stands twice, a number that begins with a zero, and where
    aliases would multiply into more than is useful.

    Examples:
        >>> load_yaml("{classes: [no, 1e-3], scale: 1e-3}")
        {'classes': ['no', '1e-3'], 'scale': 0.001}
    """
    from tasktokens.utils.plain_yaml import PlainLoader, keep_class_names

    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"it is longer than {MAX_YAML_BYTES} characters")
    try:
        loader = PlainLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        keep_class_names(node)
        _check_nodes(loader, node)
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    except Exception as error:  # odd numbers and tags raise whatever their constructors do
        raise ValueError(" ".join(str(error).split())[:300] or type(error).__name__) from error


def _check_nodes(loader: PlainLoader, root: yaml.Node) -> None:
    """Refuse keys that stand twice, and too many values: an alias of ten aliases of ten aliases is a thousand."""
    import yaml

    from tasktokens.utils.plain_yaml import check_unique_keys

    count, waiting = 0, [(root, 0)]
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if count > MAX_YAML_VALUES or depth > MAX_YAML_DEPTH:
            raise ValueError(
                f"it nests deeper than {MAX_YAML_DEPTH}, or has more than {MAX_YAML_VALUES} values, aliases counted as "
                f"often as they are used"
            )
        if isinstance(node, yaml.MappingNode):
            check_unique_keys(loader, node)
            waiting += [(part, depth + 1) for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(part, depth + 1) for part in node.value]


def dump_yaml(value: Any, **layout: Any) -> str:
    """Plain values as YAML that `load_yaml` reads back, in the order of their keys.

    Args:
        value: mappings, lists, text, numbers, booleans and None.
        layout: arguments of `yaml.dump` such as ``default_flow_style`` and ``width``.
    """
    import yaml

    from tasktokens.utils.plain_yaml import PlainDumper

    text: str = yaml.dump(value, Dumper=PlainDumper, sort_keys=False, **layout)
    return text
