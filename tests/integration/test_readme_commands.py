"""The README's commands on an own folder without lists of splits, to the training on the completed folder."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from conftest import run_cli, write_folder

SHORT = [
    "data.size=[32,48]", "model.backbone=test_resnet", "model.pretrained=false", "model.width=16",
    "method.stage1_steps=1", "method.stage2_steps=1", "optim.batch_size=3", "run.threads=1", "run.device=cpu",
]  # fmt: skip


@pytest.mark.parametrize(
    ("lists", "measured"), [((), "holdout"), (("train", "val"), "val"), (("train", "test"), "test")]
)
def test_init_check_train_discover_and_train_again(
    lists: tuple[str, ...], measured: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("mydata"), count=16, train=12)
    Path("mydata/dataset.yaml").unlink()
    for task in ("normals", "saliency"):
        shutil.rmtree(f"mydata/{task}")
    if "val" in lists:
        Path("mydata/test.txt").rename("mydata/val.txt")
    for name in {"train", "test"} - set(lists):
        Path(f"mydata/{name}.txt").unlink(missing_ok=True)
    for number in range(0, 12, 2):  # labels that are missing
        Path(f"mydata/depth/im{number:02d}.png").unlink()

    assert run_cli(capsys, "init", "mydata")[0] == 0
    assert run_cli(capsys, "check", "mydata", "-q")[0] == 0
    code, _, said = run_cli(capsys, "train", "data.root=mydata", "run.dir=runs/mine", *SHORT)
    assert code == 0, said
    assert f"the result is measured on {measured}" in said
    assert ("set aside" in said) == (not lists)
    assert run_cli(capsys, "discover", "runs/mine", "--out", "mydata-filled", "-q")[0] == 0
    code, _, said = run_cli(capsys, "train", "data.root=mydata-filled", "run.dir=runs/next", *SHORT)
    assert code == 0, said
    assert f"the result is measured on {'val' if measured == 'holdout' else measured}" in said
    (results,) = (json.loads(path.read_text()) for path in Path("runs/next").glob("evaluation-*.json"))
    assert "depth" in results
    seen = list(csv.DictReader(Path("runs/next/labels.csv").read_text().splitlines()))
    assert all(row[task] in ("1", "discovered") for row in seen for task in row if task != "id")
    # Not to be measured is said in a word that the first lines name.
    code, _, said = run_cli(
        capsys, "train", "data.root=mydata", "run.dir=runs/none", *SHORT, "run.evaluate=none", "data.check=false"
    )
    assert code == 0
    assert "measured on nothing (run.evaluate=none)" in said
    assert not list(Path("runs/none").glob("evaluation-*.json"))
