"""The page of a comparison: table, metric against cost, metric against the share of labels, pictures side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tasktokens.reporting.comparison.pictures import picture_table
from tasktokens.reporting.comparison.runs import Work
from tasktokens.reporting.comparison.shares import share_of
from tasktokens.reporting.comparison.suite import Suite
from tasktokens.reporting.comparison.tables import Comparison, Line, cells, header
from tasktokens.reporting.provenance import describe
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.pictures import COLOURS, svg
from tasktokens.utils.templates import page_templates

_NAME = 0.19  # inches per name of a method in a chart


def write_page(work: Work, comparison: Comparison, higher: Mapping[str, bool]) -> Path:
    """Write ``report.html``, one file that needs no network."""
    environment = page_templates()
    suite, found = work.suite, comparison.lines
    names = header(comparison.columns, found)
    head = describe("", suite.seeds)
    page = environment.get_template("compare.html.j2").render(
        title=f"Comparison: {suite.name}", notes=_notes(work), names=names, reference=suite.reference,
        against=suite.against, table=_marked(found, names, higher),
        arrows={name: " ↑" if up else " ↓" for name, up in higher.items()} | {"delta_mtl": " ↑"},
        equal_shares=[f"{each.sentence()}." for each in comparison.equal_shares], mean_against=_mean_against(suite),
        figures=_figures(found, comparison.columns, higher), pictures=picture_table(work),
        commit=head["commit"], machine=head["machine"], written=f"{datetime.now():%Y-%m-%d %H:%M}",
    )  # fmt: skip
    return write_atomically(work.out / "report.html", page.encode())


def _mean_against(suite: Suite) -> str:
    """What the reference of Δ_MTL was trained on."""
    data = "the same data" if suite.reference_data is None else suite.reference_data
    return f"{data} and {'the same' if suite.reference_labels is None else suite.reference_labels} labels"


def _notes(work: Work) -> list[str]:
    suite = work.suite
    cost = f"networks take {suite.steps} optimiser steps, or the multiple of it that the suite gives a method"
    if suite.cost == "total":
        cost = f"each method takes as much time as {suite.cost_of}, whose stages are multiples of {suite.steps} steps"
    return [
        f"All methods see the same images, labels, batches and augmentation; {cost}. "
        f"Measured on the split {suite.split}, at the last checkpoint."
    ]


def _marked(found: Sequence[Line], names: Sequence[str], higher: Mapping[str, bool]) -> list[list[tuple[str, bool]]]:
    """Cells with whether they are the best of their column, among lines of the same data and labels."""
    rows = []
    for line in found:
        peers = [other for other in found if (other.data, other.labels) == (line.data, line.labels)]
        row = []
        for name, text in zip(names, cells(line, names), strict=True):
            up = {**higher, "delta_mtl": True}.get(name)
            best = False
            if up is not None and len(peers) > 1 and math.isfinite(line.values[name][0]):
                means = [mean for p in peers if math.isfinite(mean := p.values[name][0])]
                best = line.values[name][0] == (max if up else min)(means)
            row.append((text, best))
        rows.append(row)
    return rows


def _figures(
    found: Sequence[Line], columns: Sequence[str], higher: Mapping[str, bool]
) -> list[tuple[str, list[tuple[str, Markup]]]]:
    """Charts by heading."""
    figures = []
    names = [*columns, *(["delta_mtl"] if any(math.isfinite(line.values["delta_mtl"][0]) for line in found) else [])]
    shares = [line for line in found if share_of(line.labels) is not None]
    for data in dict.fromkeys(line.data for line in shares):
        of_data = [line for line in shares if line.data == data]
        if len({line.labels for line in of_data}) > 1:
            charts = [(f"{name} against labels", _curves(f"{data}{name}", of_data, name)) for name in names]
            figures.append((" · ".join(part for part in ("Quality against labels", data) if part), charts))
    for data, labels in dict.fromkeys((line.data, line.labels) for line in found):
        of_place = [line for line in found if (line.data, line.labels) == (data, labels)]
        charts = [(f"{name} against minutes", _scatter(f"{data}{labels}{name}", of_place, name)) for name in names]
        heading = " · ".join(part for part in ("Quality against cost", data, f"labels: {labels}") if part)
        figures.append((heading, charts))
    return figures


def _scatter(salt: str, found: Sequence[Line], name: str) -> Markup:
    """A point per method, named at the right, where names do not cover each other."""

    def draw(axes: Any) -> None:
        points = []
        for number, line in enumerate(found):
            (x, _), (y, spread) = line.values["cpu_minutes"], line.values[name]
            if not math.isfinite(y):
                continue
            colour = COLOURS[number % len(COLOURS)]
            axes.errorbar([x], [y], yerr=[spread if math.isfinite(spread) else 0], fmt="o", color=colour, markersize=5)
            points.append((y, x, line.method, colour))
        axes.set_xlabel("minutes")
        axes.margins(x=0.1, y=0.1)
        low, high = axes.get_ylim()
        heights = _apart([(y - low) / (high - low) for y, *_ in sorted(points)], _NAME / _height(found))
        for (y, x, method, colour), at in zip(sorted(points), heights, strict=True):
            # Settled by the axes' own frame, so that the layout makes room for the names.
            axes.annotate(
                method, (x, y), xytext=(1.04, at), textcoords="axes fraction", color=colour, fontsize=8.5, va="center",
                arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.35, "linewidth": 0.6},
            )  # fmt: skip

    return Markup(svg(salt, draw, (4.6, _height(found))))


def _height(found: Sequence[Line]) -> float:
    """Inches of a chart in which every line has a name of its own."""
    return max(2.8, 0.6 + _NAME * len(found))


def _apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Increasing places at least ``gap`` apart, near the wanted ones, which increase; in [0, 1] where all fit.

    Examples:
        >>> [round(place, 2) for place in _apart([0.5, 0.5, 0.9], 0.1)]
        [0.5, 0.6, 0.9]
    """
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + gap) if places else max(0.0, place))
    top = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], top)
        top = places[i] - gap
    return places


def _curves(salt: str, found: Sequence[Line], name: str) -> Markup:
    def draw(axes: Any) -> None:
        for number, method in enumerate(dict.fromkeys(line.method for line in found)):
            points = sorted((100 * (share_of(line.labels) or 0), *line.values[name]) for line in found
                            if line.method == method)  # fmt: skip
            x, y, spread = (list(values) for values in zip(*points, strict=True))
            spread = [s if math.isfinite(s) else 0 for s in spread]
            axes.errorbar(x, y, yerr=spread, fmt="o-", color=COLOURS[number % len(COLOURS)], markersize=4, label=method)
        shares = sorted({100 * (share_of(line.labels) or 0) for line in found})
        axes.set_xscale("log")
        axes.set_xticks(shares, [f"{share:g}" for share in shares])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("% of the labels")
        axes.legend(fontsize=8, frameon=False)

    return Markup(svg(salt, draw, (4.0, 2.8)))
