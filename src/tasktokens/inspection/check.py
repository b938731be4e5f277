"""`tasktokens check`: a data set's statistics and errors on the terminal, as JSON, and as a page with panels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tasktokens.config import Config, as_config, load_config, parse_config
from tasktokens.datasets.open import choose_tasks, open_index
from tasktokens.errors import ConfigError, DataError
from tasktokens.hub.address import is_address
from tasktokens.inspection.check_page import number_text, share_text, sizes_text, sources_text, verdict, write_page
from tasktokens.inspection.report import Finding, Report
from tasktokens.inspection.survey import check as check_collection


def check(
    data: str | Path | Config | Mapping[str, Any],
    workers: int | None = None,
    limit: int | None = None,
    page: str | Path | None = None,
    quiet: bool = True,
) -> Report:
    """Examine every image and label of a data set.

    Args:
        data: an own folder, or the configuration, or its plain values, whose ``data`` and ``tasks`` are meant.
        workers: number of processes; None: by the number of cores and images; 1: this process.
        limit: examine at most this many images, evenly spread over the list.
        page: also write this HTML page, with panels of images and labels.
        quiet: do not show progress.

    Returns:
        The errors of every file and the statistics; a data set that cannot even be listed is a report with one error.

    Raises:
        DataError, ConfigError: there is no such folder, or the settings are wrong.

    Examples:
        >>> import tasktokens
        >>> report = tasktokens.check("mydata", workers=1)
        >>> report.ok, report.images
        (True, 8)
    """
    folder = isinstance(data, str | Path)
    config = as_config({"data": {"kind": "folder", "root": str(data)}} if folder else data)
    page = None if page is None else Path(page)
    root = getattr(config.data, "root", None)
    if root is not None and not is_address(root) and not Path(root).exists():
        raise DataError(f"data folder {root} does not exist")
    if root is None and hasattr(config.data, "root"):
        raise ConfigError("nothing to check; give the data folder, or --config FILE")
    try:
        index = open_index(config, progress=not quiet)
    except (DataError, ConfigError) as error:
        finding = Finding("error", "cannot-open", str(error), path=str(root) if root else None)
        report = Report(str(root), findings=(finding,), counts={"cannot-open": 1}, totals={"error": 1, "warning": 0})
        if page is not None:
            write_page(page, report, {}, None)
        return report
    tasks = choose_tasks(index, config.tasks)
    report = check_collection(
        index, tasks, workers=workers, limit=limit, progress=not quiet, flip=config.data.augmentation.flip
    )
    if page is not None:
        write_page(page, report, tasks, index)
    return report


def settings(folder: Path | None, kind: str | None, root: Path | None, file: Path | None) -> Config:
    """The configuration for the arguments of the command line. Raises `ConfigError` for none or too many of them."""
    given = [folder is not None, kind is not None or root is not None, file is not None]
    if sum(given) != 1 or (kind is None and root is not None):
        raise ConfigError("give one of: a data folder; --data KIND --root DIR; --config FILE")
    if file is not None:
        return load_config(file)
    source: dict[str, str] = {"kind": kind or "folder"}
    if folder is not None or root is not None:
        source["root"] = str(folder if root is None else root)
    return parse_config({"data": source})


# -- terminal ----------------------------------------------------------------------------------------------------------
def print_report(report: Report, console: Console | None = None) -> None:
    """A table of the tasks, a line for each task's histogram, and the findings."""
    console = console or Console()
    if report.images:
        seen = f", {report.examined} of them examined" if report.examined < report.images else ""
        splits = ", ".join(f"{name} {count}" for name, count in report.splits.items())
        console.print(f"[bold]{escape(report.root)}[/]: {report.images} images{seen} ({escape(splits)})")
        console.print(f"sizes: {sizes_text(report.sizes)}")
        table = Table("task", "kind", *(f"labelled\n{escape(name)}" for name in report.splits), "failed", "void")
        for name, task in report.tasks.items():
            labelled = [str(task.labelled[split]) for split in report.splits]
            table.add_row(name, task.kind, *labelled, str(task.failed), share_text(task.void))
        console.print(table)
        for name, task in report.tasks.items():
            if task.sources.keys() - {"given"}:
                console.print(f"[bold]{name}[/]: {sources_text(task.sources)}")
            values = [f"{key}: {number_text(value)}" for key, value in task.numbers.items()]
            shares = [f"{bar.label} {share_text(bar.share)}" for bar in task.histogram]
            if values or shares:
                console.print(f"[bold]{name}[/]: {escape(', '.join(values))}\n  shares: {escape(', '.join(shares))}")
    shown: Counter[tuple[str, str | None]] = Counter()
    for finding in report.findings:
        shown[finding.code, finding.task] += 1
        if shown[finding.code, finding.task] <= _TERMINAL:
            style = "red" if finding.severity == "error" else "yellow"
            where = " ".join(text for text in (finding.task, finding.id) if text)
            heading = f"{finding.severity} {finding.code}" + (f" ({where})" if where else "")
            console.print(f"[{style}]{escape(heading)}[/]: {escape(finding.message)}", soft_wrap=True)
    for code, count in report.counts.items():
        kept = sum(min(number, _TERMINAL) for (name, _), number in shown.items() if name == code)
        if count > kept:
            console.print(f"… and {count - kept} more of [bold]{code}[/]")
    console.print(verdict(report))


_TERMINAL = 3
"""Findings of a code and task that the terminal shows."""
