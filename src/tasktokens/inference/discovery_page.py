"""The page of `tasktokens discover --page`: what was filled, how confident it is, and pictures to judge it by."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.index import DatasetIndex
from tasktokens.inference.discovery_summary import SHARES, Discovery, Row, TaskSummary
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.colours import colour_map, confidence_legend
from tasktokens.utils.legends import Legend
from tasktokens.utils.templates import page_templates

PAGE = "discovery.html"
"""File of the page in the folder of a discovery."""
_SIDE = 320  # pixels of the longer side of a picture
_FIRST, _REST = 12, 12  # images of the gallery: the least confident ones, and some evenly spread over the others
_BARS = 50


def write_page(discovery: Discovery, rows: Sequence[Row]) -> Path:
    """Write ``discovery.html`` into a completed folder; it needs no network.

    Args:
        discovery: the folder and its summary.
        rows: of all discovered labels, as `summarise` takes them.
    """
    environment = page_templates()
    index = open_folder(discovery.folder)
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row[0], {})[row[1]] = row
    page = environment.get_template("discovery.html.j2").render(
        discovery=discovery, names=[f"{share:.0%}" for share in SHARES],
        table=[_line(task) for task in discovery.tasks],
        charts=[_chart(task, [row for row in rows if row[1] == task.task]) for task in discovery.tasks if task.images],
        panels=(_panel(discovery.folder, index, id, found[id]) for id in gallery(rows)),
        images=len(found), legends=[_legend(task.legend()) for task in index.tasks.values()],
        confidence=_legend(confidence_legend()), written=f"{datetime.now():%Y-%m-%d %H:%M}",
    )  # fmt: skip
    return write_atomically(discovery.folder / PAGE, page.encode())


def gallery(rows: Sequence[Row]) -> list[str]:
    """The images to show, the least confident first: those, and some evenly spread over the others.

    Tasks differ in how confident they are, so a label's mean confidence counts relative to the mean of its task, and
    an image is as confident as the least confident of its labels.

    Examples:
        >>> gallery([["a", "depth", 1.0, 0.2, []], ["b", "depth", 1.0, 0.1, []], ["a", "edge", 1.0, 0.9, []]])
        ['b', 'a']
    """
    by_task: dict[str, list[float]] = {}
    for row in rows:
        by_task.setdefault(row[1], []).append(row[3])
    means = {task: sum(values) / len(values) or 1.0 for task, values in by_task.items()}
    relative: dict[str, float] = {}
    for row in rows:
        relative[row[0]] = min(relative.get(row[0], np.inf), row[3] / means[row[1]])
    order = sorted(relative, key=lambda id: (relative[id], id))
    others = order[_FIRST:]
    places = np.linspace(0, len(others) - 1, min(_REST, len(others))).round().astype(int).tolist()
    return order[:_FIRST] + [others[place] for place in places]


# -- table and histograms ----------------------------------------------------------------------------------------------
def _line(task: TaskSummary) -> dict[str, Any]:
    return {
        "task": task.task,
        "images": task.images,
        "filled": "–" if task.filled is None else f"{task.filled:.1%}",
        "confidence": "–" if task.confidence is None else f"{task.confidence:.2f}",
        "threshold": f"{task.threshold:g}",
        "fills": [f"{task.fills[str(share)]:g}" if str(share) in task.fills else "–" for share in SHARES],
    }


def _chart(task: TaskSummary, rows: Sequence[Row]) -> dict[str, Any]:
    """Bars of the share of pixels by confidence, and marks at thresholds; places in percent of the width."""
    counts = np.array([row[4] for row in rows], dtype=np.float64).sum(axis=0)
    bars = counts[1:].reshape(_BARS, -1).sum(axis=1)
    bars[0] += counts[0]  # of a confidence of 0
    shares = bars / bars.sum()
    marks = [(task.threshold, f"threshold {task.threshold:g}", "threshold")]
    marks += [(value, f"{float(share):.0%} filled by {value:g}", "fill") for share, value in task.fills.items()]
    return {
        "task": task.task,
        "bars": [
            {
                "x": f"{100 * number / _BARS:g}", "width": f"{100 / _BARS:g}",
                "height": f"{100 * s / shares.max():.2f}",
                "kept": number / _BARS >= task.threshold - 1e-9,
                "title": f"confidence {number / _BARS:.2f} to {(number + 1) / _BARS:.2f}: {s:.1%} of the pixels",
            }
            for number, s in enumerate(shares.tolist())
        ],
        "marks": [{"x": f"{100 * value:g}", "text": text, "sort": sort} for value, text, sort in marks],
    }  # fmt: skip


def _legend(legend: Legend) -> dict[str, Any]:
    bar = None
    if legend.bar is not None:
        bar = _data_uri(np.repeat(legend.bar[None], 8, axis=0), "PNG")
    return {
        "title": legend.title, "ends": legend.ends, "bar": bar,
        "swatches": [{"colour": "#" + bytes(colour).hex(), "name": name} for colour, name in legend.swatches],
    }  # fmt: skip


# -- pictures ----------------------------------------------------------------------------------------------------------
def _panel(folder: Path, index: DatasetIndex, id: str, found: Mapping[str, Row]) -> dict[str, Any]:
    """An image with its labels; below discovered ones their confidence."""
    pictures = [{"caption": "image", "note": "", "uri": _data_uri(index.images[id].read(), "JPEG"), "below": None}]
    pictures += _labels(folder, index, id, found)
    return {"id": id, "pictures": pictures}


def _labels(folder: Path, index: DatasetIndex, id: str, found: Mapping[str, Row]) -> Iterator[dict[str, Any]]:
    for name, task in index.tasks.items():
        given = index.labels[name].get(id)
        if given is None and name not in found:
            continue
        label = given or index.discovered[name][id].label
        picture = {"caption": name, "note": index.source(name, id), "uri": _drawn(task, *label.read()), "below": None}
        if name in found:
            _, _, filled, confidence, *_ = found[name]
            with Image.open(folder / "confidence" / name / f"{id}.png") as stored:
                picture["below"] = _data_uri(colour_map(np.asarray(stored) / np.float32(255)), "PNG")
            picture["note"] = f"discovered, {filled:.0%} filled, confidence {confidence:.2f}"
        yield picture


def _drawn(task: Task, value_CHW: Array, valid_HW: Array) -> str:
    return _data_uri(task.colourise(value_CHW, valid_HW), "PNG")


def _data_uri(pixels_HW3: Array, form: str) -> str:
    """A picture for ``src``, reduced; labels by the nearest pixel, so that colours keep their meaning."""
    image = Image.fromarray(np.ascontiguousarray(pixels_HW3))
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS if form == "JPEG" else Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, form, quality=88)
    return f"data:image/{form.lower()};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
