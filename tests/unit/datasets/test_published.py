"""The published splits: the counts of the papers, and nothing for data that they do not describe."""

from __future__ import annotations

import pytest

from tasktokens.datasets.cityscapes import PUBLISHED as CITYSCAPES
from tasktokens.datasets.nyud.files import PUBLISHED as NYUD
from tasktokens.datasets.pascal_context.dataset import PUBLISHED as PASCAL_CONTEXT
from tasktokens.datasets.published import published_labels

FILES = {"nyud": NYUD, "cityscapes": CITYSCAPES, "pascal_context": PASCAL_CONTEXT}


@pytest.mark.parametrize(
    ("name", "rule", "images", "counts"),
    [
        ("nyud", "one", 795, {"semseg": 265, "depth": 265, "normals": 265}),
        ("nyud", "random", 795, {"semseg": 392, "depth": 408, "normals": 385}),
        ("cityscapes", "one", 2975, {"semseg": 1487, "depth": 1488}),
    ],
)
def test_counts_are_the_published_ones(name: str, rule: str, images: int, counts: dict[str, int]) -> None:
    ids = [f"image{i}" for i in range(images)]
    split = published_labels(FILES[name], ids)[rule]
    assert list(split) == ids
    assert {task: sum(task in seen for seen in split.values()) for task in counts} == counts
    if rule == "one":
        assert all(len(seen) == 1 for seen in split.values())


def test_an_incomplete_data_set_has_no_published_split() -> None:
    for name in FILES:
        assert published_labels(FILES[name], ["a", "b"]) == {}
