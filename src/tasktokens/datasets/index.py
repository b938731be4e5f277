"""What every reader of a data set returns: image files, tasks, label files and splits, with nothing decoded yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tasktokens.data.visibility import VisibleLabels
from tasktokens.datasets.provenance import SOURCES, ProvenanceRow, Source
from tasktokens.datasets.upright import REMOVE_TAG, turned_label
from tasktokens.errors import DataError, LabelError, TaskTokensError, did_you_mean
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.tasks.files import read_array
from tasktokens.utils.listing import check_id
from tasktokens.utils.orientation import picture_array, picture_orientation, stored_size, turn_upright
from tasktokens.utils.pixels import as_rgb
from tasktokens.utils.safe_io import open_picture


def read_image(path: Path) -> Array:
    """Read an image as (H, W, 3) uint8 RGB: a picture file, or npy or npz of (H, W) or (H, W, 3 or 4).

    16 bits are scaled to 8, grey becomes RGB, alpha is left out, CMYK is converted. The pixels stay as they are stored:
    an EXIF orientation is not applied, see `exif_orientation`. Of several pages or frames the first is taken.

    Raises:
        DataError: naming the file, which cannot be read or has values of no known range (32 bits, floats).
    """
    try:
        if path.suffix.lower() in (".npy", ".npz"):
            array = read_array(path)
        else:
            with open_picture(path) as image:
                array = picture_array(image, None if image.mode[0] in "IF" else "RGB")
    except FileNotFoundError as error:
        raise DataError(f"image {path} does not exist") from error
    except LabelError as error:
        raise DataError(str(error).replace("label file", "image", 1)) from error
    except TaskTokensError:
        raise
    except Exception as error:  # whatever a file does to a decoder, it is the file that is named
        raise DataError(f"image {path} cannot be read ({error}); replace it or remove it") from error
    return as_rgb(array, f"image {path}")


def read_upright(path: Path) -> Array:
    """`read_image`, turned as its EXIF orientation says: the picture that viewers show."""
    return turn_upright(read_image(path), exif_orientation(path))


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image, of a picture file without decoding it. Raises `DataError` naming the file."""
    if path.suffix.lower() in (".npy", ".npz"):
        height, width = read_image(path).shape[:2]
        return height, width
    try:
        with open_picture(path) as image:
            return stored_size(image)
    except TaskTokensError:
        raise
    except Exception as error:
        raise DataError(f"image {path} cannot be read ({error}); replace it or remove it") from error


class PictureFacts(NamedTuple):
    """The EXIF orientation (1..8) and the number of pages or frames of a picture file, and whether it has 16 bits.

    Attributes:
        orientation: EXIF tag 274, 1 to 8; 1 is upright.
        frames: pages or frames.
        sixteen_bits: whether a channel has 16 bits.
    """

    orientation: int = 1
    frames: int = 1
    sixteen_bits: bool = False


def exif_orientation(path: Path) -> int:
    """How viewers turn the stored pixels of an image file: 1 not at all, 2..8 see `tasktokens.utils.orientation`.

    1 for arrays and for files that cannot be opened, which reading them names.
    """
    return picture_facts(path).orientation


def picture_facts(path: Path) -> PictureFacts:
    """What a picture file says beside its pixels; nothing is decoded."""
    if path.suffix.lower() in (".npy", ".npz"):
        return PictureFacts()
    try:
        with open_picture(path) as image:
            # MPO files of phones: the first picture is the photograph, the others are previews and depth of it.
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            deep = image.mode.startswith("I") or any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
            return PictureFacts(picture_orientation(image), frames, deep)
    except Exception:  # whatever is wrong with it, reading the pixels says so
        return PictureFacts()


class ImageFile(NamedTuple):
    """An image that can be read.

    Attributes:
        path: the file that it lies in.
        reader: from the path to (H, W, 3) uint8 RGB; must be picklable, since loader processes use it.
    """

    path: Path
    reader: Callable[[Path], Array] = read_image

    def read(self) -> Array:
        """Decode: (H, W, 3) uint8 RGB. Raises `DataError` naming the file."""
        return self.reader(self.path)


class LabelFile(NamedTuple):
    """A label that can be read.

    Attributes:
        path: the file that it lies in.
        reader: from the path to value (C, H, W) in the task's units and valid (H, W) bool; picklable.
        plain: whether the file is what `Task.read` takes, so that a copy of it is a label of the own-folder layout.
        labelled: the classes that were labelled in it; none: all of the task's.
    """

    path: Path
    reader: Callable[[Path], tuple[Array, Array]]
    plain: bool = False
    labelled: tuple[str, ...] = ()

    def read(self) -> tuple[Array, Array]:
        """Decode: value (C, H, W), valid (H, W) bool. Raises `LabelError` naming the file."""
        return self.reader(self.path)

    def read_for(self, image: ImageFile, size: tuple[int, int]) -> tuple[Array, Array]:
        """`read`, for an image of (height, width) ``size``; another size is a `LabelError` too."""
        value, valid = self.read()
        if valid.shape != size:
            if image.reader is read_upright and valid.shape == image_size(image.path):
                raise LabelError(
                    f"label file {self.path} has the size of its image's stored pixels, which --upright turns, while "
                    f"labels stay as they are: turn the label too, or remove the tag of the image ({REMOVE_TAG})"
                )
            orientation = exif_orientation(image.path) if image.reader is read_image else 1
            if why := turned_label(orientation, (valid.shape[0], valid.shape[1]), size):
                raise LabelError(f"label file {self.path}: {why}")
            raise LabelError(
                f"label file {self.path} is {valid.shape[1]}x{valid.shape[0]} pixels, its image {image.path.name} is "
                f"{size[1]}x{size[0]}; labels must have the size of their image, or its shape and 'resize: true' in "
                f"dataset.yaml"
            )
        return value, valid


class DiscoveredLabel(NamedTuple):
    """A label that was discovered and that nobody has accepted yet.

    Attributes:
        label: its file.
        confidence: the file of what each pixel is worth, 0..255 or 0..1 for 0 to 1, (H, W).
    """

    label: LabelFile
    confidence: Path


RESERVED_SPLITS = ("auto", "holdout", "none")
"""What ``run.evaluate`` takes beside the name of a split."""


@dataclass(frozen=True)
class DatasetIndex:
    """A data set, whatever its layout.

    Attributes:
        root: the folder it lies in, for messages.
        images: image by id, in a fixed order. An id is a relative path without ending, such as ``kitchen/0001``.
        tasks: its tasks by name.
        labels: for each task, label by id; ids that are not there have no label. Discovered ones are not among them,
            unless a person has accepted or corrected them.
        splits: ids by split name; training images are ``train``.
        published: label splits that the data set is known by (``one``, ``random``): for each training id the tasks
            whose labels may be seen.
        discovered: for each task that has such, discovered labels by id, which nothing is ever measured on.
        completions: for each task that has such, by id what was discovered of a label in which not all classes were
            labelled: a class for pixels that it leaves open, void elsewhere.
        provenance: for each task, what the data set says of the origin of its labels by id; one that it says nothing of
            was given.

    Raises:
        DataError: an id or a split's name would make no name of a file to be written: nothing may lead out of the
            folder that a verb writes to; or a split has one of `RESERVED_SPLITS` for its name.
    """

    root: Path
    images: Mapping[str, ImageFile]
    tasks: Mapping[str, Task]
    labels: Mapping[str, Mapping[str, LabelFile]]
    splits: Mapping[str, tuple[str, ...]]
    published: Mapping[str, VisibleLabels] = field(default_factory=dict)
    discovered: Mapping[str, Mapping[str, DiscoveredLabel]] = field(default_factory=dict)
    completions: Mapping[str, Mapping[str, DiscoveredLabel]] = field(default_factory=dict)
    provenance: Mapping[str, Mapping[str, ProvenanceRow]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for id in self.images:
            check_id(id, self.root)
        for name in self.splits:
            if not name.strip(".") or "/" in name:
                raise DataError(f"{self.root} names a split {name!r}, which cannot be part of a file's name; rename it")
            if name in RESERVED_SPLITS:
                raise DataError(
                    f"{self.root} names a split '{name}', which is a word of the setting run.evaluate (reserved: "
                    f"{', '.join(RESERVED_SPLITS)}); rename it"
                )
            check_id(name, self.root)

    def sources(self, task: str) -> dict[str, int]:
        """How many labels of a task come from where, rejected ones included."""
        counts = Counter(self.source(task, id) for id in self.labels.get(task, {}))
        counts["discovered"] = len(self.discovered.get(task, {}))
        counts["rejected"] = sum(row.source == "rejected" for row in self.provenance.get(task, {}).values())
        return {source: counts[source] for source in SOURCES if counts[source]}

    def source(self, task: str, id: str) -> Source:
        """Where a label comes from."""
        row = self.provenance.get(task, {}).get(id)
        return "given" if row is None else row.source

    def labelled_classes(self, task: str) -> dict[str, tuple[str, ...]]:
        """The classes that were labelled, of the images in which not all were."""
        return {id: file.labelled for id, file in self.labels.get(task, {}).items() if file.labelled}

    def split(self, name: str) -> tuple[str, ...]:
        """Ids of a split. Raises `DataError` naming the splits there are."""
        if name not in self.splits:
            raise DataError(
                f"{self.root} has no split '{name}'{did_you_mean(name, self.splits)}; found: {', '.join(self.splits)}"
            )
        return self.splits[name]
