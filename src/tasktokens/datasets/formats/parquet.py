"""Hugging Face Parquet: a table with an image and a map of class ids per row, both as PNG or JPEG bytes.

The columns have the type ``Image`` of `datasets` (a struct of ``bytes`` and ``path``), so that
``load_dataset("parquet", data_files=...)`` shows pictures; ``id2label.json`` names the classes, 255 is no label. A
column ``decision`` (accepted, rejected) is a person's.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from tasktokens.datasets.formats.archive import Archive
from tasktokens.datasets.formats.base import (
    FORMATS,
    Annotations,
    Array,
    Decision,
    Entry,
    ExportItem,
    Format,
    Size,
    Vocabulary,
    add_file,
    same_size,
)
from tasktokens.datasets.formats.coco import split_of
from tasktokens.datasets.formats.pictures import classes_of_ids, decode_png, encode_png, stored_ids
from tasktokens.errors import DataError
from tasktokens.utils import strict_json
from tasktokens.utils.safe_io import load_json

NAMES = "id2label.json"
_MASKS = ("label", "mask", "annotation", "segmentation", "labels", "segmentation_mask", "label_mask")
"""What the column of the maps may be called, where several columns hold pictures."""
_DECISIONS: dict[str, Decision] = {"accepted": "accepted", "rejected": "rejected"}
_MOST_CLASSES = 256


@FORMATS.register("parquet")
class Parquet(Format):
    """Hugging Face Parquet: images and maps of class ids as columns."""

    needs = ("pyarrow",)

    def recognises(self, archive: Archive) -> bool:
        """Parquet files with the names of the classes beside."""
        return bool(archive.find(".parquet") and archive.find(NAMES))

    def read(self, archive: Archive) -> Annotations:
        """All Parquet files; ``train-00000-of-00002.parquet`` is of the split ``train``."""
        classes = _read_names(archive)
        entries, splits = [], dict[str, list[str]]()
        for path in archive.find(".parquet"):
            for entry in _entries(archive, path, len(classes)):
                entries.append(entry)
                splits.setdefault(split_of(path), []).append(entry.name)
        return Annotations(classes, tuple(entries), {name: tuple(ids) for name, ids in splits.items()})

    def write(self, out: zipfile.ZipFile, vocabulary: Vocabulary, items: Iterable[ExportItem]) -> None:
        """``data/train-00000-of-00001.parquet`` and ``id2label.json``."""
        import pyarrow as pa
        from pyarrow import parquet

        picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {"id": pa.string(), "image": picture, "label": picture, "score": pa.float32(), "source": pa.string(),
                   "decision": pa.string()}  # fmt: skip
        kinds = {pa.string(): "string", pa.float32(): "float32"}
        features = {
            name: {"_type": "Image"} if kind == picture else {"dtype": kinds[kind], "_type": "Value"}
            for name, kind in columns.items()
        }
        described = {"huggingface": strict_json.dumps({"info": {"features": features}})}
        schema = pa.schema(list(columns.items()), metadata=described)
        buffer = io.BytesIO()
        with parquet.ParquetWriter(buffer, schema) as writer:
            for item in items:
                writer.write_table(pa.Table.from_pylist([_row(item, vocabulary)], schema=schema))
        add_file(out, "data/train-00000-of-00001.parquet", buffer.getvalue())
        names = {str(number): name for number, name in enumerate(vocabulary.names)}
        add_file(out, NAMES, strict_json.dumps(names, ensure_ascii=False, indent=1))


def _row(item: ExportItem, vocabulary: Vocabulary) -> dict[str, Any]:
    ids = stored_ids(item.classes, len(vocabulary.names), f"the label of image '{item.id}'")
    image = None if item.image is None else item.image.read_bytes()
    return {
        "id": item.id,
        "image": {"bytes": image, "path": item.file},
        "label": {"bytes": encode_png(ids), "path": f"{item.id}.png"},
        "score": item.score(),
        "source": item.source,
        "decision": "",
    }


# -- reading -----------------------------------------------------------------------------------------------------------
def _read_names(archive: Archive) -> tuple[str, ...]:
    files = archive.find(NAMES)
    if len(files) != 1:
        raise DataError(f"{archive.path} must hold one {NAMES} with the names of the classes, found {len(files)}")
    try:
        values = load_json(archive.read(files[0]).decode("utf-8"))
        names = tuple(str(values[str(number)]) for number in range(len(values)))
        if not names or len(names) > _MOST_CLASSES or len(set(names)) < len(names):
            raise ValueError(f"expected 1 to {_MOST_CLASSES} different names")
        return names
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{archive.where(files[0])} must be JSON such as {{"0": "wall", ...}} ({error})') from error


def _entries(archive: Archive, path: str, count: int) -> Iterator[Entry]:
    """An entry per row; the pictures stay in the file until they are asked for."""
    read, what = archive.reader(path), archive.where(path)
    file = _open(read, what)
    pictures = [field.name for field in file.schema_arrow if _is_picture(field.type)]
    masks = [name for name in _MASKS if name in pictures]
    if "image" not in pictures or not masks:
        raise DataError(f"{what} must have the columns 'image' and 'label' of pictures, found {', '.join(pictures)}")
    wanted = [name for name in ("id", "decision") if name in file.schema_arrow.names]
    number = 0
    for group in range(file.num_row_groups):
        rows = file.read_row_group(group, columns=[*wanted, "image.path", f"{masks[0]}.path"]).to_pylist()
        for place, row in enumerate(rows):
            cell = partial(_cell, read, what, group, place)
            name = row.get("id") or (row["image"] or {}).get("path") or f"{split_of(path)}-{number:08d}"
            draw = partial(_draw, cell=partial(cell, masks[0]), count=count, what=f"row {number} of {what}")
            decision = _DECISIONS.get(str(row.get("decision") or ""), "")
            yield Entry(str(name), None, draw, decision, image=partial(cell, "image"))
            number += 1


def _is_picture(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind)) and {kind.field(i).name for i in range(kind.num_fields)} >= {"bytes", "path"}


def _open(read: Callable[[], bytes], what: str) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(pa.BufferReader(read()))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{what} is no whole Parquet file ({error}); export or download it again") from error


@lru_cache(maxsize=2)
def _group(read: Callable[[], bytes], what: str, group: int) -> Sequence[Mapping[str, Any]]:
    rows: list[dict[str, Any]] = _open(read, what).read_row_group(group).to_pylist()
    return rows


def _cell(read: Callable[[], bytes], what: str, group: int, place: int, column: str) -> bytes:
    content = (_group(read, what, group)[place][column] or {}).get("bytes")
    if content is None:
        raise DataError(f"row {place} of {what} has no bytes in the column '{column}'; export it with its pictures")
    return bytes(content)


def _draw(size: Size, cell: Callable[[], bytes], count: int, what: str) -> Array:
    ids, _ = decode_png(cell(), what)
    classes = classes_of_ids(ids if ids.ndim == 2 else _grey(ids, what), count, what)
    same_size((classes.shape[0], classes.shape[1]), size, what)
    return classes


def _grey(pixels: Array, what: str) -> Array:
    """One channel of three equal ones."""
    if (pixels[..., :3] != pixels[..., :1]).any():
        raise DataError(f"{what} must hold one class id per pixel, found colours")
    return np.asarray(pixels[..., 0])
