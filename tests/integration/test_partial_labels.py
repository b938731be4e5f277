"""Folders in which only some classes were labelled: trained on, measured, completed by discovery, trained on again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from conftest import write_folder
from tasktokens.config import Config
from tasktokens.data.dataset import PartialDataset
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.prepare import prepare
from tasktokens.datasets.provenance import read_provenance
from tasktokens.inference.discover import discover
from tasktokens.inference.evaluate import evaluate
from tasktokens.training.setup import open_run
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Config]
SHORT = {"method": {"name": "mtl", "steps": 2}, "data.check": False, "data.labels": "full"}


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the first two training images only the first class was labelled; a third has no classes at all."""
    root = write_folder(tmp_path_factory.mktemp("partial") / "data")
    (root / "semseg" / "im02.png").unlink()
    values = yaml.safe_load((root / "dataset.yaml").read_text())
    first = values["tasks"]["semseg"]["classes"][0]
    (root / "partial.csv").write_text(f"id,task,labelled\nim00,semseg,{first}\nim01,semseg,{first}\n")
    (root / "dataset.yaml").write_text(yaml.safe_dump({**values, "labelled": "partial.csv"}))
    return root


def test_discovery_fills_open_pixels_among_the_classes_that_were_not_labelled(
    partial: Path, tmp_path: Path, make_config: MakeConfig
) -> None:
    run = train(make_config(partial, tmp_path / "run", **SHORT), quiet=True)
    out = Path(discover(run, tmp_path / "filled", 0.01, quiet=True, views=2))
    index, source = open_folder(out), open_folder(partial)
    assert index.labelled_classes("semseg") == source.labelled_classes("semseg")
    assert len(index.labelled_classes("semseg")) == 2
    assert set(index.completions["semseg"]) == {"im00", "im01"}
    assert "im02" in index.discovered["semseg"]
    table = read_provenance(out)
    count = len(index.tasks["semseg"].class_names() or ())
    for id, found in index.completions["semseg"].items():
        digests = [hashlib.sha256((root / "semseg" / f"{id}.png").read_bytes()).digest() for root in (partial, out)]
        assert digests[0] == digests[1]
        value, valid = index.labels["semseg"][id].read()
        open_HW = valid & (value[0] >= count)
        assert open_HW.any()
        filled, is_filled = found.label.read()
        confidence = np.asarray(Image.open(found.confidence)) / 255
        assert is_filled.any()
        assert not (is_filled & ~open_HW).any()
        assert (filled[0][is_filled] != 0).all()  # class 0 was labelled there, so that nothing else is of it
        assert not confidence[~open_HW].any()
        row = table[id, "semseg"]
        assert (row.source, row.by) == ("given", "network")
        assert row.coverage == pytest.approx(is_filled.mean(), abs=1e-3)

    # Learned with the weights, measured without the completions, prepared with the table.
    config = make_config(out, tmp_path / "next", **SHORT)
    _, data, _ = open_run(config, False, False, True)
    dataset = PartialDataset(data.collection, data.train, data.tasks, (40, 56), weighted=data.discovered)
    sample = next(sample for sample in dataset if sample.id == "im00")
    label, found = sample.labels["semseg"], index.completions["semseg"]["im00"]
    value, valid = index.labels["semseg"]["im00"].read()
    filled, is_filled = found.label.read()
    confidence = np.asarray(Image.open(found.confidence)).astype(np.float32) / 255
    used = is_filled & (confidence > 0)
    assert label.weight is not None
    np.testing.assert_array_equal(label.value.numpy(), np.where(used, filled, value))
    np.testing.assert_allclose(label.weight[0].numpy(), np.where(used, confidence, 1), rtol=1e-6)
    np.testing.assert_array_equal(label.valid[0].numpy(), valid)
    again = train(config, quiet=True)
    results = evaluate(again, "train", write=False)
    assert 0 <= results["semseg"]["openAcc"] <= 100


def test_a_prepared_folder_keeps_what_was_labelled(partial: Path, tmp_path: Path) -> None:
    out = prepare({"kind": "folder", "root": str(partial)}, tmp_path / "small", (20, 28), workers=1, quiet=True)
    before, after = open_folder(partial), open_folder(out)
    assert after.labelled_classes("semseg") == before.labelled_classes("semseg")
    count = len(after.tasks["semseg"].class_names() or ())
    for id in ("im00", "im01"):
        value, valid = after.labels["semseg"][id].read()
        assert set(np.unique(value[0][valid]).tolist()) <= {0, count}
