"""The page of `tasktokens check`: one HTML file with statistics, findings, and panels of images and labels."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasktokens.datasets.index import DatasetIndex
from tasktokens.inspection.report import Report, TaskReport
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.colours import class_palette
from tasktokens.utils.templates import page_templates

_SIDE = 320
"""Largest width and height of a panel's pictures in pixels."""


def write_page(path: Path, report: Report, tasks: Mapping[str, Task], index: DatasetIndex | None) -> Path:
    """Write the page; it needs no network. ``index`` None: the data could not be opened, there are no panels."""
    environment = page_templates()
    environment.filters |= {"share": share_text, "number": number_text, "sizes": sizes_text, "sources": sources_text}
    page = environment.get_template("check.html.j2").render(
        report=report, verdict=verdict(report), bars={name: _bars(tasks[name], r) for name, r in report.tasks.items()},
        panels=list(_panels(report, index, tasks)) if index else [],
        written=f"{datetime.now():%Y-%m-%d %H:%M}",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(path, page.encode())


def _bars(task: Task, report: TaskReport) -> list[dict[str, Any]]:
    """Histogram bars with widths relative to the longest, and the classes' colours."""
    most = max((bar.share for bar in report.histogram), default=0) or 1
    palette = class_palette(len(report.histogram)) if task.class_names() else None
    return [
        {
            "label": bar.label, "share": bar.share, "width": f"{100 * bar.share / most:.2f}",
            "colour": "#7f8da3" if palette is None else "#" + bytes(palette[i].tolist()).hex(),
        }
        for i, bar in enumerate(report.histogram)
    ]  # fmt: skip


# -- panels ------------------------------------------------------------------------------------------------------------
def _panels(report: Report, index: DatasetIndex, tasks: Mapping[str, Task]) -> Iterator[dict[str, Any]]:
    """Images with their labels: some that are named in findings, then some that show every task equally often."""
    named = {f.id: f.code for f in report.findings if f.id is not None and f.id in index.images}
    for id in list(named)[:_NAMED]:
        yield _panel(index, tasks, id, named[id])
    ids = list(index.images)
    order = [ids[i] for i in np.random.RandomState(0).permutation(len(ids)) if ids[i] not in named]
    shown = dict.fromkeys(tasks, 0)
    for _ in range(min(_SAMPLES, len(order))):
        best = max(order, key=partial(_gain, index, shown))
        order.remove(best)
        shown = {name: count + (best in index.labels[name]) for name, count in shown.items()}
        yield _panel(index, tasks, best, None)


_NAMED, _SAMPLES = 4, 8


def _panel(index: DatasetIndex, tasks: Mapping[str, Task], id: str, code: str | None) -> dict[str, Any]:
    pictures = [{"caption": "image", "uri": _data_uri(index.images[id].read, "JPEG")}]
    for name, task in tasks.items():
        if id in index.labels[name]:
            pictures.append({"caption": name, "uri": _data_uri(partial(_drawn, index, id, name, task), "PNG")})
    return {"id": id, "code": code, "pictures": pictures}


def _gain(index: DatasetIndex, shown: Mapping[str, int], id: str) -> float:
    """What a panel of this image would add: the task that was shown least counts most."""
    return sum(2.0**-count for name, count in shown.items() if id in index.labels[name])


def _drawn(index: DatasetIndex, id: str, name: str, task: Task) -> Array:
    return task.colourise(*index.labels[name][id].read())


def _data_uri(draw: Callable[[], Array], form: str) -> str | None:
    """A picture for ``src``, reduced; None where it cannot be drawn, which a finding explains."""
    try:
        image = Image.fromarray(np.ascontiguousarray(draw()))
        filter = Image.Resampling.LANCZOS if form == "JPEG" else Image.Resampling.NEAREST
        image.thumbnail((_SIDE, _SIDE), filter)
        buffer = io.BytesIO()
        image.save(buffer, form, quality=88)
    except Exception:  # a page shows what can be shown
        return None
    return f"data:image/{form.lower()};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


# -- words -------------------------------------------------------------------------------------------------------------
def verdict(report: Report) -> str:
    """The outcome in a sentence."""
    errors, warnings = (report.totals.get(severity, 0) for severity in ("error", "warning"))
    warned = f"{warnings} warning{'s' * (warnings != 1)}"
    if errors:
        return f"{errors} error{'s' * (errors != 1)}, {warned}"
    return f"nothing wrong found, {warned}" if warnings else "nothing wrong found"


def number_text(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def share_text(share: float | None) -> str:
    """A share in percent; small ones are not rounded to nothing."""
    if share is None:
        return "–"
    return "0 %" if share == 0 else "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def sources_text(sources: Mapping[str, int]) -> str:
    """``12 given, 30 discovered (not counted in the figures)``."""
    text = ", ".join(f"{count} {source}" for source, count in sources.items())
    return f"{text} (discovered labels are in none of the other figures)" if sources.get("discovered") else text


def sizes_text(sizes: Mapping[str, int]) -> str:
    """``640x480 (1449)``, at most three."""
    text = ", ".join(f"{size} ({count})" for size, count in list(sizes.items())[:3])
    return text + (", …" if len(sizes) > 3 else "") or "–"
