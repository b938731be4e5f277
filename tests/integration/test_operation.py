"""What happens to runs between two commands: data that changes, folders that move, terminals that go."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import processes
from conftest import run_cli, write_folder
from resuming import stopped_at
from tasktokens.config import load_config, parse_config
from tasktokens.datasets.open import open_data
from tasktokens.datasets.run_data import open_run_data
from tasktokens.errors import ConfigError, DataError
from tasktokens.inference.evaluate import evaluate
from tasktokens.models import backbones
from tasktokens.training.trainer import train

Words = list[str]
TINY = [
    "model.backbone=test_resnet", "model.pretrained=false", "model.width=16", "data.size=[32,48]", "optim.batch_size=3",
    "optim.warmup=1", "method.name=mtl", "method.steps=2", "run.device=cpu", "run.threads=1", "run.log_every=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the runs of this process: they take half of its time, and tests/unit/reporting/test_curves.py is for them."""
    monkeypatch.setattr("tasktokens.reporting.train._attempt", lambda draw, run: None)


def remove_some_labels(root: Path) -> None:
    """Half of the images keep two of five labels."""
    for number, path in enumerate(sorted((root / "semseg").iterdir())):
        for task in ("normals", "edge", "saliency") if number % 2 else ():
            (root / task / path.name).unlink()


def without_splits(root: Path, *keep: str) -> Path:
    values = yaml.safe_load((root / "dataset.yaml").read_text())
    values["splits"] = {name: file for name, file in values["splits"].items() if name in keep}
    (root / "dataset.yaml").write_text(yaml.safe_dump(values))
    return root


def seen(run: Path) -> dict[str, set[str]]:
    """The labels that a run says it sees, read by the csv module alone."""
    with (run / "labels.csv").open() as file:
        return {row.pop("id"): {task for task, flag in row.items() if flag == "1"} for row in csv.DictReader(file)}


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# -- labels and splits by default --------------------------------------------------------------------------------------
def test_an_own_folder_uses_every_label_and_says_how_many(own_folder: Path, tmp_path: Path, capsys: Any) -> None:
    remove_some_labels(own_folder)
    ids = (own_folder / "train.txt").read_text().split()
    exist = {t: {i for i in ids if (own_folder / t / f"{i}.png").is_file()} for t in ("semseg", "edge", "depth")}
    code, _, said = run_cli(capsys, "train", f"data.root={own_folder}", *TINY, f"run.dir={tmp_path / 'run'}")
    assert code == 0
    for task, those in exist.items():
        assert {id for id, tasks in seen(tmp_path / "run").items() if task in tasks} == those
        assert f"labels of {task}: {len(those)} of {len(those)} seen\n" in said
    assert load_config(tmp_path / "run" / "config.yaml").data.labels == "full"


def test_hidden_labels_are_counted_with_what_hides_them(own_folder: Path, tmp_path: Path, capsys: Any) -> None:
    words = [f"data.root={own_folder}", *TINY, f"run.dir={tmp_path / 'run'}", "data.labels=one", "data.holdout=0.17"]
    code, _, said = run_cli(capsys, "train", *words)
    assert code == 0
    count = sum("semseg" in tasks for tasks in seen(tmp_path / "run").values())
    hidden = 5 - count  # six training images, one of them set aside
    assert f"labels of semseg: {count} of 6 seen ({hidden} hidden by data.labels=one, 1 set aside by" in said


def test_a_published_split_is_the_default_where_there_is_one(own_folder: Path, make_config: Any) -> None:
    ids = (own_folder / "train.txt").read_text().split()
    tasks = ["semseg", "depth", "normals", "edge", "saliency"]
    lines = ["id," + ",".join(tasks)] + [f"{id},{','.join(str(int(k == n % 5)) for k in range(5))}"
                                         for n, id in enumerate(ids)]  # fmt: skip
    (own_folder / "one.csv").write_text("\n".join(lines))
    values = yaml.safe_load((own_folder / "dataset.yaml").read_text()) | {"labels": {"one": "one.csv"}}
    (own_folder / "dataset.yaml").write_text(yaml.safe_dump(values))
    data = open_data(make_config(own_folder, Path("unused"), **{"data.labels": "auto"}))
    assert data.train == {id: (tasks[n % 5],) for n, id in enumerate(ids)}


@pytest.mark.parametrize(
    ("splits", "given", "measured", "aside"),
    [
        (("train", "test"), [], "test", 0),
        (("train", "val"), [], "val", 0),
        (("train",), [], "holdout", 1),
        ((), [], "holdout", 2),
        ((), ["run.evaluate=none"], None, 0),
        (("train", "val"), ["run.validate_every=1", "run.validate_on=val"], "holdout", 1),
        (("train",), ["data.holdout=0.34"], "holdout", 2),
        (("train", "val"), ["run.evaluate=null"], None, 0),
    ],
)
def test_a_folder_trains_whatever_splits_it_has(
    splits: tuple[str, ...], given: Words, measured: str | None, aside: int, tmp_path: Path, capsys: Any
) -> None:
    root = write_folder(tmp_path / "data", count=8 if splits else 16)
    shutil.copy(root / "test.txt", root / "val.txt")
    values = yaml.safe_load((root / "dataset.yaml").read_text()) | {"splits": {n: f"{n}.txt" for n in splits}}
    (root / "dataset.yaml").write_text(yaml.safe_dump(values))
    run = tmp_path / "run"
    words = [f"data.root={root}", *TINY, "method.steps=1", f"run.dir={run}", "data.check=false", *given]
    code, _, said = run_cli(capsys, "train", *words)
    assert code == 0, said
    config = load_config(run / "config.yaml")
    assert config.run.evaluate == measured
    written = [path.name for path in run.glob("evaluation-*.json")]
    assert written == ([] if measured is None else [f"evaluation-{measured}.json"])
    images = 16 if not splits else 6
    assert len(seen(run)) == images - aside
    assert len(seen(run).keys() & set(open_run_data(run, config).holdout)) == 0
    assert ("set aside" in said) == (aside > 0)
    # The same command goes on, and the run says what it was measured on.
    assert run_cli(capsys, "train", *words, "--resume")[0] == 0
    assert load_config(run / "config.yaml") == config
    if measured is not None:
        assert evaluate(run, write=False).keys() == evaluate(run, measured, write=False).keys()


def test_images_are_not_set_aside_where_a_task_would_have_none_left(own_folder: Path, make_config: Any) -> None:
    without_splits(own_folder, "train")
    config = make_config(own_folder, Path("x"), **{"run.evaluate": "auto", "data.labels": "full"})
    (held,) = open_data(config).holdout
    for path in (own_folder / "edge").iterdir():
        if path.stem != held:
            path.unlink()  # its only label lies where it would be set aside
    assert open_data(config).holdout == ()


# -- a run goes on with its own labels ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def ended(make_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a run of four steps on it, one label per image."""
    place = tmp_path_factory.mktemp("ended")
    config = make_config(
        write_folder(place / "tiny"), place / "run",
        **{"method": {"name": "mtl", "steps": 4}, "data.check": False, "model.backbone": "test_resnet",
           "data.holdout": 0.2},
    )  # fmt: skip
    train(config, quiet=True)
    return place


@pytest.fixture
def begun(ended: Path, tmp_path: Path) -> tuple[Path, Any]:
    """A copy of both, the run as it was when two steps were done."""
    shutil.copytree(ended / "tiny", tmp_path / "tiny")
    config = stopped_at(ended / "run", tmp_path / "run", "0-0000002", data=tmp_path / "tiny")
    return tmp_path / "tiny", config


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("what", ["nothing", "label", "image"])
def test_files_that_were_added_stay_unseen(what: str, begun: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    root, config = begun
    whole, labels = weights(config.run.dir), (config.run.dir / "labels.csv").read_bytes()
    hidden = {root / task / f"{id}.png" for id, tasks in seen(config.run.dir).items()
              for task in ("semseg", "depth", "normals", "edge", "saliency") if task not in tasks}  # fmt: skip
    if what == "label":
        for id, tasks in seen(config.run.dir).items():
            if "edge" not in tasks:  # another file in place of one that is hidden
                (root / "edge" / f"{id}.png").write_bytes((root / "saliency" / f"{id}.png").read_bytes())
    if what == "image":
        for task in ("images", "semseg"):
            shutil.copy(root / task / "im00.png", root / task / "added.png")
        with (root / "train.txt").open("a") as file:
            file.write("added\n")
    opened: list[Path] = []
    read = Image.open
    monkeypatch.setattr(Image, "open", lambda path, *rest, **more: (opened.append(_path(path)), read(path))[1])
    train(config, resume=True, quiet=True)
    assert weights(config.run.dir) == whole
    assert not hidden & set(opened)
    assert (config.run.dir / "labels.csv").read_bytes() == labels


def _path(file: Any) -> Path:
    return Path(getattr(file, "name", file if isinstance(file, str | Path) else ""))


@pytest.mark.parametrize("what", ["label", "image", "split"])
def test_what_the_run_has_seen_and_is_gone_is_named(what: str, begun: tuple[Path, Any]) -> None:
    root, config = begun
    id, (task, *_) = next((id, sorted(tasks)) for id, tasks in seen(config.run.dir).items() if tasks)
    if what == "split":
        ids = (root / "train.txt").read_text().split()
        (root / "train.txt").write_text("\n".join(i for i in ids if i != id))
    else:
        (root / ("images" if what == "image" else task) / f"{id}.png").unlink()
        for split in ("train", "test"):
            ids = (root / f"{split}.txt").read_text().split()
            (root / f"{split}.txt").write_text("\n".join(i for i in ids if what != "image" or i != id))
    with pytest.raises(DataError, match=rf"'{id}' (is gone|is no longer a training image)"):
        train(config, resume=True, quiet=True)


# -- what the data means -----------------------------------------------------------------------------------------------
CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "order": (lambda t: t["semseg"]["classes"].reverse(), "semseg: class 0 is 'floor' in the model and 'person'"),
    "count": (lambda t: t["semseg"]["classes"].append("lamp"), "semseg: 4 classes in the model, now 5 in the data"),
    "scale": (lambda t: t["depth"].update(scale=0.01), r"depth: 'scale' is 0\.001 in the model and 0\.01 in the data"),
    "range": (lambda t: t["depth"].update(range=[0.5, 20.0]), "depth: 'range'"),
    "void": (lambda t: t["semseg"].update(void=[0]), "semseg: 'void'"),
    "removed": (lambda t: t.pop("edge"), "'edge'.* is.* no longer in"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_description_is_named_by_every_verb(change: str, begun: tuple[Path, Any]) -> None:
    root, config = begun
    values = yaml.safe_load((root / "dataset.yaml").read_text())
    CHANGES[change][0](values["tasks"])
    (root / "dataset.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    before = weights(config.run.dir)
    for verb in (lambda: train(config, resume=True, quiet=True), lambda: evaluate(config.run.dir, "test")):
        with pytest.raises((ConfigError, DataError), match=CHANGES[change][1]):
            verb()
    assert weights(config.run.dir) == before


def test_a_task_that_was_added_is_left_alone(begun: tuple[Path, Any], capsys: Any) -> None:
    root, config = begun
    values = yaml.safe_load((root / "dataset.yaml").read_text())
    values["tasks"]["hair"] = {"kind": "binary", "folder": "saliency"}
    (root / "dataset.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    before = weights(config.run.dir)
    train(config, resume=True, quiet=True)
    assert weights(config.run.dir) == before
    assert "task 'hair' of" in capsys.readouterr().err
    assert "hair" not in evaluate(config.run.dir, "test", write=False)


def test_a_start_from_other_classes_says_so_and_writes_nothing(begun: tuple[Path, Any], tmp_path: Path) -> None:
    root, config = begun
    values = yaml.safe_load((root / "dataset.yaml").read_text())
    values["tasks"]["semseg"]["classes"].append("lamp")
    (root / "dataset.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    new = config.model_copy(update={"run": config.run.model_copy(update={"dir": tmp_path / "new"})})
    with pytest.raises(ConfigError, match="semseg: 4 classes in the model, now 5"):
        train(new, init_from=config.run.dir, quiet=True)
    assert not (tmp_path / "new").exists()


# -- moved, copied, spelled otherwise ----------------------------------------------------------------------------------
def test_a_copy_goes_on_in_itself(begun: tuple[Path, Any], tmp_path: Path, capsys: Any) -> None:
    _, config = begun
    whole, copy = weights(config.run.dir), tmp_path / "copy"
    shutil.copytree(config.run.dir, copy)
    shutil.rmtree(config.run.dir / "model")
    old = sorted((p, p.stat().st_mtime_ns) for p in config.run.dir.rglob("*"))
    assert run_cli(capsys, "train", "--resume", "--config", copy / "config.yaml", "-q")[0] == 0
    assert weights(copy) == whole
    assert sorted((p, p.stat().st_mtime_ns) for p in config.run.dir.rglob("*")) == old
    assert load_config(copy / "config.yaml").run.dir == copy


@pytest.mark.parametrize(
    "words", [[], ["run.threads=2"], ["run.keep=1"], ["run.log_every=7"], ["data.workers=1"], ["data.cache=false"]]
)
def test_the_folder_alone_and_what_changes_nothing_go_on(
    words: Words, begun: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    # Two threads wait for each other where the cores have other work, and their sums may have other last bits.
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    _, config = begun
    whole = weights(config.run.dir)
    assert run_cli(capsys, "train", "--resume", f"run.dir={config.run.dir}", "-q", *words)[0] == 0
    assert weights(config.run.dir) == whole


def test_another_spelling_and_moved_data_are_the_same_run(
    begun: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    root, config = begun
    whole = weights(config.run.dir)
    moved = root.rename(tmp_path / "elsewhere")
    code, _, said = run_cli(capsys, "evaluate", config.run.dir, "--split", "test")
    assert code == 2
    code, _, said = run_cli(capsys, "evaluate", config.run.dir, "--split", "test", "--root", moved)
    assert code == 0, said
    monkeypatch.chdir(tmp_path)
    spelled = f"run.dir={tmp_path / 'x' / '..' / 'run'}"
    (tmp_path / "x").mkdir()
    code, _, said = run_cli(capsys, "train", "--resume", spelled, "data.root=elsewhere", "-q")
    assert code == 0, said
    assert weights(config.run.dir) == whole
    monkeypatch.chdir("/")
    code, _, said = run_cli(capsys, "evaluate", config.run.dir, "--split", "test")
    assert code == 2
    assert "working directory /" in said
    assert "--root" in said


def test_other_settings_that_change_results_are_named(begun: tuple[Path, Any], capsys: Any) -> None:
    _, config = begun
    code, _, said = run_cli(capsys, "train", "--resume", f"run.dir={config.run.dir}", "optim.lr=0.5")
    assert code == 2
    assert "'lr: 0.004' there, 'lr: 0.5' here" in said


@pytest.mark.parametrize("what", ["torch", "tasktokens", "python"])
def test_another_version_of_the_code_is_said(what: str, begun: tuple[Path, Any], capsys: Any) -> None:
    _, config = begun
    path = config.run.dir / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {what: "0.0.1"}))
    train(config, resume=True, quiet=True)
    assert f"{what} 0.0.1, now " in capsys.readouterr().err


# -- judged without data -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["model.backbone=resnet81"], "did you mean 'resnet"),
        (["data.labels=ful"], "is unknown"),
        (["data.labels=gone.csv"], "no such file"),
        (["method.stage1_steps=0"], "--init-from"),
        (["method.thresholds=calibrated"], "data.holdout"),
        (["model.weights=gone.pth"], "do not exist"),
        (["run.validate_every=1", "run.validate_on=test"], "validate_on"),
        (["run.sync_batch_norm=true"], "needs GPUs"),
    ],
)
def test_settings_are_judged_before_any_data_is_opened(
    words: Words, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from tasktokens.training import setup

    monkeypatch.setattr(setup, "open_index", lambda *rest, **more: pytest.fail("data was opened"))
    options = ["model.backbone=test_resnet", "model.pretrained=false", "run.device=cpu", f"run.dir={tmp_path / 'run'}"]
    code, _, said = run_cli(capsys, "train", "data.kind=rooms", *options, *words)
    assert code == 2
    assert named in said
    assert not (tmp_path / "run").exists()


def test_offline_is_said_at_once_and_nothing_is_written(
    own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def nowhere(url: str, timeout: float) -> None:
        assert timeout <= 10
        raise OSError("Name or service not known")

    monkeypatch.setattr(backbones, "get_hf_file_metadata", nowhere)
    monkeypatch.setattr(backbones, "try_to_load_from_cache", lambda *rest, **more: None)
    words = ["train", f"data.root={own_folder}", *TINY, "model.pretrained=true", f"run.dir={tmp_path / 'run'}"]
    code, _, said = run_cli(capsys, *words)
    assert code == 2
    for way in ("model.weights=FILE", "cache", "model.pretrained=false"):
        assert way in said
    assert not (tmp_path / "run").exists()


def test_weights_of_the_cache_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    from safetensors.torch import save_file

    stored = {key: tensor + 1 for key, tensor in timm.create_model("test_resnet").state_dict().items()}
    save_file(stored, tmp_path / "model.safetensors")
    monkeypatch.setattr(backbones, "get_hf_file_metadata", lambda *rest, **more: pytest.fail("the hub was asked"))
    monkeypatch.setattr(backbones, "try_to_load_from_cache", lambda repository, file, revision: str(tmp_path / file))
    network = backbones.Backbone("test_resnet", pretrained=True).network
    own = {key.replace(".", "_"): tensor for key, tensor in network.state_dict().items()}
    named = {key.replace(".", "_"): tensor for key, tensor in stored.items()}
    assert all(bool((named[key] == tensor).all()) for key, tensor in own.items())


@pytest.mark.parametrize("words", [["optim.batch_size=1"], ["optim.batch_size=4", "optim.accumulate=4"]])
def test_batch_norm_over_one_value_is_refused_before_training(
    words: Words, own_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    options = [f"data.root={own_folder}", *TINY, *words, f"run.dir={tmp_path / 'run'}", "data.check=false"]
    code, _, said = run_cli(capsys, "train", *options, "data.size=[32,32]")
    assert code == 2
    assert "batch norm needs more than one value per channel" in said
    assert not (tmp_path / "run").exists()
    assert run_cli(capsys, "train", *options, "data.size=[32,64]", "method.steps=1")[0] == 0


# -- losses ------------------------------------------------------------------------------------------------------------
def test_a_task_without_labels_in_a_batch_has_no_loss(own_folder: Path, tmp_path: Path, capsys: Any) -> None:
    for path in sorted((own_folder / "edge").iterdir())[1:6]:
        path.unlink()
    words = [f"data.root={own_folder}", *TINY, "method.steps=6", "optim.batch_size=1", "run.evaluate=none"]
    assert run_cli(capsys, "train", *words, f"run.dir={tmp_path / 'one'}")[0] == 0
    single = [row for row in rows(tmp_path / "one") if "stage" in row]
    values = [row["loss/edge"] for row in single]
    assert sum(value is not None for value in values) == 1  # one of six images, each once
    assert all(row["loss/semseg"] is not None for row in single)
    assert run_cli(capsys, "train", *words, "run.log_every=6", f"run.dir={tmp_path / 'six'}")[0] == 0
    (row,) = [row for row in rows(tmp_path / "six") if "stage" in row]
    assert row["loss/edge"] == pytest.approx(next(value for value in values if value is not None))
    assert row["lr"] == single[-1]["lr"]
    spread = [one["loss/semseg"] for one in single]
    assert min(spread) < row["loss/semseg"] < max(spread)
    assert "edge -" in (tmp_path / "one" / "log.txt").read_text() or values[-1] is not None


@pytest.mark.slow
def test_rows_of_a_resumed_run_are_those_of_an_uninterrupted_one(
    own_folder: Path, tmp_path: Path, make_config: Any
) -> None:
    options = {"method": {"name": "mtl", "steps": 6}, "run.log_every": 3, "run.checkpoint_every": 1,
               "model.backbone": "test_resnet"}  # fmt: skip
    config = make_config(own_folder, tmp_path / "run", **options)
    train(config, quiet=True)
    losses = [{k: v for k, v in row.items() if "/" in k} for row in rows(tmp_path / "run") if "stage" in row]
    for last in range(2, 7):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"0-{last:07d}", ignore_errors=True)
    for last in (5, 3, 1):  # within the second row, at the end of the first, within it
        for path in (tmp_path / "run" / "checkpoints").iterdir():
            if path.name > f"0-{last:07d}":
                shutil.rmtree(path)
        train(config, resume=True, quiet=True)
        again = [{k: v for k, v in row.items() if "/" in k} for row in rows(tmp_path / "run") if "stage" in row]
        assert again == losses


def test_means_between_rows_are_weighted_by_count() -> None:
    import torch

    from tasktokens.training.loss_means import LossMeans

    rng = np.random.default_rng(0)
    totals, counts = rng.uniform(1, 9, 7).astype(np.float32), rng.integers(0, 4, 7)
    means = LossMeans()
    for total, count in zip(totals, counts, strict=True):
        means.add({"a": torch.tensor([total * count, count]), "none": torch.zeros(2)})
    found = means.read()
    assert found["a"] == pytest.approx(np.average(totals, weights=counts), rel=1e-6)
    assert found["none"] is None
    assert means.read() == {}


# -- terminals ---------------------------------------------------------------------------------------------------------
def command(*words: object) -> Words:
    """That of a process that really starts, and really ends."""
    return [sys.executable, "-m", "tasktokens.cli", *map(str, words)]


@pytest.mark.slow
def test_a_run_whose_reader_has_gone_ends_well(own_folder: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    words = command("train", f"data.root={own_folder}", *TINY, f"run.dir={tmp_path / 'run'}", "data.check=false")
    os.close(read)
    done = subprocess.run(words, stdout=write, stderr=write, timeout=120, check=False)
    os.close(write)
    assert done.returncode == 0
    assert rows(tmp_path / "run")[-1]["finished"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_behind_standard_error_ends_nothing(own_folder: Path, tmp_path: Path) -> None:
    words = ("train", f"data.root={own_folder}", *TINY, f"run.dir={tmp_path / 'run'}")
    assert processes.run(*words, output=Path("/dev/full")).returncode == 0
    assert rows(tmp_path / "run")[-1]["finished"]


def ignore_hangups() -> None:
    """What nohup and ``trap "" HUP`` do to the process that they start."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals that hang up")
@pytest.mark.parametrize("ignored", [False, True])
def test_a_hangup_saves_and_ends_unless_ignored(ignored: bool, own_folder: Path, tmp_path: Path) -> None:
    words = ("train", f"data.root={own_folder}", *TINY, f"run.dir={tmp_path / 'run'}", "data.check=false",
             f"method.steps={40 if ignored else 4000}", "run.evaluate=none")  # fmt: skip
    log = tmp_path / "run" / "metrics.jsonl"
    with processes.started(*words, before=ignore_hangups if ignored else processes.do_nothing) as process:
        process.until(lambda: log.is_file() and log.read_text())
        process.send_signal(signal.SIGHUP)
        code = process.wait()
    assert code == (0 if ignored else 143)
    assert list((tmp_path / "run" / "checkpoints").glob("*/complete.json"))


CONSOLES = {"check": ["check", "stühle-椅子", "--workers", "1"], "list": ["list"], "runs": ["runs", "."]}


@pytest.fixture(scope="module")
def not_ascii(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set and a run whose names few encodings have."""
    place = tmp_path_factory.mktemp("consoles")
    write_folder(place / "stühle-椅子", count=2, train=1)
    return place


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("verb", CONSOLES)
def test_consoles_that_are_not_utf8(verb: str, encoding: str, not_ascii: Path) -> None:
    done = processes.run(*CONSOLES[verb], folder=not_ascii, env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr  # and what was written could be decoded


@pytest.mark.slow
def test_a_console_that_is_not_utf8_from_the_start_of_python(not_ascii: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    words = command(*CONSOLES["check"])
    done = subprocess.run(words, capture_output=True, env=environment, cwd=not_ascii, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "stühle".encode("ascii", "replace") in done.stdout
    done.stdout.decode("ascii")


# -- loader processes --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("free", "expected"), [(64, 0), (600, 1), (1300, 2), (10_000, 3)])
def test_loader_processes_have_room_in_shared_memory(
    free: int, expected: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from tasktokens.data.loading import fitting_workers

    room = os.statvfs_result((1, 2**20, free, free, free, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: room)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    batch = 200 * 2**20  # each process holds three of them
    assert fitting_workers(3, batch) == min(3, free * 2**20 // (3 * batch)) == expected
    assert ("/dev/shm" in capsys.readouterr().err) == (expected < 3)


def test_a_loader_process_that_dies_or_hangs_is_said(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasktokens.data import loading
    from tasktokens.data.dataset import PartialDataset

    data = open_data(parse_config({"data": {"kind": "folder", "root": str(own_folder)}}))
    images = PartialDataset(data.collection, data.train, data.tasks, (32, 48))
    monkeypatch.setattr(loading, "WORKER_SECONDS", 1.0)
    for deed in (lambda *rest: time.sleep(30), lambda *rest: os.kill(os.getpid(), signal.SIGKILL)):
        monkeypatch.setattr(PartialDataset, "__getitem__", deed)
        started = time.monotonic()
        with pytest.raises(DataError, match=r"a loader process has ended or hangs.*data\.workers"):
            list(loading.eval_loader(images, 2, workers=1))
        assert time.monotonic() - started < 15


# -- task weights ------------------------------------------------------------------------------------------------------
def test_losses_that_differ_tenfold_are_said_once_with_weights(own_folder: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["train", f"data.root={own_folder}", *TINY, "method.steps=12", "run.evaluate=none", "data.check=false"]
    alike = "tasks={semseg: {weight: 1}, normals: {weight: 1}}"
    code, _, said = run_cli(capsys, *words, alike, f"run.dir={tmp_path / 'a'}")
    assert code == 0
    assert "tenfold" not in said
    code, _, said = run_cli(
        capsys, *words, "tasks={semseg: {weight: 100}, normals: {weight: 1}}", f"run.dir={tmp_path / 'b'}"
    )
    assert code == 0
    assert said.count("tenfold") == 1
    proposed = dict(word.rstrip(",").split("=") for word in said.split() if word.startswith("tasks."))
    first = [row for row in rows(tmp_path / "b") if "stage" in row][:10]
    means = {t: np.mean([row[f"loss/{t}"] for row in first]) for t in ("semseg", "normals")}
    balanced = [float(proposed[f"tasks.{t}.weight"]) * means[t] for t in means]
    assert balanced[0] == pytest.approx(balanced[1], rel=0.2)
