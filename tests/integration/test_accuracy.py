"""The accuracy benchmark: which settings its methods differ in, and what its table computes."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from conftest import SMALL_ROOMS, stop_benchmark
from tasktokens.config import load_config
from tasktokens.data.visibility import load_visible
from tasktokens.datasets.open import open_data

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import accuracy

TAUGHT = ["htt", "htt-no-discovery", "htt-two-rounds"]


@pytest.fixture
def args(tmp_path: Path) -> Namespace:
    return Namespace(
        data="rooms", root=None, weights=None, labels="one", runs=tmp_path, holdout=False, overrides=SMALL_ROOMS,
        jobs=1, out=tmp_path / "accuracy.json",
    )  # fmt: skip


def settings(args: Namespace, method: str, task: str | None = None) -> Any:
    return load_config(accuracy.base(args), accuracy.settings(args, method, 3, task))


def test_methods_share_all_but_what_makes_them(args: Namespace) -> None:
    accuracy.labels_file(args)
    mtl = settings(args, "mtl").model_dump()
    assert mtl["data"]["augmentation"].pop("late_from") == 0.5
    steps = mtl["method"]["steps"]
    for method in accuracy.METHODS:
        own = settings(args, method)
        same = own.model_dump()
        late_from = same["data"]["augmentation"].pop("late_from")
        for part in ("data", "optim", "tasks"):
            assert same[part] == mtl[part], (method, part)
        # Or a further round's student would see the same crops again.
        assert own.seed == {"htt-two-rounds": 1003, "htt-three-rounds": 2003}.get(method, 3)
        assert own.model.backbone == mtl["model"]["backbone"]
        if own.method.name == "htt" and own.method.schedule == "two-stage":
            stages = (0 if method in accuracy.TAUGHT else steps, 0 if method == "htt-teacher" else steps)
            assert (own.method.stage1_steps, own.method.stage2_steps) == stages
            assert late_from * (stages[0] + own.method.rounds * stages[1]) == pytest.approx(stages[0], abs=0.5)
        elif own.method.name == "htt":
            assert own.method.stage1_steps + own.method.stage2_steps == steps
        else:
            assert own.method.steps == steps * {"mtl-long": 2, "mtl-longer": 3}.get(method, 1)
    whole = settings(args, "htt")
    for name in accuracy.NETWORK_PARTS:
        assert settings(args, f"htt-{name}").model != whole.model, name
    for name in accuracy.DISCOVERY_PARTS:
        ablated = settings(args, f"htt-{name}")
        assert ablated.model == whole.model, name  # or it could not start from that network
        assert ablated.method != whole.method, name
    assert settings(args, "htt-paper").model.width == settings(args, "htt-narrow").model.width


def test_what_differs_in_the_second_stage_goes_on_from_one_teacher(
    args: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["model.width=16", "method.stage1_steps=1", "method.stage2_steps=1", "optim.batch_size=3"]
    args.overrides, args.jobs, args.seeds = [*args.overrides, *few], 1, [3]
    args.methods = TAUGHT
    monkeypatch.setattr(accuracy, "parse", lambda: args)
    accuracy.main()
    (args.runs / "rooms-one" / "htt-teacher-3.minutes").unlink()  # killed between the end of a run and the note of it
    args.methods = ["htt-teacher"]  # whose run is there already
    accuracy.main()
    rows = {row["method"]: row for row in json.loads(args.out.read_text())["rows"]}
    assert set(rows) == {*TAUGHT, "htt-teacher"}
    assert (rows["htt-teacher"]["steps"], rows["htt"]["steps"], rows["htt-no-discovery"]["steps"]) == (2, 4, 4)
    assert rows["htt-two-rounds"]["steps"] == 6
    assert rows["htt"]["minutes"] > rows["htt-teacher"]["minutes"]  # of both stages
    runs = args.runs / "rooms-one"
    network = {
        (method, which): (runs / f"{method}-3" / which / "model.safetensors").read_bytes()
        for method in TAUGHT
        for which in ("model", "teacher")
    }
    taught = (runs / "htt-teacher-3" / "model" / "model.safetensors").read_bytes()
    assert len({taught, *(network[method, "model"] for method in TAUGHT)}) == 4
    assert network["htt", "teacher"] == network["htt-no-discovery", "teacher"] == taught
    assert network["htt-two-rounds", "teacher"] == network["htt", "model"]


def test_stopping_it_stops_its_runs_and_begins_no_other(args: Namespace) -> None:
    long = ["method.stage1_steps=300", "method.stage2_steps=300", "optim.batch_size=3", "run.log_every=1"]
    options = ["--data", "rooms", "--runs", str(args.runs), "--out", str(args.out), "--jobs", "1", "--seeds", "3"]
    command = [sys.executable, accuracy.__file__, *args.overrides, *long, *options, "--methods", "mtl", "stl"]
    run = args.runs / "rooms-one" / "mtl-3"
    stop_benchmark(command, run)
    assert not run.with_name("stl-semseg-3").exists()  # the next ones were not begun


def test_a_single_task_network_sees_the_labels_that_all_see(args: Namespace) -> None:
    path = accuracy.labels_file(args)
    config = settings(args, "stl", "depth")
    data = open_data(config)
    whole = load_visible(path, list(data.train), {name: data.collection.labels[name] for name in accuracy.PRIMARY})
    assert data.train == {id: tuple(t for t in tasks if t == "depth") for id, tasks in whole.items()}
    assert all(len(tasks) == 1 for tasks in whole.values())


def test_the_table_keeps_rows_and_counts_against_the_mean_of_single_task_networks(args: Namespace) -> None:
    def row(method: str, seed: int, miou: float) -> dict[str, Any]:
        return {"method": method, "seed": seed, "labels": "one", "mIoU": miou, "absErr": 1.0, "mErr": 30.0}

    table = accuracy.Table(args)
    for item in (row("htt", 0, 45.0), row("stl", 0, 28.0), row("stl", 1, 32.0)):
        table.add(item)
    found = json.loads(args.out.read_text())
    assert {"command", "commit", "date", "machine", "versions", "seeds", "rows"} <= found.keys()
    assert found["seeds"] == [0, 1]
    deltas = {(r["method"], r["seed"]): r["delta_mtl"] for r in found["rows"]}
    assert deltas[("htt", 0)] == pytest.approx(100 * 0.5 / 3, abs=0.01)  # 45 against 30, the others equal
    again = accuracy.Table(args)
    assert again.has("htt", 0)
    assert not again.has("htt", 1)
    assert not accuracy.Table(Namespace(**vars(args) | {"labels": "random"})).has("htt", 0)
