"""`discover` and `predict` never write over what they read, whatever ``overwrite`` says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasktokens.errors import RunExistsError
from tasktokens.inference.discover import discover
from tasktokens.inference.explain import explain
from tasktokens.inference.predict import predict
from tasktokens.training.trainer import train


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def trained(own_folder: Path, make_config: Callable[..., Any], tmp_path: Path) -> tuple[Path, Path]:
    run = tmp_path / "run"
    settings = {"method": {"name": "mtl", "steps": 2}, "model.backbone": "test_resnet", "model.width": 8}
    train(make_config(own_folder, run, **settings), quiet=True)
    return own_folder, run


def test_sources_are_never_written_over(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    before, model = content(data), content(run)
    link = tmp_path / "link"
    link.symlink_to(data)
    other = tmp_path / "other"
    (other / "semseg").mkdir(parents=True)
    (other / "dataset.yaml").write_text("tasks: {semseg: {kind: classes, classes: [a, b]}}\n")
    for out in (data, data / "images", data / "semseg", link, data.parent, run, run.parent, other):
        with pytest.raises(RunExistsError, match=r"which is (read for it|not overwritten); give another folder"):
            discover(run, out, overwrite=True, quiet=True)
        with pytest.raises(RunExistsError, match=r"which is (read for it|not overwritten); give another folder"):
            predict(run, str(data / "images"), out, overwrite=True, quiet=True)
    assert content(data) == before
    assert content(run) == model


def test_nothing_is_written_where_it_would_be_read_as_images_or_labels(
    trained: tuple[Path, Path], make_config: Callable[..., Any], tmp_path: Path
) -> None:
    data, run = trained
    before = content(data)
    link = tmp_path / "link"
    link.symlink_to(data / "images")
    photographs = tmp_path / "photographs"
    shutil.copytree(data / "images", photographs)
    for out in (data / "images" / "new", data / "semseg" / "a" / "b", link / "new"):
        for verb in (
            lambda: discover(run, out, quiet=True),  # noqa: B023
            lambda: predict(run, photographs, out, quiet=True),  # noqa: B023
            lambda: explain(run, photographs, out, quiet=True),  # noqa: B023
            lambda: train(make_config(data, out), quiet=True),  # noqa: B023
        ):
            with pytest.raises(RunExistsError, match=r"read as images or labels.*give a folder beside it"):
                verb()
    for verb in (predict, explain):
        with pytest.raises(RunExistsError, match="give a folder beside it"):
            verb(run, [photographs], photographs / "predicted", quiet=True)  # type: ignore[operator]
    assert content(data) == before
    # Beside them, and of a lone photograph, nothing is listed.
    predict(run, photographs / "im00.png", photographs / "predicted", quiet=True, views=1)
    settings = {"model.backbone": "test_resnet", "method": {"name": "mtl", "steps": 1}}
    train(make_config(data, data / "runs" / "a", **settings), quiet=True)


def test_what_they_wrote_themselves_is_replaced(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    for _ in range(2):
        discover(run, tmp_path / "filled", overwrite=True, quiet=True, views=1)
        predict(run, str(data / "images"), tmp_path / "predicted", overwrite=True, quiet=True, views=1)


def test_predictions_find_a_place_beside_the_labels_and_never_among_them(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    data, run = trained
    photograph = str(data / "images" / "im00.png")
    labels = content(data / "depth")
    (data / "depth" / "more").mkdir()
    (data / "depth" / "more" / "b.png").write_bytes(b"a label")
    for out in (data / "depth", data / "depth" / "more"):
        with pytest.raises(RunExistsError, match="is a folder of the data set"):
            predict(run, photograph, out, overwrite=True, quiet=True)
    assert content(data / "depth") == labels | {"more/b.png": b"a label"}
    for _ in range(2):  # a folder of its own inside the data is fine, and is replaced where that is asked for
        predict(run, photograph, data / "predicted", overwrite=True, quiet=True)
    assert (data / "predicted" / "semseg" / "im00.png").is_file()
