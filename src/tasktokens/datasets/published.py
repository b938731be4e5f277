"""The published label splits of the three benchmarks, which lie in the package (``assets/splits``, with their source).

They come from the MTPSL release (Li et al., CVPR 2022; MIT licence) and are used by the papers that followed.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib.resources import files

from tasktokens.data.visibility import VisibleLabels


def published_labels(by_rule: Mapping[str, str], ids: Sequence[str]) -> dict[str, VisibleLabels]:
    """The published splits of a data set by rule (``one``, ``random``): the tasks whose labels each image shows.

    Args:
        by_rule: the file in the package's ``assets/splits`` for each rule.
        ids: its training images, in the order of the release where the files count by position (NYUD, Cityscapes), in
            any order where they name images (PASCAL-Context).

    Returns:
        Nothing for a rule whose file does not fit these images: a part of the data has no published split.
    """
    return {rule: split for rule, file in by_rule.items() if (split := _read(file, ids)) is not None}


def _read(file: str, ids: Sequence[str]) -> VisibleLabels | None:
    text = (files("tasktokens") / "assets" / "splits" / file).read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    key, *tasks = rows[0]
    shown = {row[key]: tuple(task for task in tasks if row[task] == "1") for row in rows}
    names = [str(i) for i in range(len(ids))] if key == "index" else list(ids)
    if set(names) != set(shown):
        return None
    return {id: shown[name] for id, name in zip(ids, names, strict=True)}
