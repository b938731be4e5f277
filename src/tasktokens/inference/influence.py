"""``tasktokens explain --influence``: how much predictions change when a part of the network is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasktokens.data.transforms import resize_image
from tasktokens.datasets.open import Data, choose_tasks, open_index
from tasktokens.datasets.run_data import open_run_data
from tasktokens.errors import DataError
from tasktokens.hub.download import local_model
from tasktokens.inference.evaluate import eval_dataset, run_config, run_folder
from tasktokens.inference.image_files import readable
from tasktokens.inference.image_listing import find_images
from tasktokens.inference.journal import require_empty
from tasktokens.models import Network
from tasktokens.models.files import load_model
from tasktokens.models.interventions import applied
from tasktokens.tasks import Task
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.lock import only_writer

BATCH = 16
"""Images that swap parts with each other."""

Changes = dict[tuple[str, str], dict[str, Tensor]]
"""For each part and intervention, by task: the mean change of each image of a batch (B,)."""


@dataclass(frozen=True)
class Influence:
    """What changes of the predictions.

    Attributes:
        network: kind of the network.
        images: how many were averaged.
        units: by task: of what ``changed`` says, such as ``%`` of the pixels, ``m`` or ``°``.
        rows: ``part``, ``intervention``, ``task``, ``changed`` (mean over pixels and images), ``unit``.
        by_image: the same rows without a unit, for each image by its id.
    """

    network: str
    images: int
    units: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    by_image: Mapping[str, Sequence[Mapping[str, Any]]]


def influence(
    model: str | Path,
    inputs: str | Path | Sequence[str | Path] | None,
    out: str | Path | None,
    overwrite: bool = False,
    quiet: bool = False,
    root: str | Path | None = None,
) -> Influence:
    """Measure what each part of a trained network does: predictions with it changed against those as it is.

    Images are seen at the size of training, stretched, in batches of `BATCH`, in which each image gets the tokens and
    gates of the one before; means over a batch stand for constants.

    Args:
        model: a run that `train` wrote, or its model folder.
        inputs: images, folders or glob patterns; None: the images on which the run is measured (``run.evaluate``).
        out: new folder for ``influence.json``; None: nothing is written.
        overwrite: whether ``out`` may hold files already.
        root: for None as ``inputs``: where the run's data lies now.

    Raises:
        CheckpointError: no model there.
        RunExistsError: ``out`` is not empty, or another process writes into it.
        DataError: no image found, fewer than two, or, after all others, unreadable ones.

    Examples:
        >>> import tasktokens
        >>> from tasktokens.inference.influence import influence
        >>> found = influence("runs/mine", "photos", None, quiet=True)
        >>> sorted({row["part"] for row in found.rows})[:3]
        ['attention', 'fine_tokens', 'gates']
    """
    model = local_model(model)
    if out is None:
        return _measure(model, inputs, quiet, root)
    out = Path(out)
    with only_writer(out):
        require_empty(out, overwrite)
        found = _measure(model, inputs, quiet, root)
        text = strict_json.dumps({"model": str(model), **asdict(found)}, indent=1, ensure_ascii=False)
        write_atomically(out / "influence.json", f"{text}\n".encode())
    return found


def _measure(
    model: Path, inputs: str | Path | Sequence[str | Path] | None, quiet: bool, root: str | Path | None
) -> Influence:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, info = load_model(model, device)
    units = {name: task.difference_unit for name, task in info.tasks.items()}
    if not network.interventions():
        return Influence(info.network, 0, units, (), {})
    images = _files(inputs, info.size, quiet) if inputs else _of_the_run(model, info.tasks, info.size, root)
    per_image: dict[str, Changes] = {}
    for ids, image_B3HW in batches(images):
        found = changes(network, image_B3HW.to(device))
        for row, id in enumerate(ids):
            per_image[id] = {key: {n: x[row] for n, x in of_task.items()} for key, of_task in found.items()}
    by_image = {id: _rows(found) for id, found in per_image.items()}
    total: Changes = {
        key: {name: torch.stack([found[key][name] for found in per_image.values()]).mean() for name in of_task}
        for key, of_task in next(iter(per_image.values())).items()
    }
    rows = [{**row, "unit": units[row["task"]]} for row in _rows(total)]
    return Influence(info.network, len(per_image), units, rows, by_image)


@torch.no_grad()
def changes(network: Network, image_B3HW: Tensor) -> Changes:
    """What each intervention of a network changes in its predictions for a batch of at least two images.

    Returns the mean over pixels of each task's `Task.difference`, at the images' size.
    """
    network.eval()
    size = image_B3HW.shape[-2:]

    def predict() -> dict[str, Tensor]:
        outputs = network(image_B3HW)
        return {name: task.decode(outputs[name].logits_at(size)) for name, task in network.tasks.items()}

    plain, found = predict(), {}
    for intervention in network.interventions():
        with applied(intervention):
            changed = predict()
        found[intervention.part, intervention.name] = {
            name: task.difference(plain[name], changed[name]).mean(dim=(1, 2, 3)).cpu()
            for name, task in network.tasks.items()
        }
    return found


def batches(images: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[list[str], Tensor]]:
    """Ids and images (B, 3, H, W) in batches of `BATCH`, the last of up to one more: none is alone.

    Raises `DataError` for fewer than two images.
    """
    waiting: list[tuple[str, Tensor]] = []
    for item in images:
        waiting.append(item)
        if len(waiting) == BATCH + 2:  # so that two are left for the last batch
            yield _stacked(waiting[:BATCH])
            waiting = waiting[BATCH:]
    if len(waiting) < 2:
        raise DataError(f"parts are swapped between images, which takes at least two; found {len(waiting)}")
    yield _stacked(waiting)


def _stacked(items: Sequence[tuple[str, Tensor]]) -> tuple[list[str], Tensor]:
    return [id for id, _ in items], torch.stack([image for _, image in items])


def _files(
    inputs: str | Path | Sequence[str | Path], size: tuple[int, int], quiet: bool
) -> Iterator[tuple[str, Tensor]]:
    for id, image in readable(find_images(inputs), "measuring", quiet):
        yield id, resize_image(torch.from_numpy(image.copy()).permute(2, 0, 1), size)


def _of_the_run(
    model: Path, tasks: Mapping[str, Task], size: tuple[int, int], root: str | Path | None
) -> Iterator[tuple[str, Tensor]]:
    """The images on which a run is measured."""
    config = run_config(model, None if root is None else Path(root))
    split = config.run.measured_on or "test"
    if split == "holdout":
        data = open_run_data(run_folder(model), config)
    else:
        index = open_index(config)
        data = Data(index, choose_tasks(index, config.tasks), {}, ())
    dataset = eval_dataset(data, split, tasks, size)
    for number in range(len(dataset)):
        sample = dataset[number]
        yield sample.id, sample.image


def _rows(found: Mapping[tuple[str, str], Mapping[str, Tensor]]) -> list[dict[str, Any]]:
    return [
        {"part": part, "intervention": name, "task": task, "changed": round(float(value), 4)}
        for (part, name), of_task in found.items()
        for task, value in of_task.items()
    ]
