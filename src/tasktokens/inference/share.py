"""Models that leave their run: a folder with a card, or a repository of the Hugging Face Hub with the same files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tasktokens.config import Config
from tasktokens.errors import RunExistsError
from tasktokens.hub.address import HubAddress, is_address, parse_address
from tasktokens.hub.card import licence_of
from tasktokens.hub.download import CARD, DESCRIPTION, MODEL_FILES, SETTINGS, WEIGHTS, local_model
from tasktokens.hub.upload import upload
from tasktokens.inference.model_card import ModelFacts, model_card, model_facts, require_model
from tasktokens.inference.public_settings import public_settings
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.lock import only_writer
from tasktokens.utils.safe_io import dump_yaml, read_text


def save_pretrained(
    model: str | Path, folder: str | Path, license: str | None = None, datasets: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:  # fmt: skip
    """Write a trained model into a folder that can be given away: weights, description, settings, and a card.

    No file of it names a path of this machine. What a person added to the card is kept when it is written again.

    Args:
        model: a run, its ``best``, a model folder, or ``hf://user/name``.
        folder: to write to.
        license: the identifier of its licence on the Hub, such as ``apache-2.0`` or ``cc-by-nc-4.0``; None: that of
            the card that is there, else unknown, which the card then says.
        datasets: names on the Hub of the data sets that it was trained on.
        overwrite: replace another model in the folder.

    Raises:
        CheckpointError: there is no model, or it is damaged. RunExistsError: the folder holds a model already.

    Examples:
        >>> import tasktokens
        >>> from tasktokens.inference.share import save_pretrained
        >>> folder = save_pretrained("runs/mine", "shared", license="cc-by-4.0")
        >>> sorted(path.name for path in folder.iterdir())
        ['README.md', 'config.yaml', 'model.json', 'model.safetensors']
        >>> list(tasktokens.from_pretrained("shared", device="cpu").tasks)
        ['semseg', 'depth']
    """
    path, folder = local_model(model), Path(folder)
    source = require_model(path)
    with only_writer(folder):
        if (folder / DESCRIPTION).exists() and not overwrite:
            raise RunExistsError(f"{folder} holds a model already; give a new folder, or --overwrite")
        before = _card_there(folder) or _card_there(source)
        files = shared_files(path, folder.as_posix(), license, datasets, before)
        for name, content in files.items():
            # The description last: without it a folder is no model.
            write_atomically(folder / name, content if isinstance(content, bytes) else content.read_bytes())
    return folder


def push_to_hub(
    model: str | Path, repository: str, private: bool = True, token: str | None = None, license: str | None = None,
    datasets: Sequence[str] = (), message: str | None = None,
) -> str:  # fmt: skip
    """Publish a trained model on the Hugging Face Hub in one commit, and return the commit's page.

    Args:
        model: a run, its ``best``, or a model folder.
        repository: ``user/name``, with ``@branch`` and ``/folder`` where wanted; made where there is none.
        private: whether only its owner sees it; False publishes it. A repository that is there must be as is said.
        token: of the Hub; default: the one that is logged in.
        license: see `save_pretrained`.
        datasets: see `save_pretrained`.
        message: of the commit.

    Raises:
        CheckpointError: there is no model.
        HubError: the name is malformed, there is no token, or the Hub refuses or cannot be reached.
    """
    path = local_model(model)
    require_model(path)
    address = as_address(repository)
    source = str(address).removeprefix("hf://")
    return upload(
        address, lambda card: shared_files(path, source, license, datasets, card),
        lambda name: name in MODEL_FILES, private, token, message or "Model by TaskTokens",
    )  # fmt: skip


def as_address(repository: str) -> HubAddress:
    """The address that ``user/name`` or ``hf://user/name`` means. Raises `HubError`."""
    return parse_address(repository if is_address(repository) else f"hf://{repository}")


def shared_files(
    path: Path, source: str, licence: str | None, datasets: Sequence[str], card: str | None
) -> Mapping[str, Path | bytes]:
    """What is given away of a model, by name, the description last; ``card``: that which is there."""
    facts, folder = model_facts(path), require_model(path)
    licence = licence or licence_of(card or "")
    files: dict[str, Path | bytes] = {WEIGHTS: folder / WEIGHTS}
    settings = _settings(facts, folder)
    if settings is not None:
        files[SETTINGS] = settings
    if facts.images is None and (folder / CARD).is_file():  # it says more than the files alone
        files[CARD] = (folder / CARD).read_bytes()
    else:
        files[CARD] = model_card(facts, source, licence, [*datasets, *_from_hub(facts.config)], card).encode()
    files[DESCRIPTION] = folder / DESCRIPTION
    return files


def _settings(facts: ModelFacts, folder: Path) -> bytes | None:
    if facts.config is not None:
        return dump_yaml(public_settings(facts.config), allow_unicode=True).encode()
    kept = folder / SETTINGS  # of a model that was shared before
    return kept.read_bytes() if kept.is_file() else None


def _from_hub(config: Config | None) -> list[str]:
    root = None if config is None else getattr(config.data, "root", None)
    return [parse_address(root).repository] if root is not None and is_address(root) else []


def _card_there(folder: Path) -> str | None:
    return read_text(folder / CARD) if (folder / CARD).is_file() else None
