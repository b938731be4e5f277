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

from tasktokens.apps.pictures import write_atomically
from tasktokens.data.collection import Collection
from tasktokens.data.doctor_report import Report, TaskReport
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.tasks.colours import class_palette

_SIDE = 320
"""Largest width and height of a panel's pictures in pixels."""


def write_page(path: Path, report: Report, tasks: Mapping[str, Task], collection: Collection | None) -> Path:
    """Write the page; it needs no network. ``collection`` None: the data could not be opened, there are no panels."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tasktokens", "assets"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"share": share_text, "number": number_text, "sizes": sizes_text}
    page = environment.get_template("check.html.j2").render(
        report=report, verdict=verdict(report), bars={name: _bars(tasks[name], r) for name, r in report.tasks.items()},
        panels=list(_panels(collection, tasks)) if collection else [], written=f"{datetime.now():%Y-%m-%d %H:%M}",
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
def _panels(collection: Collection, tasks: Mapping[str, Task], count: int = 8) -> Iterator[dict[str, Any]]:
    """Images with their labels, chosen so that every task is shown as often as the others where labels allow."""
    ids = list(collection.images)
    order = [ids[i] for i in np.random.RandomState(0).permutation(len(ids))]
    shown = dict.fromkeys(tasks, 0)
    for _ in range(min(count, len(ids))):
        best = max(order, key=partial(_gain, collection, shown))
        order.remove(best)
        pictures = [{"caption": "image", "uri": _data_uri(collection.images[best].read, "JPEG")}]
        for name, task in tasks.items():
            if best in collection.labels[name]:
                shown[name] += 1
                pictures.append(
                    {"caption": name, "uri": _data_uri(partial(_drawn, collection, best, name, task), "PNG")}
                )
        yield {"id": best, "pictures": pictures}


def _gain(collection: Collection, shown: Mapping[str, int], id: str) -> float:
    """What a panel of this image would add: the task that was shown least counts most."""
    return sum(2.0**-count for name, count in shown.items() if id in collection.labels[name])


def _drawn(collection: Collection, id: str, name: str, task: Task) -> Array:
    return task.colourise(*collection.labels[name][id].read())


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
    if report.ok:
        warnings = len(report.warnings)
        return f"nothing wrong found, {warnings} warning{'s' * (warnings != 1)}" if warnings else "nothing wrong found"
    return f"{len(report.errors)} error{'s' * (len(report.errors) != 1)}, {len(report.warnings)} warnings"


def number_text(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def share_text(share: float | None) -> str:
    """A share in percent; small ones are not rounded to nothing."""
    if share is None:
        return "–"
    return "0 %" if share == 0 else "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def sizes_text(sizes: Mapping[str, int]) -> str:
    """``640x480 (1449)``, at most three."""
    text = ", ".join(f"{size} ({count})" for size, count in list(sizes.items())[:3])
    return text + (", …" if len(sizes) > 3 else "") or "–"
