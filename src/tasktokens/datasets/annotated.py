"""Data sets that lie in a format of annotation tools: COCO, VOC, CVAT, Label Studio, YOLO, Hugging Face Parquet, …

Each format of `tasktokens.datasets.formats` is a kind of data set of the same name, with one task of classes.
Photographs are found by the names that the annotations use, in any folder below ``root``. Pixels without an annotation
have no label; with ``absent: background`` they are a class of that name.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from os.path import commonpath
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal, cast

import numpy as np
from PIL import Image
from pydantic import Field, create_model

from tasktokens.datasets.base import DATASETS, FolderOfFiles
from tasktokens.datasets.formats import FORMATS, Annotations, Archive, Entry, open_archive, usable_format
from tasktokens.datasets.formats.base import ABSENT, VOID
from tasktokens.datasets.index import DatasetIndex, ImageFile, LabelFile, image_size
from tasktokens.errors import DataError, LabelError
from tasktokens.tasks import Segmentation
from tasktokens.tasks.base import Array
from tasktokens.utils.file_kinds import IMAGE_ENDINGS
from tasktokens.utils.listing import composed, walk_files
from tasktokens.utils.orientation import picture_array
from tasktokens.utils.safe_io import FORMATS as PICTURES
from tasktokens.utils.safe_io import check_pixels

BACKGROUND = "background"
"""The class of pixels without an annotation, where ``absent`` says so."""
_PHOTOGRAPHS = ("images", "JPEGImages", "leftImg8bit")
"""Folders of photographs, whose names are no part of an id."""


class AnnotatedSource(FolderOfFiles):
    """A data set in a format of annotation tools."""

    root: Path | None = Field(None, description="the folder with the photographs and the annotations; required")
    annotations: Path | None = Field(
        None, description="the file, folder or zip of the annotations, below root; null: found in root"
    )
    images: Path | None = Field(None, description="the folder of the photographs, below root; null: anywhere in root")
    task: str = Field("semseg", description="name of the task")
    absent: Literal["void", "background"] = Field(
        "void", description="what pixels without an annotation are: void (no label), or the class background"
    )
    void: list[str] = Field(["void"], description="classes that mean no label")
    how_to_get: ClassVar[str] = "your own, as an annotation tool exports it, with the photographs in the same folder"

    def open_index(self, size: tuple[int, int], progress: bool = False) -> DatasetIndex:
        """List the annotations and the photographs that they name; no mask is decoded yet."""
        root = self.folder()
        if not root.is_dir():
            raise DataError(f"data folder {root} does not exist")
        format = usable_format(self.kind)
        with open_archive(root if self.annotations is None else root / self.annotations) as archive:
            if archive.path.suffix.lower() == ".zip":
                raise DataError(f"{archive.path} is a zip; unpack it, so that its files can be read one by one")
            found = format.read(archive)
            photographs = _photographs(root if self.images is None else root / self.images, format.map_folders)
            return _index(self, root, archive, found, photographs)


def _index(
    source: AnnotatedSource,
    root: Path,
    archive: Archive,
    found: Annotations,
    photographs: Mapping[str, Sequence[str]],
) -> DatasetIndex:
    names = tuple(name for name in found.names if name not in source.void)
    if source.absent == BACKGROUND and BACKGROUND not in names:
        names = (BACKGROUND, *names)
    if not names:
        raise DataError(f"{archive.path} names no class; are its annotations complete?")
    numbers = [names.index(name) if name in names else VOID for name in found.names]
    rest = names.index(BACKGROUND) if source.absent == BACKGROUND else VOID
    table = np.array([*numbers, rest, VOID], np.int16)  # the two last places are those of `ABSENT` and `VOID`
    files = {entry.name: entry for entry in found.entries}
    if len(files) < len(found.entries):
        twice = next(name for name, count in Counter(entry.name for entry in found.entries).items() if count > 1)
        raise DataError(f"{archive.path} has annotations of the image '{twice}' twice; keep one of them")
    listed = dict.fromkeys([*files, *(name for split in (found.splits or {}).values() for name in split)])
    if not listed:
        raise DataError(f"{archive.path} has no annotations of any image in the format {source.kind}")
    images = _images(root, source, files, list(listed), photographs)
    ids = {name: id for id, (name, _) in images.items()}
    labels = {
        ids[name]: LabelFile(archive.path, partial(read_entry, entry=entry, table=table, image=images[ids[name]][1]))
        for name, entry in files.items()
        if not entry.empty or source.absent == BACKGROUND
    }
    named = {split: tuple(ids[name] for name in of_split) for split, of_split in (found.splits or {}).items()}
    return DatasetIndex(
        root,
        {id: image for id, (_, image) in images.items()},
        {source.task: Segmentation(source.task, classes=names)},
        {source.task: labels},
        _splits(named, list(images)),
    )


def _splits(named: Mapping[str, tuple[str, ...]], ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The splits train, val and test that the annotations name; what is in none of them is for training."""
    known = {split: of_split for split, of_split in named.items() if split in ("train", "val", "test")}
    if "train" in known:
        return known
    held = {id for of_split in known.values() for id in of_split}
    return {"train": tuple(id for id in ids if id not in held)} | known


# -- photographs -------------------------------------------------------------------------------------------------------
def _photographs(folder: Path, map_folders: tuple[str, ...]) -> dict[str, list[str]]:
    """Paths below a folder by the name of the file, and by that without its ending; maps of labels are left out."""
    if not folder.is_dir():
        raise DataError(f"the folder of photographs {folder} does not exist")
    found: dict[str, list[str]] = {}
    for parts in walk_files(folder):
        name = PurePosixPath(parts[-1])
        if name.suffix.lower() in IMAGE_ENDINGS and not any(part.startswith(map_folders) for part in parts[:-1]):
            for key in {name.name, name.stem}:
                found.setdefault(composed(key), []).append("/".join(parts))
    return found


def _images(
    root: Path,
    source: AnnotatedSource,
    entries: Mapping[str, Entry],
    names: Sequence[str],
    photographs: Mapping[str, Sequence[str]],
) -> dict[str, tuple[str, ImageFile]]:
    """By id, the image's name in the annotations, and how it is read."""
    below = root if source.images is None else root / source.images
    paths: dict[str, str] = {}
    held: dict[str, tuple[str, ImageFile]] = {}
    for name in names:
        entry = entries.get(name)
        if entry is not None and entry.image is not None:  # in a table, with its label
            id = str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).suffix in IMAGE_ENDINGS else name
            held[id] = (name, ImageFile(below / name, partial(read_held_image, content=entry.image)))
        else:
            paths[name] = _find(name, photographs, below)
    shared = PurePosixPath(commonpath([PurePosixPath(path).parent for path in paths.values()]) if paths else "").parts
    above = max((place + 1 for place, part in enumerate(shared) if part in _PHOTOGRAPHS), default=0)
    found = dict(held)
    for name, path in paths.items():
        id = composed("/".join(PurePosixPath(path).with_suffix("").parts[above:]))
        if id in found:
            raise DataError(f"{below / path} and another photograph would both be '{id}'; rename one")
        found[id] = (name, ImageFile(below / path))
    return found


def _find(name: str, photographs: Mapping[str, Sequence[str]], below: Path) -> str:
    """The photograph that annotations name, by the end of its path, with or without an ending."""
    wanted = composed(name.replace("\\", "/").lstrip("/"))
    exact = [path for path in photographs.get(PurePosixPath(wanted).name, ()) if _ends(composed(path), wanted)]
    others = [
        path
        for path in photographs.get(PurePosixPath(wanted).name, ())
        if _ends(composed(str(PurePosixPath(path).with_suffix(""))), wanted)
    ]
    found = list(dict.fromkeys(exact or others))
    if len(found) > 1:
        raise DataError(
            f"the annotations name '{name}', which could be {found[0]} or {found[1]} in {below}; name the folder of "
            f"the photographs with data.images, or rename one"
        )
    if not found:
        raise DataError(f"the annotations name the image '{name}', which is not in {below}; complete the photographs")
    return found[0]


def _ends(path: str, wanted: str) -> bool:
    return f"/{path}".endswith(f"/{wanted}")


def read_held_image(path: Path, content: Callable[[], bytes]) -> Array:
    """A picture that a table holds, (H, W, 3) uint8. Raises `DataError` naming it."""
    try:
        with Image.open(io.BytesIO(content()), formats=PICTURES) as picture:
            check_pixels(picture.height, picture.width)
            return picture_array(picture, "RGB")
    except DataError:
        raise
    except Exception as error:  # whatever a file does to a decoder, it is the picture that is named
        raise DataError(f"image {path} cannot be read ({error}); replace it or remove it") from error


# -- labels ------------------------------------------------------------------------------------------------------------
def read_entry(path: Path, entry: Entry, table: Array, image: ImageFile) -> tuple[Array, Array]:
    """Classes (1, H, W) uint8 and valid (H, W) of an image, in its size. Raises `LabelError`."""
    if entry.image is None:
        size = image_size(image.path)
    else:
        height, width = image.read().shape[:2]
        size = height, width
    try:
        drawn = entry.draw(size)
    except DataError as error:
        raise LabelError(str(error)) from error
    if drawn.min(initial=0) < ABSENT:  # from below, numbers would wrap around to other classes
        raise LabelError(f"{path} draws the class number {drawn.min()}, which its format does not know")
    classes = table[drawn]
    valid = classes != VOID
    return np.where(valid, classes, 0).astype(np.uint8)[None], valid


# -- a kind per format -------------------------------------------------------------------------------------------------
def _kinds() -> Iterator[type[AnnotatedSource]]:
    for name, format in FORMATS.items():
        fields: dict[str, Any] = {"kind": (Literal[name], name)}
        title = "".join(word.capitalize() for word in name.split("_"))
        made = create_model(
            f"{title}Source", __base__=AnnotatedSource, __module__=__name__, __doc__=format.__doc__, **fields
        )
        yield cast(type[AnnotatedSource], DATASETS.register(name)(made))


globals().update({kind.__name__: kind for kind in _kinds()})  # settings are pickled by the name of their class
