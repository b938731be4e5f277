"""`check` at the start of a run: only what the run may see, and once for each state of the files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from tasktokens.config import Config
from tasktokens.data.visibility import VisibleLabels
from tasktokens.datasets.base import DatasetSource
from tasktokens.datasets.open import Data, all_visible
from tasktokens.errors import DataError
from tasktokens.inspection.listing import shared_labels, splits_without_labels
from tasktokens.inspection.report import Finding, Report
from tasktokens.inspection.survey import check, mirror_findings
from tasktokens.utils import console, strict_json
from tasktokens.utils.atomic import cache_folder, write_atomically
from tasktokens.utils.file_state import file_state
from tasktokens.utils.safe_io import read_json

RULES = 3
"""Changes with what is looked for, so that nothing counts as right that was judged by fewer rules."""


def check_before_run(data: Data, config: Config, quiet: bool = False) -> None:
    """Examine the images and visible labels of a run and say in one line on standard error that they are right.

    Label files that the run must not see are not touched. A data set that was found to be right is not examined again
    until a file's size or times (of content and of status), the tasks or this package change; what is remembered lies
    in ``tasktokens/check`` under ``$TASKTOKENS_CACHE``, ``$XDG_CACHE_HOME`` or ``~/.cache``. Rendered rooms need no
    check.

    Raises:
        DataError: naming the first errors.
    """
    if not config.data.check or (isinstance(config.data, DatasetSource) and config.data.generated):
        return
    flip = config.data.augmentation.flip
    if flip and not quiet:
        for finding in mirror_findings(data.tasks):
            console.say(f"warning: task '{finding.task}': {finding.message}")
    started = time.monotonic()
    visible = _visible(data, config)
    note = cache_folder("check") / f"{_state(data, visible, config)}.json"
    before = _read(note)
    if before is None:
        progress = not quiet and len(visible) > 200
        threads = min(os.cpu_count() or 1, 4)  # not processes: a run may be started by a script without a main guard
        report = check(data.collection, data.tasks, visible, threads=threads, progress=progress, flip=flip)
        unmeasured = len(_unmeasured(data, config))
        # A file that cannot be read can be left out; what is wrong with a whole task cannot.
        of_whole_task = any(finding.path is None and finding.id is None for finding in report.errors)
        if not report.ok and (of_whole_task or not config.data.skip_corrupt):
            raise DataError(_errors(report))
        if not report.ok:
            found = f"data: {report.totals['error']} errors ('tasktokens check' lists them)"
            console.say(f"{found}; data.skip_corrupt leaves out what cannot be read")
            return
        before = {"images": report.examined, "warnings": report.totals["warning"] + unmeasured}
        _write(note, before)
        outcome = f"checked in {time.monotonic() - started:.1f} s"
    else:
        outcome = f"as checked before ({time.monotonic() - started:.1f} s)"
    if not quiet:
        number = before["warnings"]
        warnings = f"{number} warning{'s' * (number > 1)} (tasktokens check lists them)" if number else "no warning"
        labels = sum(len(names) for names in visible.values())
        console.say(f"data: {len(visible)} images and {labels} labels {outcome}, {warnings}")


def _visible(data: Data, config: Config) -> VisibleLabels:
    """Labels that the run trains on, and those of the images that it is measured on."""
    visible = dict(data.train)
    splits = [config.run.evaluate, config.run.validate_on if config.run.validate_every else None]
    for ids in (data.holdout, *(data.collection.splits.get(split or "", ()) for split in splits)):
        for id, names in all_visible(data.collection, ids, data.tasks).items():
            visible.setdefault(id, names)  # an image that is trained on shows what training may see
    return visible


def _unmeasured(data: Data, config: Config) -> list[Finding]:
    """Tasks that a split of this run has no labels of, and label files of several images."""
    splits = [config.run.evaluate, config.run.validate_on if config.run.validate_every else None]
    named = {split: None for split in splits if split is not None and split in data.collection.splits}
    missing = [each for name in data.tasks for each in splits_without_labels(data.collection, name, ("train", *named))]
    return missing + [each for name in data.tasks for each in shared_labels(data.collection, name)]


def _errors(report: Report) -> str:
    errors = report.errors
    shown = " | ".join(_placed(finding) for finding in errors[:3])
    more = f" | and {report.totals['error'] - 3} more" if report.totals["error"] > 3 else ""
    return (
        f"the data is not fit to train on: {shown}{more}. 'tasktokens check' lists every error; "
        f"data.check=false skips this check"
    )


def _placed(finding: Finding) -> str:
    """The message with its file or task, where it does not name them itself."""
    place = finding.path or (f"task '{finding.task}'" if finding.task else None)
    return finding.message if place is None or place in finding.message else f"{place}: {finding.message}"


# -- what is remembered ------------------------------------------------------------------------------------------------
def _state(data: Data, visible: VisibleLabels, config: Config) -> str:
    """A digest of all that the result depends on: files by path, size and times; tasks; splits; how they are read."""
    index = data.collection
    settings = config.data.model_dump(mode="json", include={"kind", "root", "classes", "depth", "parts"})
    digest = hashlib.blake2b(digest_size=20)
    digest.update(strict_json.dumps([version("tasktokens"), RULES, settings, config.data.augmentation.flip]).encode())
    digest.update(strict_json.dumps({name: task.spec() for name, task in data.tasks.items()}, default=str).encode())
    digest.update(strict_json.dumps({name: list(ids) for name, ids in index.splits.items()}).encode())
    for id, names in visible.items():
        paths = [index.images[id].path, *(index.labels[name][id].path for name in names)]
        for line in _file_states(id, paths):
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _file_states(id: str, paths: list[Path]) -> Iterator[str]:
    for path in paths:
        state = file_state(path)
        yield "\0".join([id, str(path.absolute()), *(["missing"] if state is None else map(str, state))]) + "\n"


def _read(note: Path) -> Mapping[str, int] | None:
    """What was found before; None where nothing, or nothing readable, is remembered."""
    try:
        values = read_json(note)
        return {"images": int(values["images"]), "warnings": int(values["warnings"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(note: Path, values: Mapping[str, int]) -> None:
    """Remember; a cache that cannot be written costs time and nothing else."""
    with contextlib.suppress(OSError):
        write_atomically(note, strict_json.dumps(values).encode())
