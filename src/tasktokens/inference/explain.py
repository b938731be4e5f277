"""``tasktokens explain``: what the network computes on the way to its predictions, one picture per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasktokens.datasets.listed_folders import check_not_listed
from tasktokens.errors import ConfigError
from tasktokens.hub.download import local_model
from tasktokens.inference.explain_page import Panel, Table, draw
from tasktokens.inference.image_files import readable
from tasktokens.inference.image_listing import find_images, folders_of
from tasktokens.inference.journal import require_empty
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.results import Prediction
from tasktokens.models.explain import Stages, stages
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.file_kinds import is_exported
from tasktokens.utils.lock import only_writer

STRONGEST = 4
"""Token maps shown per task."""


@dataclass(frozen=True)
class Explanation:
    """One image: the stages of the network on it, by name as in `stages`, and its predictions.

    Attributes:
        image: (H, W, 3) uint8.
        stages: what `stages` returns.
        predictions: by task.
    """

    image: Array
    stages: Stages
    predictions: Mapping[str, Prediction]


def explain(
    model: str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    overwrite: bool = False,
    quiet: bool = False,
) -> list[Path]:
    """Draw gates, affinities, token maps and confidences of images.

    Args:
        model: a run that `train` wrote, or its model folder. Of the MTL baseline, which has no tokens, the strength of
            the features and the confidences are shown.
        inputs: one or more images, folders (searched below) or glob patterns.
        out: new folder: ``{id}.png`` and ``explain.json`` with the figures of all images.
        overwrite: whether ``out`` may hold files already; those with the same names are replaced.

    Returns:
        The pictures.

    Raises:
        CheckpointError: no model there.
        RunExistsError: ``out`` is not empty, or another process writes into it.
        DataError: no image found, two with one name, or, after all others were explained, unreadable ones.

    Examples:
        >>> import tasktokens
        >>> [path.as_posix() for path in tasktokens.explain("runs/mine", "photos/one.jpg", "explained", quiet=True)]
        ['explained/one.png']
    """
    model, out = local_model(model), Path(out)
    if is_exported(model):
        raise ConfigError(f"{model} is an exported file, which gives no gates and tokens; give the run to explain")
    predictor = Predictor(model)
    images = find_images(inputs)
    check_not_listed(out, folders_of(inputs))
    with only_writer(out):
        require_empty(out, overwrite)
        return _explain_all(predictor, model, images, out, quiet)


def _explain_all(predictor: Predictor, model: Path, images: Mapping[str, Path], out: Path, quiet: bool) -> list[Path]:
    pictures, figures = [], {}
    try:
        for id, image in readable(images, "explaining", quiet):
            explanation = explain_image(predictor, image)
            figures[id] = measure(predictor.tasks, explanation)
            pictures.append(write_atomically(out / f"{id}.png", picture(id, predictor.tasks, explanation)))
    finally:
        about = {"model": str(model), "network": predictor.info.network, "tasks": list(predictor.tasks)}
        text = strict_json.dumps({**about, "images": figures}, indent=1, ensure_ascii=False)
        write_atomically(out / "explain.json", f"{text}\n".encode())
    return pictures


def explain_image(predictor: Predictor, image_HW3: Array) -> Explanation:
    """The stages at the working size, and the predictions that `Predictor` makes of one uint8 RGB image."""
    recorded = stages(predictor.network, predictor.prepare(image_HW3))
    logits = {name: recorded[f"{name}.logits"] for name in predictor.tasks}
    predictions = predictor.decode(logits, (image_HW3.shape[0], image_HW3.shape[1]))
    return Explanation(image_HW3, {name: x.float().cpu() for name, x in recorded.items()}, predictions)


def measure(tasks: Mapping[str, Task], explanation: Explanation) -> dict[str, Any]:
    """The figures of one image, as plain values.

    ``affinity``: a T x T matrix per scale, row t what task t takes of each task. For each task of ``tasks``:
    ``confidence``, the mean; ``sure``, the share of pixels over the task's threshold; ``own_gates`` and ``gates``, the
    mean gate a scale before and after the mixing; ``learned_confidence``, the mean of the learned map; ``tokens``, the
    share of pixels where a fine-grained token has the largest logit. What the network does not have is left out.
    """
    seen = explanation.stages
    scales = _scales(seen)
    affinity = {str(i): _rounded(seen[f"scale{i}.affinity"][0]) for i in scales}
    figures: dict[str, Any] = {"affinity": affinity, "tasks": {}}
    for t, (name, task) in enumerate(tasks.items()):
        prediction = explanation.predictions[name]
        task_figures: dict[str, Any] = {
            "confidence": _rounded(prediction.confidence.mean()),
            "sure": _rounded(prediction.valid(task.threshold).mean()),
        }
        if scales:
            for gates in ("own_gates", "gates"):
                task_figures[gates] = {str(i): _rounded(seen[f"scale{i}.{gates}"][0, t].mean()) for i in scales}
        if f"{name}.confidence" in seen:
            task_figures["learned_confidence"] = _rounded(seen[f"{name}.confidence"].sigmoid().mean())
        if f"{name}.token_maps" in seen:
            shares = zip(task.token_names(), _shares(seen[f"{name}.logits"][0]), strict=True)
            task_figures["tokens"] = {token: _rounded(share) for token, share in shares if share > 0}
        figures["tasks"][name] = task_figures
    return figures


def picture(title: str, tasks: Mapping[str, Task], explanation: Explanation) -> bytes:
    """The PNG of one image."""
    seen = explanation.stages
    tables = [Table(f"affinity, scale {i}", list(tasks), seen[f"scale{i}.affinity"][0].numpy()) for i in _scales(seen)]
    rows = {name: _row(t, task, explanation) for t, (name, task) in enumerate(tasks.items())}
    return draw(title, Panel("image", explanation.image), tables, rows)


def _row(t: int, task: Task, explanation: Explanation) -> list[Panel | None]:
    """What is shown of the task at position t."""
    seen, prediction = explanation.stages, explanation.predictions[task.name]
    row: list[Panel | None] = [Panel("prediction", task.colourise(prediction.value_CHW))]
    row += [Panel(f"gate, scale {i}", seen[f"scale{i}.gates"][0, t].numpy(), note=True) for i in _scales(seen)]
    if f"{task.name}.token_maps" in seen:
        row += _strongest(task, seen[f"{task.name}.token_maps"][0], seen[f"{task.name}.logits"][0])
    else:
        row.append(Panel("feature, length", seen[f"{task.name}.feature"][0].norm(dim=0).numpy(), note=True))
    if f"{task.name}.confidence" in seen:
        learned = seen[f"{task.name}.confidence"][0, 0].sigmoid().numpy()
        row.append(Panel("learned confidence", learned, note=True, limits=(0, 1)))
    row.append(Panel("confidence", prediction.confidence, note=True, limits=(0, 1)))
    return row


def _strongest(task: Task, maps_Khw: torch.Tensor, logits_Khw: torch.Tensor) -> list[Panel | None]:
    """Token maps of the tokens that win most pixels, or where there is only one, that one."""
    names = task.token_names()
    order = np.argsort(-np.asarray(_shares(logits_Khw)), kind="stable")[:STRONGEST]
    panels: list[Panel | None] = [Panel(names[k], maps_Khw[k].numpy(), note=True) for k in order]
    return panels + [None] * (STRONGEST - len(panels))


def _shares(logits_Khw: torch.Tensor) -> list[float]:
    """The share of pixels where each logit is the largest."""
    winner = logits_Khw.argmax(dim=0).flatten()
    shares: list[float] = (torch.bincount(winner, minlength=len(logits_Khw)) / len(winner)).tolist()
    return shares


def _scales(seen: Stages) -> list[int]:
    """Numbers of the scales that have gates."""
    return sorted(int(name.removeprefix("scale").split(".")[0]) for name in seen if name.endswith(".affinity"))


def _rounded(value: Any) -> Any:
    return np.round(np.asarray(value, dtype=np.float64), 4).tolist()
