"""The card of a model: what it predicts, how well, what it learned from, and how to use it."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasktokens.config import Config
from tasktokens.data.visibility import AVAILABLE, count_labels
from tasktokens.datasets.run_data import LABELS
from tasktokens.discovery.store import TABLE
from tasktokens.errors import CheckpointError
from tasktokens.hub.card import NO_LICENCE, licence_sentence, make_card, table
from tasktokens.inference.evaluate import run_config, run_folder
from tasktokens.inference.evaluations import Evaluation, read_evaluation
from tasktokens.inference.public_settings import data_name, public_settings
from tasktokens.models.files import ModelInfo, model_folder, read_info
from tasktokens.tasks import Task
from tasktokens.utils.safe_io import dump_yaml


@dataclass(frozen=True)
class Labels:
    """How many labels of a task a run learned from: seen ones, ones that it hid, ones that it discovered.

    Attributes:
        seen: given, accepted or corrected ones, which counted in full.
        hidden: that exist and were not opened.
        discovered: that a network found, and that counted by their confidence.
    """

    seen: int
    hidden: int
    discovered: int


@dataclass(frozen=True)
class ModelFacts:
    """All that a card says.

    Attributes:
        info: of the model.
        config: of its run; None for a model that came without one.
        images: of training; None where it is not known.
        labels: by task.
        evaluations: by split: value by task and metric.
        data: what the data is called.
    """

    info: ModelInfo
    config: Config | None = None
    images: int | None = None
    labels: Mapping[str, Labels] = field(default_factory=dict)
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    data: str | None = None


def model_facts(path: Path) -> ModelFacts:
    """What the folder of a run, or of a model in it, says. Raises `CheckpointError` where there is no model."""
    info, run = read_info(model_folder(path)), run_folder(path)
    if not (run / LABELS).is_file():
        return ModelFacts(info)
    config = run_config(run)
    counts, images = count_labels(run / LABELS)
    labels = {name: _labels(run, name, counts.get(name, Counter())) for name in info.tasks}
    measured = run if path.name == "model" else path  # those of `best` lie in it
    return ModelFacts(info, config, images, labels, _evaluations(measured), data_name(config))


def _labels(run: Path, task: str, counts: Counter[str]) -> Labels:
    seen = sum(counts[word] for word in ("given", "accepted", "corrected"))
    there = sum(count_labels(run / AVAILABLE)[0][task].values()) if (run / AVAILABLE).is_file() else seen
    found = {id for path in sorted(run.glob(f"discovered*/{TABLE}")) for id in _discovered(path, task)}
    return Labels(seen, max(there - seen, 0), max(len(found), counts["discovered"]))


def _discovered(path: Path, task: str) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row["id"] for row in csv.DictReader(file) if row["task"] == task]


def _evaluations(folder: Path) -> dict[str, Evaluation]:
    """What was measured correctly; the quirks of published code are for tables that compare with those."""
    splits = [path.stem.removeprefix("evaluation-") for path in sorted(folder.glob("evaluation-*.json"))]
    return {split: read_evaluation(folder, split) for split in splits if not split.endswith("-paper")}


# -- the card ----------------------------------------------------------------------------------------------------------
def model_card(
    facts: ModelFacts, source: str, licence: str | None, datasets: Sequence[str] = (), before: str | None = None
) -> str:
    """The text of ``README.md``.

    Args:
        facts: see `model_facts`.
        source: what `from_pretrained` is to be given, such as ``user/name``.
        licence: its identifier on the Hub, such as ``apache-2.0``; None: unknown, which the card says.
        datasets: names of data sets on the Hub that it was trained on.
        before: the card that is there, see `make_card`.
    """
    title = source.rpartition("/")[2]
    sections = [
        f"# {title}", _summary(facts), licence_sentence(licence),
        "## How to use it", _usage(facts, source),
        "## Tasks", _tasks(facts.info.tasks),
        "## Metrics", _metrics(facts),
        "## Data and labels", _data(facts),
        "## Training", _training(facts),
    ]  # fmt: skip
    return make_card(_head(facts, title, licence, datasets), "\n\n".join(sections), before)


def _head(facts: ModelFacts, title: str, licence: str | None, datasets: Sequence[str]) -> dict[str, Any]:
    tasks = facts.info.tasks
    head: dict[str, Any] = {"library_name": "tasktokens", "license": licence or NO_LICENCE}
    head["pipeline_tag"] = pipeline_tag(tasks)
    head["tags"] = ["tasktokens", "multi-task-learning", *dict.fromkeys(task.pipeline_tag for task in tasks.values())]
    if datasets:
        head["datasets"] = list(datasets)
    primaries = dict.fromkeys(task.metric().primary for task in tasks.values())
    head["metrics"] = list(primaries)
    results = [_result(facts, split, found) for split, found in facts.evaluations.items()]
    if any(result["metrics"] for result in results):
        head["model-index"] = [{"name": title, "results": [each for each in results if each["metrics"]]}]
    return head


def pipeline_tag(tasks: Mapping[str, Task]) -> str:
    """What the Hub is to list a model of several tasks under: the first task that it has a name of its own for."""
    own = (task.pipeline_tag for task in tasks.values() if task.pipeline_tag != Task.pipeline_tag)
    return next(own, Task.pipeline_tag)


def _result(facts: ModelFacts, split: str, found: Evaluation) -> dict[str, Any]:
    """One entry of the head's ``model-index``: the primary metric of each task."""
    metrics = []
    for name, task in facts.info.tasks.items():
        primary = task.metric().primary
        value = found.get(name, {}).get(primary)
        if value is not None:
            metrics.append({"type": primary, "name": f"{name} {primary}", "value": round(value, 4)})
    data = facts.data or "unknown"
    return {
        "task": {"type": pipeline_tag(facts.info.tasks)},
        "dataset": {"name": data, "type": data, "split": split},
        "metrics": metrics,
    }


def _summary(facts: ModelFacts) -> str:
    tasks = facts.info.tasks
    names = ", ".join(f"{name} ({task.kind})" for name, task in tasks.items())
    many = f"One network that predicts {len(tasks)} tasks" if len(tasks) > 1 else "A network that predicts one task"
    height, width = facts.info.size
    return (
        f"{many} of an RGB image of any size: {names}. Network `{facts.info.network}` with the backbone "
        f"`{facts.info.settings.backbone}`, trained at {height}×{width} pixels, by TaskTokens {version('tasktokens')}."
    )


def _usage(facts: ModelFacts, source: str) -> str:
    last = list(facts.info.tasks)[-1]
    return "\n".join([
        "```python",
        "import tasktokens",
        f"model = tasktokens.from_pretrained({source!r})",
        'result = model.predict("photo.jpg")',
        f'value, confidence = result[{last!r}].value, result[{last!r}].confidence',
        f'result[{last!r}].save("{last}.png")',
        "```",
    ])  # fmt: skip


def _tasks(tasks: Mapping[str, Task]) -> str:
    rows = []
    for name, task in tasks.items():
        settings = {key: value for key, value in task.spec().items() if key not in ("kind", *task.storage)}
        text = "; ".join(f"{key}: {_short(value)}" for key, value in settings.items() if value is not None)
        rows.append([name, task.kind, text])
    return table(["task", "kind", "what it is"], rows)


def _short(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_short(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _metrics(facts: ModelFacts) -> str:
    rows = []
    for split, found in facts.evaluations.items():
        for name, task in facts.info.tasks.items():
            units = task.metric().units
            for metric, value in found.get(name, {}).items():
                unit = units.get(metric.split("/")[0], "")
                number = "nothing to measure" if value is None else f"{value:.4g} {unit}".strip()
                rows.append([split, name, metric, number])
    if not rows:
        return "Nothing was measured, or it is not known."
    return f"Measured on {facts.data or 'unknown data'}.\n\n" + table(["split", "task", "metric", "value"], rows)


def _data(facts: ModelFacts) -> str:
    if facts.images is None:
        return "It is not known what data the model was trained on."
    rows = [[name, each.seen, each.hidden, each.discovered] for name, each in facts.labels.items()]
    return (
        f"Trained on {facts.images} images of {facts.data}. Seen labels counted in full, hidden ones exist and were "
        f"not opened, discovered ones were found by a network and counted by their confidence.\n\n"
        + table(["task", "labels seen", "hidden", "discovered"], rows)
    )


def _training(facts: ModelFacts) -> str:
    if facts.config is None:
        return "The settings of the training are not known."
    changed = public_settings(facts.config, changed=True)
    return f"Settings that differ from the defaults (all of them: `config.yaml`):\n\n```yaml\n{dump_yaml(changed)}```"


def require_model(path: Path) -> Path:
    """The model folder of a path. Raises `CheckpointError` where it lacks a file."""
    folder = model_folder(path)
    read_info(folder)
    if not (folder / "model.safetensors").is_file():
        raise CheckpointError(f"{folder} has no model.safetensors; copy both files of the model")
    return folder
