"""Models and data sets of the Hub on this machine: in the cache of its client, whole or not at all."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterable
from pathlib import Path

from tasktokens.errors import HubError, RunExistsError
from tasktokens.hub.address import HubAddress, is_address, parse_address
from tasktokens.hub.shipped import names_shipped, shipped_model
from tasktokens.utils.lock import only_writer_of_new

CONNECT_SECONDS = 10.0
"""How long the Hub may take to answer."""

WEIGHTS, DESCRIPTION, SETTINGS, CARD = "model.safetensors", "model.json", "config.yaml", "README.md"
MODEL_FILES = (WEIGHTS, DESCRIPTION, SETTINGS, CARD)
"""All that is downloaded of a model."""

TEXT_ENDINGS = (".yaml", ".txt", ".csv", ".json", ".parquet", ".md")
PICTURE_ENDINGS = (
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".npy", ".npz",
)  # fmt: skip
DATA_ENDINGS = (*TEXT_ENDINGS, *PICTURE_ENDINGS)
"""Endings of all that is downloaded of a data set; arrays are read without unpickling."""


def local_model(path: str | Path, token: str | None = None) -> Path:
    """The path itself; of an address of the Hub, the folder of the cache that holds the model.

    ``demo`` is the model that ships with the package, unless something here is called so.

    Raises:
        HubError: there is no such model, the Hub refuses or cannot be reached, or the address is of a data set.

    Examples:
        >>> local_model("runs/mine").as_posix()
        'runs/mine'
    """
    if names_shipped(path):
        return shipped_model()
    if not is_address(path):
        return Path(path)
    address = parse_address(path)
    if address.kind != "model":
        raise HubError(f"{address} is a data set; expected a model, such as hf://user/name")
    folder = fetch(address, MODEL_FILES, token)
    if missing := [name for name in (DESCRIPTION, WEIGHTS) if not (folder / name).is_file()]:
        raise HubError(
            f"{address} holds no model of TaskTokens (no {missing[0]}); check the name, and the folder in the "
            f"repository: hf://user/name/folder"
        )
    return folder


def local_data(path: str | Path, token: str | None = None) -> Path:
    """The path itself; of an address of the Hub, the folder of the cache that holds the data set.

    Raises:
        HubError: there is no such data set, the Hub refuses or cannot be reached, or the address is of a model.
    """
    if not is_address(path):
        return Path(path)
    address = parse_address(path)
    if address.kind != "dataset":
        raise HubError(f"{address} is a model; expected a data set: hf://datasets/{address.repository}")
    folder = fetch(address, [f"*{ending}" for each in DATA_ENDINGS for ending in (each, each.upper())], token)
    if not (folder / "dataset.yaml").is_file():
        raise HubError(
            f"{address} is no data folder (no dataset.yaml); expected one that `tasktokens push FOLDER` wrote"
        )
    return folder


def fetch(address: HubAddress, patterns: Iterable[str], token: str | None = None) -> Path:
    """Download what fits the patterns into the cache, and return the folder of it. Raises `HubError`."""
    from huggingface_hub import HfApi, constants  # slow to import, so only for what is on the Hub

    from tasktokens.hub.failures import told_in_one_sentence

    within = f"{glob.escape(address.folder)}/" if address.folder else ""
    with told_in_one_sentence(address, "downloaded"):
        api = HfApi(endpoint=constants.ENDPOINT, token=token)
        found = api.snapshot_download(
            address.repository, repo_type=address.kind, revision=address.revision, cache_dir=constants.HF_HUB_CACHE,
            allow_patterns=[within + pattern for pattern in patterns], etag_timeout=CONNECT_SECONDS,
        )  # fmt: skip
    return Path(found) / address.folder


def pull(address: str | Path, out: str | Path, token: str | None = None) -> Path:
    """Download a model or a data set into a folder of its own, which appears when all is in it.

    Args:
        address: ``hf://user/name`` or ``hf://datasets/user/name``, with ``@revision`` and ``/folder`` where wanted.
        out: a new folder.
        token: of the Hub; default: the one that is logged in.

    Raises:
        HubError: see `local_model`. RunExistsError: ``out`` is there.
    """
    out = Path(out)
    if not is_address(address):
        raise HubError(f"'{address}' is no address of the Hub; expected hf://user/name or hf://datasets/user/name")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunExistsError(f"{out} is not empty; give a new folder")
    of_data = parse_address(address).kind == "dataset"
    source = local_data(address, token) if of_data else local_model(address, token)
    with only_writer_of_new(out):
        unfinished = out.parent / f".{out.name}.partial"
        shutil.rmtree(unfinished, ignore_errors=True)  # of a killed process
        try:
            # Files, not the cache's links, so that the cache may be cleared.
            shutil.copytree(source, unfinished, ignore=_others if of_data else _not_of_model)
            if out.exists():
                out.rmdir()
            unfinished.rename(out)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return out


def _others(folder: str, names: list[str]) -> list[str]:
    """What else lies in the folder of the cache."""
    return [name for name in names if Path(folder, name).is_file() and not name.lower().endswith(DATA_ENDINGS)]


def _not_of_model(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name not in MODEL_FILES]
