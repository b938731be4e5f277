"""The card of a data folder: its tasks, and how many labels of each were given, discovered, and decided of."""

from __future__ import annotations

from typing import Any

from tasktokens.datasets.index import DatasetIndex
from tasktokens.datasets.provenance import SOURCES
from tasktokens.hub.card import NO_LICENCE, licence_sentence, make_card, table

_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


def dataset_card(index: DatasetIndex, source: str, licence: str | None, before: str | None = None) -> str:
    """The text of ``README.md``.

    Args:
        index: the data folder.
        source: its address, such as ``hf://datasets/user/name``.
        licence: its identifier on the Hub; None: unknown, which the card says.
        before: the card that is there, see `tasktokens.hub.card.make_card`.
    """
    title = source.rpartition("/")[2]
    sections = [
        f"# {title}", _summary(index), licence_sentence(licence),
        "## How to use it", f"```sh\ntasktokens train data.root={source}\ntasktokens pull {source} {title}\n```",
        "## Labels", _labels(index),
        "## Tasks", _tasks(index),
    ]  # fmt: skip
    return make_card(_head(index, title, licence), "\n\n".join(sections), before)


def _head(index: DatasetIndex, title: str, licence: str | None) -> dict[str, Any]:
    size = next((name for most, name in _SIZES.items() if len(index.images) < most), "1M<n<10M")
    categories = list(dict.fromkeys(task.pipeline_tag for task in index.tasks.values()))
    return {
        "pretty_name": title, "license": licence or NO_LICENCE, "task_categories": categories,
        "tags": ["tasktokens", "partial-labels"], "size_categories": [size],
    }  # fmt: skip


def _summary(index: DatasetIndex) -> str:
    splits = ", ".join(f"{name} ({len(ids)})" for name, ids in index.splits.items())
    return (
        f"{len(index.images)} images with labels of {len(index.tasks)} tasks, each image with any subset of them. "
        f"Splits: {splits}. A folder for TaskTokens: `images/`, a folder of label files for each task, `dataset.yaml`."
    )


def _labels(index: DatasetIndex) -> str:
    """How many labels there are of each source. One that was rejected is absent, whatever file lies there."""
    counts = {name: index.sources(name) for name in index.tasks}
    shown = [source for source in SOURCES if source == "given" or any(each.get(source) for each in counts.values())]
    rows = []
    for name, each in counts.items():
        present = sum(number for source, number in each.items() if source != "rejected")
        rows.append([name, *(each.get(source, 0) for source in shown), len(index.images) - present])
    text = table(["task", *shown, "missing"], rows)
    if "discovered" in shown:
        text += (
            "\n\n`provenance.csv` says where each label comes from. A discovered label was predicted by a network and "
            "seen by nobody: it is no ground truth, and nothing should be measured on it."
        )
    return text


def _tasks(index: DatasetIndex) -> str:
    rows = []
    for name, task in index.tasks.items():
        values = {key: value for key, value in task.spec().items() if key != "kind" and value is not None}
        rows.append([name, task.kind, "; ".join(f"{key}: {_plain(value)}" for key, value in values.items())])
    return table(["task", "kind", "description"], rows)


def _plain(value: object) -> str:
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)
