"""The demo from end to end, with the shipped configuration cut down to seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasktokens.config import Config, parse_config
from tasktokens.errors import RunExistsError
from tasktokens.reporting import demo as module


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps per stage on a handful of small rooms; everything else as shipped."""
    shipped = module.demo_config

    def cut(method: str, out: Path, seed: int) -> Config:
        values = shipped(method, out, seed).model_dump(mode="json")
        values["data"] |= {"size": [32, 48], "train": 8, "test": 4}
        values["model"] |= {"backbone": "test_resnet", "width": 16}
        values["optim"] |= {"batch_size": 4}
        steps = {"steps": 4} if method == "mtl" else {"stage1_steps": 2, "stage2_steps": 2}
        values["method"] |= steps
        return parse_config(values)

    monkeypatch.setattr(module, "demo_config", cut)


def test_demo_writes_the_whole_report(quick: None, tmp_path: Path) -> None:
    report = module.demo(tmp_path / "demo", quiet=True)
    page = report.read_text(encoding="utf-8")
    for text in ("MTL baseline", "HTT", "mIoU", "absErr", "mErr", "confidence", "astronaut", "chelsea"):
        assert text in page, text
    for folder in ("mtl", "htt"):
        assert set(json.loads((tmp_path / "demo" / folder / "evaluation-test.json").read_text())) >= {"semseg", "depth"}
    assert (tmp_path / "demo" / "discovered" / "dataset.yaml").is_file()
    assert len(list((tmp_path / "demo" / "photos" / "pictures").glob("*.png"))) == 4
    with pytest.raises(RunExistsError, match="not empty"):
        module.demo(tmp_path / "demo", quiet=True)


def test_both_methods_differ_in_nothing_but_the_method(tmp_path: Path) -> None:
    baseline, htt = (module.demo_config(name, tmp_path, seed=3) for name in ("mtl", "htt"))
    assert baseline.method.name == "mtl"
    assert htt.method.name == "htt"
    # As many steps as the first stage, from the same start.
    assert baseline.method.steps == htt.method.stage1_steps
    same = {"method", "run"}
    assert baseline.model_dump(exclude=same) == htt.model_dump(exclude=same)
