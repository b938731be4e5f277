"""Labels that all say the same: an error of `check` that stops training, for every kind and every way to get there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasktokens.datasets.folder import open_folder
from tasktokens.errors import DataError
from tasktokens.inspection.survey import check
from tasktokens.training.trainer import train

BOX = np.zeros((32, 48), dtype=bool)
BOX[8:20, 10:30] = True
GREY = np.where(BOX, np.uint8(255), np.uint8(0))
CUT_OUT = np.dstack([GREY] * 4)
TWO = "kind: classes, classes: [background, box]"
VECTOR = np.zeros((32, 48, 3), np.float32)
VECTOR[..., 2] = -1

ONE_SIDED: dict[str, tuple[np.ndarray, str]] = {
    "cut-out on transparency": (CUT_OUT, "kind: binary"),
    "cut-out, saliency": (CUT_OUT, "kind: saliency"),
    "cut-out, edge": (CUT_OUT, "kind: edge"),
    "grey with alpha": (np.dstack([GREY, GREY]), "kind: binary"),
    "0 and 255 under two classes": (GREY, TWO),
    "one class": (GREY, "kind: classes, classes: [box], ids: {255: box}, void: [0]"),
    "one class of two": (np.zeros_like(GREY), TWO),
    "one colour": (np.dstack([GREY * 0] * 3), "kind: classes, colours: {a: [0, 0, 0], b: [9, 9, 9]}"),
    "nothing": (GREY * 0, "kind: edge"),
    "everything": (GREY * 0 + 255, "kind: saliency"),
    "all void": (GREY * 0 + 255, TWO),
    "one depth": (np.full((32, 48), 2000, np.uint16), "kind: depth, range: [0.5, 10]"),
    "one number": (np.full((32, 48), 3.5, np.float32), "kind: regression, range: [0, 10]"),
    "one normal": (VECTOR, "kind: normals"),
    "one vector": (VECTOR, "kind: vectors"),
}
TWO_SIDED: dict[str, tuple[np.ndarray, str]] = {
    "mask": (GREY, "kind: binary"),
    "ids of 0 and 255": (GREY, "kind: classes, classes: [background, box], ids: {0: background, 255: box}, void: []"),
    "cut-out whose ground is not black": (np.dstack([GREY, GREY * 0 + 255]), "kind: binary"),
    "depth": (np.where(BOX, np.uint16(2000), np.uint16(2100)), "kind: depth, range: [0.5, 10]"),
    "number": (np.where(BOX, np.float32(3.5), np.float32(3.51)), "kind: regression, range: [0, 10]"),
}


def write(root: Path, label: np.ndarray, spec: str, count: int = 6) -> Path:
    (root / "images").mkdir(parents=True)
    (root / "mine").mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (32, 48, 3), dtype=np.uint8)).save(root / "images" / f"{i}.png")
        if label.dtype == np.float32:
            np.save(root / "mine" / f"{i}.npy", label)
        else:
            Image.fromarray(label).save(root / "mine" / f"{i}.png")
    (root / "train.txt").write_text("".join(f"{i}\n" for i in range(count - 2)))
    (root / "test.txt").write_text(f"{count - 2}\n{count - 1}\n")
    (root / "dataset.yaml").write_text(f"splits: {{train: train.txt, test: test.txt}}\ntasks: {{mine: {{{spec}}}}}\n")
    return root


def one_sided(root: Path, **settings: Any) -> list[str]:
    findings = check(open_folder(root), workers=1, **settings).findings
    return [finding.severity for finding in findings if finding.code == "one-sided"]


@pytest.mark.parametrize("case", ONE_SIDED)
def test_one_sided_labels_are_an_error_and_stop_training(
    case: str, make_config: Callable[..., Any], tmp_path: Path
) -> None:
    root = write(tmp_path / "data", *ONE_SIDED[case])
    assert one_sided(root) == ["error"]
    config = make_config(root, tmp_path / "run", **{"data.labels": "full"})
    with pytest.raises(DataError, match=r"not fit to train on.*nothing can be learned or measured"):
        train(config, quiet=True)
    # What is wrong with a whole task is no corrupt file, and no run folder is left that refuses the mended data.
    with pytest.raises(DataError, match="nothing can be learned"):
        train(make_config(root, tmp_path / "run", **{"data.labels": "full", "data.skip_corrupt": True}), quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", TWO_SIDED)
def test_labels_with_two_answers_are_none(case: str, tmp_path: Path) -> None:
    assert one_sided(write(tmp_path, *TWO_SIDED[case])) == []


def test_answers_that_differ_between_labels_are_two(tmp_path: Path) -> None:
    root = write(tmp_path, GREY * 0, "kind: binary")
    Image.fromarray(GREY * 0 + 255).save(root / "mine" / "3.png")
    assert one_sided(root) == []
    # Of a sample it cannot be said.
    assert one_sided(root, limit=1) == ["warning"]
