"""Pictures of a run: ``curves.png``, and ``samples/`` with predictions for a few images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasktokens.data.dataset import PartialDataset
from tasktokens.datasets.open import all_visible
from tasktokens.datasets.run_data import open_run_data
from tasktokens.inference.evaluate import run_config, run_folder
from tasktokens.inference.predictor import Predictor
from tasktokens.models.files import read_info
from tasktokens.reporting.run_history import RunHistory
from tasktokens.tasks import Task
from tasktokens.training.log import Row, read_rows
from tasktokens.utils.atomic import atomically
from tasktokens.utils.colours import colour_map
from tasktokens.utils.pictures import COLOURS, Picture, Strip, draw_curve, hidden, save_strips

LOSSES = {"loss": "given labels", "discovered_loss": "discovered labels", "weighted_loss": "labels discovered before"}
"""Terms of the loss that are drawn, and what they are of."""


def draw_curves(run: Path, rows: Sequence[Row] | None = None) -> Path:
    """Draw ``curves.png`` of a run: each task's losses, and its primary metric where the run was validated.

    Args:
        rows: of its log; default: those in its ``metrics.jsonl``, which must not be open in this process.
    """
    from matplotlib.figure import Figure

    logged = RunHistory(read_rows(run / "metrics.jsonl") if rows is None else rows)
    models = [run / name for name in ("model", "best") if (run / name / "model.json").is_file()]
    known = read_info(models[0]).tasks if models else {}
    names = list(dict.fromkeys(key.split("/")[1] for row in logged.rows for key in row if key.startswith("loss/")))
    validated = bool(logged.validations and known)
    figure = Figure(figsize=(max(4.0, 3.2 * len(names)), 5.2 if validated else 2.8), layout="constrained")
    axes = figure.subplots(2 if validated else 1, max(1, len(names)), squeeze=False)
    for column, name in enumerate(names):
        _losses(axes[0][column], logged, name)
        if validated and name in known:
            _metric(axes[1][column], logged, name, known[name])
    figure.suptitle(run.name, parse_math=False)
    with atomically(run / "curves.png") as new:
        figure.savefig(new, dpi=110)
    return run / "curves.png"


def write_samples(run: Path, count: int = 4) -> list[Path]:
    """Write a picture for a few images of a run: image, given label, prediction and confidence of each task.

    The images are those that were held out, where there are any, else training images with the labels that the run has
    seen: hidden ones are not opened.
    """
    config, predictor = run_config(run), Predictor(run)
    data = open_run_data(run_folder(run), config)
    split = all_visible(data.collection, data.holdout, data.tasks) if data.holdout else data.train
    ids = list(split)[:: max(1, len(split) // count)][:count]
    dataset = PartialDataset(data.collection, {id: split[id] for id in ids}, data.tasks, config.data.size)
    paths = []
    for index, id in enumerate(ids):
        sample = dataset[0, index]
        image = sample.image.permute(1, 2, 0).numpy()
        strips = []
        for name, prediction in predictor(image).items():
            task, given = data.tasks[name], hidden(image.shape)
            if (label := sample.labels.get(name)) is not None:
                given = task.colourise(label.value.numpy(), label.valid[0].numpy())
            predicted = Picture("prediction", task.colourise(prediction.value_CHW))
            confidence = Picture("confidence", colour_map(prediction.confidence))
            strips.append(Strip(name, (Picture("image", image), Picture("label", given), predicted, confidence)))
        path = run / "samples" / f"{id.replace('/', '-')}.png"
        path.parent.mkdir(exist_ok=True)
        paths.append(save_strips(path, strips))
    return paths


def _losses(axes: Any, logged: RunHistory, task: str) -> None:
    for (kind, title), colour in zip(LOSSES.items(), COLOURS, strict=False):
        for number, curve in enumerate(logged.curves(f"{kind}/{task}")):
            draw_curve(axes, curve, colour, title if number == 0 else None)
    axes.set_title(f"{task}: loss", pad=16, parse_math=False)  # the names of stages stand below it
    _finish(axes)


def _metric(axes: Any, logged: RunHistory, name: str, task: Task) -> None:
    metric = task.metric()
    for number, curve in enumerate(logged.validation(name, metric.primary)):
        axes.plot(curve[2], curve[3], "o-", color=COLOURS[2], markersize=3, label="validation" if number == 0 else None)
    for row in [row for row in logged.validations if row["best"]][-1:]:
        starts = _starts(logged)
        axes.axvline(starts.get(row["stage"], 0) + row["step"], color=COLOURS[3], linewidth=1, label="best")
    unit = metric.units.get(metric.primary.split("/")[0], "")
    arrow = "↑" if metric.primary_is_higher else "↓"
    axes.set_title(f"{name}: {metric.primary} {unit} {arrow}", parse_math=False)
    _finish(axes)


def _starts(logged: RunHistory) -> Mapping[str, int]:
    """How many steps come before each stage."""
    stages = logged.stages()
    return {name: sum(steps for _, steps in stages[:index]) for index, (name, _) in enumerate(stages)}


def _finish(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel("step")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, frameon=False)
