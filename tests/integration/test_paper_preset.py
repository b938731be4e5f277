"""``configs/paper_nyud.yaml`` says what was published, and runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tasktokens.config import Config, OptimSettings, load_config
from tasktokens.models.files import load_model
from tasktokens.models.paper import PaperHead
from tasktokens.training.optim import set_lr
from tasktokens.training.trainer import train

PRESET = Path(__file__).parents[2] / "configs" / "paper_nyud.yaml"
TINY = [
    "data.size=[32,48]", "model.backbone=test_resnet", "model.pretrained=false", "model.width=16",
    "method.stage1_steps=2", "method.stage2_steps=2", "optim.batch_size=2", "run.device=cpu", "run.threads=1",
    "run.log_every=1", "run.evaluate=test", "data.check=false",
]  # fmt: skip


@pytest.fixture
def preset() -> Config:
    return load_config(PRESET, ["data.root=nyud"])


def test_it_has_the_published_values(preset: Config) -> None:
    method: dict[str, Any] = preset.method.model_dump()
    optim, augmentation = preset.optim, preset.data.augmentation
    assert (optim.name, optim.lr, optim.weight_decay, optim.power) == ("adam", 2e-5, 1e-6, 0.9)
    assert (optim.batch_size, optim.clip, optim.backbone_lr, optim.token_lr) == (6, 10, 1, 1)
    assert (optim.warmup, optim.loss_stride, optim.accumulate, optim.balance) == (0, 1, 1, "none")
    assert (augmentation.scale, augmentation.crop_max_share, augmentation.flip) == ((0.5, 2.0), 0.75, True)
    assert preset.data.size == (288, 384)
    assert method["stage1_steps"] == method["stage2_steps"] == 100 * -(-795 // 6)
    assert {name: (task.weight, task.threshold) for name, task in preset.tasks.items()} == {
        "semseg": (1.0, 0.9), "depth": (0.6, 0.85), "normals": (1.0, 0.85),
    }  # fmt: skip
    assert (method["student"], method["teacher"], method["views"]) == ("fresh", "live", [(1.0, False)])
    assert (method["feature_level"], method["token_level"], method["confidence_loss"]) == (1, 0, 0)
    assert (method["thresholds"], method["confidence"], method["targets"]) == ("fixed", "paper", "value")
    assert method["compared_at"] == "image"
    assert not method["feature_task_weight"]


def test_what_it_says_of_the_method_is_what_the_variant_has_by_default(preset: Config) -> None:
    short = {"stage1_steps": 13300, "stage2_steps": 13300}
    plain = Config.model_validate({"data": {"root": "nyud"}, "model": {"variant": "paper"}, "method": short})
    assert plain.method == preset.method


def test_the_rate_falls_as_a_polynomial_from_the_first_step(preset: Config) -> None:
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "factor": 1.0}], lr=1.0)
    settings: OptimSettings = preset.optim
    for step in (0, 100, 9000):
        set_lr(optimizer, settings, step, 13300)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(2e-5 * (1 - step / 13300) ** 0.9)


def test_it_trains_both_stages(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(tmp_path / "nyud")
    description = yaml.safe_load((root / "dataset.yaml").read_text())
    description["tasks"] = {name: description["tasks"][name] for name in ("semseg", "depth", "normals")}
    (root / "dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    run = train(load_config(PRESET, [*TINY, f"data.root={root}", f"run.dir={tmp_path / 'run'}"]), quiet=True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "finished" not in row]
    assert [row["stage"] for row in steps] == ["supervised"] * 2 + ["discovery"] * 2
    assert not any(name.startswith("confidence/") for row in steps for name in row)
    assert all(row["feature/semseg"] >= 0 for row in steps[2:])
    network, _ = load_model(run)
    assert all(isinstance(head, PaperHead) for head in network.heads.values())  # type: ignore[operator,union-attr]
