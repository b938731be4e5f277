"""The suites of the published tables: each loads, and every method takes two steps on tiny copies of the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes import cityscapes, nyud, pascal_context
from tasktokens.datasets.open import open_data
from tasktokens.methods import METHODS
from tasktokens.models.files import load_model
from tasktokens.reporting.comparison.suite import Suite, read_suite, shipped
from tasktokens.training.log import read_rows
from tasktokens.training.trainer import train

FAKES: dict[str, Callable[[Path], Path]] = {
    "nyud": lambda root: nyud.write_mtan(root, train=4, val=1),
    "cityscapes": lambda root: cityscapes.write_mtan(root, train=4, val=1),
    "pascal_context": lambda root: pascal_context.write(root),
}
TINY = [
    "data.size=[32, 48]", "data.workers=0", "data.label_seed=0", "data.check=false", "model.backbone=test_resnet",
    "model.pretrained=false", "model.width=16", "optim.batch_size=2", "run.threads=1", "run.device=cpu",
]  # fmt: skip
"""What makes a suite small."""


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in FAKES.items()}


def two_steps(suite: Suite, method: str, labels: str, out: Path) -> None:
    """Train each network of a method, after those that it goes on from; with one per task, that of the first task."""
    chain = suite.chain(method)
    tasks = list(open_data(suite.config(None, "", None, {})).tasks) if suite.method(method).each_task else None
    for before, name in zip([None, *chain], chain, strict=False):
        run = out / name
        if not run.exists():
            changes: dict[str, Any] = {"run.dir": str(run), "run.evaluate": "none", "data.labels": labels}
            config = suite.config(name, "", tasks[0] if tasks else None, changes)
            train(config, init_from=out / before if before else None, quiet=True)
        rows = [row for row in read_rows(run / "metrics.jsonl") if "step" in row]
        assert {row["step"] for row in rows} == {1, 2}
        network, _ = load_model(run)
        assert all(p.isfinite().all() for p in network.parameters())


CASES = [
    ("nyud", "one"), ("cityscapes", "one"), ("pascal_context", "one"),
    ("nyud", "random"), ("pascal_context", "random"), ("nyud_segnet", "one"), ("nyud_segnet", "random"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "labels"), CASES)
def test_every_method_takes_two_steps(name: str, labels: str, roots: dict[str, Path], tmp_path: Path) -> None:
    root = roots[name.removesuffix("_segnet")]
    suite = read_suite(name, [f"data.root={root}", "run.log_every=1", *TINY], steps=2)
    assert labels in suite.labels
    for method in suite.methods:
        two_steps(suite, method, labels, tmp_path)


def test_every_label_setting_of_the_suites_is_tried() -> None:
    suites = {name: read_suite(name, ["data.root=anywhere"]) for name, _ in CASES}
    assert {(name, labels) for name, suite in suites.items() for labels in suite.labels} == set(CASES)
    assert set(shipped()) == {*suites, "quick"}


def test_a_method_of_every_kind_is_in_each() -> None:
    """By the settings of its last run: nothing that is registered is left out but by name."""
    for name in ("nyud", "nyud_segnet", "cityscapes", "pascal_context"):
        suite = read_suite(name, ["data.root=anywhere"])
        kinds = {suite.config(method, "", None, {}).method.name for method in suite.methods}
        assert kinds == set(METHODS) - {"stl"}  # the suites have one run per task in its place
        assert any(suite.method(method).each_task for method in suite.methods)
