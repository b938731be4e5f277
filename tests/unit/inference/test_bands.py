"""Predictions that are written from bands of rows: files and pictures are those of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from tasktokens.inference import label_pictures
from tasktokens.inference.discovery_summary import histogram
from tasktokens.inference.filled_folder import write_prediction
from tasktokens.inference.label_pictures import Kept, show
from tasktokens.inference.results import Prediction
from tasktokens.models import decoding
from tasktokens.models.decoding import decode_bands, decode_with_confidence_at
from tasktokens.tasks import Task, build_task, files
from tasktokens.utils import pictures

SPECS: dict[str, dict[str, Any]] = {
    "classes": {"kind": "classes", "classes": [f"c{i}" for i in range(7)]},
    "declared": {"kind": "classes", "classes": ["a", "b", "c"], "ids": {3: 0, 900: 1, 7: 2}, "void": [0]},
    "depth": {"kind": "depth", "range": [0.5, 10]},
    "fine depth": {"kind": "depth", "range": [0.5, 100], "scale": 0.001},
    "normals": {"kind": "normals", "centres": 40, "frame": ["x", "-y", "-z"]},
    "edge": {"kind": "edge"},
    "marked": {"kind": "saliency", "void": [9]},
    "regression": {"kind": "regression", "range": [-40, 60]},
}
SIZE = (123, 200)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of few rows, and pictures that are reduced."""
    monkeypatch.setitem(decoding._STRIP, "cpu", 9000)
    monkeypatch.setattr(files, "_BAND", 3000)
    monkeypatch.setattr(pictures, "LARGEST", 90)
    monkeypatch.setattr(label_pictures, "nearest_pixels", pictures.nearest_pixels)


def predicted(task: Task) -> tuple[Iterator[Prediction], Prediction]:
    noise = torch.randn(1, task.num_tokens, 5, 8, generator=torch.Generator().manual_seed(0)) * 3
    logits = F.interpolate(noise, (10, 15), mode="bilinear")
    bands = (
        Prediction(task, band.value_CnW.numpy(), band.confidence_nW.numpy())
        for band in decode_bands(task, logits, SIZE)
    )
    value, confidence = decode_with_confidence_at(task, logits, SIZE)
    return bands, Prediction(task, value.numpy(), confidence.numpy())


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("threshold", [None, 0.4])
def test_files_and_pictures_are_those_of_the_whole(kind: str, threshold: float | None, tmp_path: Path) -> None:
    task = build_task("t", SPECS[kind])
    bands, whole = predicted(task)
    drawn = Kept(task, SIZE)
    written = write_prediction(tmp_path / "bands", task, "a/x", bands, SIZE, threshold, drawn)
    valid = None if threshold is None else whole.confidence > threshold
    task.write(tmp_path / "whole" / "x.png", whole.value_CHW, valid)
    (one,), (other,) = (list((tmp_path / name).glob("x.*")) for name in ("bands/t/a", "whole"))
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
    stored = np.asarray(Image.open(tmp_path / "bands" / "confidence" / "t" / "a" / "x.png"))
    np.testing.assert_array_equal(stored, np.rint(whole.confidence * 255))
    share, mean, counts = written.row()
    assert share == pytest.approx(1 if valid is None else valid.mean(), abs=1e-4)
    assert mean == pytest.approx(whole.confidence.mean(), abs=1e-4)
    assert counts == histogram(whole.confidence)
    expected, found = show(task, whole.value_CHW, valid, whole.confidence), drawn.shown()
    np.testing.assert_array_equal(found.colours, expected.colours)
    np.testing.assert_array_equal(found.confidence, expected.confidence)  # type: ignore[arg-type]
    assert found.legend.swatches == expected.legend.swatches
    assert found.colours.shape[1] == 90


def test_a_class_that_no_pixel_of_the_picture_shows_is_in_its_legend() -> None:
    task = build_task("t", SPECS["classes"])
    value = np.zeros((1, *SIZE), np.uint8)
    value[0, 0, 1] = 6
    rows, columns = pictures.nearest_pixels(*SIZE)
    assert value[0][rows, columns].max() == 0
    assert {name for _, name in show(task, value).legend.swatches} == {"c0", "c6"}


def test_values_that_do_not_fit_into_16_bits_are_floats_in_all_rows(tmp_path: Path) -> None:
    task = build_task("t", SPECS["fine depth"])
    value = np.linspace(1, 90, SIZE[0] * SIZE[1], dtype=np.float32).reshape(1, *SIZE)
    task.write(tmp_path / "x.png", value)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), value[0])


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 2), (40, 50, 3), (40, 50, 4)])
def test_pngs_hold_what_was_written(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    files.write_png(tmp_path / "x", array)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.png")), array)
