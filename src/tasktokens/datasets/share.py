"""A data folder as a repository of the Hugging Face Hub, from which ``data.root=hf://datasets/user/name`` opens it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from tasktokens.config import read_yaml
from tasktokens.datasets.dataset_card import dataset_card
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.index import DatasetIndex
from tasktokens.datasets.provenance import DISCOVERED, PROVENANCE
from tasktokens.errors import DataError
from tasktokens.hub.address import HubAddress, is_address, parse_address
from tasktokens.hub.card import licence_of
from tasktokens.hub.download import CARD, PICTURE_ENDINGS
from tasktokens.hub.upload import upload
from tasktokens.utils import console
from tasktokens.utils.listing import walk_files
from tasktokens.utils.portable_names import first_fault

_GPS = 0x8825
"""The part of EXIF that says where a photograph was taken."""

CONFIDENCES = ("confidence", "completed")
"""Folders of a discovery, beside those of images and labels."""

TABLES = ("dataset.yaml", PROVENANCE, DISCOVERED, "classes.csv", "summary.json")
"""What a data folder has at its top, beside the lists and tables that ``dataset.yaml`` names."""

MOST_FILES = 50_000
"""More would take hours, and the Hub advises against it."""


def push_dataset(
    folder: str | Path, repository: str, private: bool = True, token: str | None = None, license: str | None = None,
    message: str | None = None,
) -> str:  # fmt: skip
    """Publish a data folder on the Hugging Face Hub in one commit, and return the commit's page.

    Images, labels, confidences, lists, tables and ``dataset.yaml`` as they are, with a card; given and discovered
    labels stay told apart by ``provenance.csv``. What else lies in the folder stays here.

    Args:
        folder: with a ``dataset.yaml``.
        repository: ``user/name``, with ``@branch`` and ``/folder`` where wanted; made where there is none.
        private: whether only its owner sees it; False publishes it. A repository that is there must be as is said.
        token: of the Hub; default: the one that is logged in.
        license: the identifier of the data's licence on the Hub; None: that of the card that is there, else unknown.
        message: of the commit.

    Raises:
        DataError, ConfigError: the folder cannot be opened, or names files that lie elsewhere.
        HubError: the name is malformed, there is no token, or the Hub refuses or cannot be reached.
    """
    root = Path(folder)
    index = open_folder(root)
    files = {path.relative_to(root).as_posix(): path for path in _shared(root, index)}
    if len(files) > MOST_FILES:
        raise DataError(f"{root} has {len(files)} files, more than {MOST_FILES}, which the Hub does not take in one go")
    if (found := first_fault(sorted(files))) is not None:
        console.say(f"WARNING: not every system can have all of these files: {found}; rename it where others use them")
    if not private:
        _warn_of_places(index)
    address = parse_address(repository if is_address(repository) else f"hf://datasets/{repository}")
    address = HubAddress(address.repository, "dataset", address.revision, address.folder)

    def with_card(before: str | None) -> Mapping[str, Path | bytes]:
        own = (root / CARD).read_text(encoding="utf-8") if (root / CARD).is_file() else None
        licence = license or licence_of(before or own or "")
        return {**files, CARD: dataset_card(index, str(address), licence, before or own).encode()}

    folders = {name.partition("/")[0] for name in files if "/" in name}

    def ours(name: str) -> bool:
        return name in TABLES or (name.partition("/")[0] in folders and _is_picture(name))

    return upload(address, with_card, ours, private, token, message or "Data set by TaskTokens")


def _shared(root: Path, index: DatasetIndex) -> Iterator[Path]:
    """The files of the data set: images, labels, confidences, lists and tables."""
    named = {file.path for file in index.images.values()}
    named |= {file.path for labels in index.labels.values() for file in labels.values()}
    named |= {found.label.path for labels in index.discovered.values() for found in labels.values()}
    for folder in CONFIDENCES:
        named |= {root.joinpath(folder, *parts) for parts in walk_files(root / folder) if _is_picture(parts[-1])}
    named |= {path for name in (*TABLES, *_declared(root)) if (path := root / name).is_file()}
    outside = sorted(str(path) for path in named if ".." in path.parts or not path.is_relative_to(root))
    if outside:
        raise DataError(
            f"{root} names {len(outside)} files that lie elsewhere, such as {outside[0]}; `tasktokens prepare --from "
            f"folder --root {root} --out NEW` makes one folder of them, which can be pushed"
        )
    yield from sorted(named)


def _declared(root: Path) -> Iterator[str]:
    """The lists and tables that ``dataset.yaml`` names."""
    values = read_yaml(root / "dataset.yaml")
    for key in ("manifest", "labelled", "splits", "labels"):
        found = values.get(key) or ()
        yield from map(str, found.values() if isinstance(found, Mapping) else [found] if found else [])


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_ENDINGS)


def _warn_of_places(index: DatasetIndex) -> None:
    """Say which photographs tell where they were taken, before all the world can read it."""
    telling = [str(file.path) for file in index.images.values() if _tells_place(file.path)]
    if telling:
        console.say(
            f"WARNING: {len(telling)} images hold the place where they were taken (EXIF GPS), such as {telling[0]}; "
            f"remove it where it should not be public"
        )


def _tells_place(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return bool(image.getexif().get_ifd(_GPS))
    except (OSError, ValueError, SyntaxError):
        return False
