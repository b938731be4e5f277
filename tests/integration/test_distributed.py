"""Several ranks: they do not change the result, decide alike, and end together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

import processes
import two_ranks
from conftest import run_cli
from properties import assert_metrics_equal, same_tensors
from tasktokens import cli
from tasktokens.config import Config, RunSettings, to_yaml
from tasktokens.data import dataset
from tasktokens.errors import ConfigError, DataError, OtherRankError, TrainingError
from tasktokens.inference.discover import discover
from tasktokens.inference.evaluate import evaluate
from tasktokens.methods import METHODS
from tasktokens.training.checkpoint import complete_checkpoints
from tasktokens.training.log import read_rows
from tasktokens.training.nan_guard import check_all_used
from tasktokens.training.trainer import train
from tasktokens.utils.distributed import start
from two_ranks import double_without_batch_statistics

MakeConfig = Callable[..., Config]
ONLINE = {
    "name": "htt", "schedule": "online", "stage1_steps": 2, "stage2_steps": 3, "ramp": 1,
    "feature_level": 0.1, "token_level": 1.0, "thresholds": "adaptive",
}  # fmt: skip
ONCE: dict[str, Any] = {"name": "htt", "stage1_steps": 0, "stage2_steps": 2, "token_level": 0.5}
SHARED: dict[str, Any] = {"method": ONLINE, "optim.batch_size": 4, "data.check": False, "optim.loss_stride": 2}
BESIDE: dict[str, dict[str, Any]] = {
    "mtpsl": {"method": {"name": "mtpsl", "steps": 4}, "optim.balance": "uncertainty"},
    "jtr": {"method": {"name": "jtr", "steps": 4}, "optim.balance": "upgrad"},
}


@pytest.fixture(scope="session")
def make_config(make_config_of_two: MakeConfig) -> MakeConfig:
    """Two tasks will do."""
    return make_config_of_two


@contextmanager
def two(*words: object, before: Callable[[], object] = processes.do_nothing) -> Iterator[list[processes.Process]]:
    """Two ranks as a launcher starts them, so that each one's exit code is seen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with ExitStack() as both:
        yield [
            both.enter_context(
                processes.started(*words, before=before, env=shared | {"RANK": rank, "LOCAL_RANK": rank})
            )
            for rank in ("0", "1")
        ]


def ends(ranks: list[processes.Process]) -> list[tuple[int, str]]:
    """Exit code and standard error of each rank; none may wait for ever."""
    return [(rank.wait(250), rank.errors) for rank in ranks]


@pytest.fixture(scope="module")
def ranks(make_folder: Any, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `two_ranks.main` left behind: five images to train on, one to test, so that neither divides by two."""
    folder = tmp_path_factory.mktemp("ranks")
    data = make_folder(folder / "data", count=6, train=5)
    changes: dict[str, dict[str, Any]] = {
        "double": {},
        "double-parts": {"optim.accumulate": 2},
        # What is trained beside the student: a mapping network and weights of the losses; gradients of each task.
        "double-mtpsl": BESIDE["mtpsl"],
        "double-jtr": BESIDE["jtr"] | {"optim.accumulate": 2},
        # Of the tokens nothing is learned here before there is a teacher; DDP waits for every gradient all the same.
        "online": {"model.fine_tokens": False, "method": ONLINE | {"confidence_loss": 0.0}, "optim.batch_size": 5},
        "too-many-parts": {"optim.accumulate": 3},
        "once": {"method": ONCE},
    }
    changes["online-workers"] = changes["online"] | {"data.workers": 2, "data.cache": False}
    changes["online-again"] = changes["online"]
    for name, change in changes.items():
        (folder / f"{name}.yaml").write_text(to_yaml(make_config(data, folder / name, **SHARED | change)))
    with two(before=partial(two_ranks.main, folder)) as both:
        assert [code for code, _ in ends(both)] == [0, 0], [rank.errors for rank in both]
    return folder


@pytest.mark.slow
def test_a_launcher_starts_ranks_that_find_each_other(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    changes = {"method": {"name": "mtl", "steps": 2}, "run.evaluate": "test"}
    (tmp_path / "c.yaml").write_text(to_yaml(make_config(folder_root, tmp_path / "run", **SHARED | changes)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "tasktokens.cli", "train", "--config", str(tmp_path / "c.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    steps = [row["step"] for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "step" in row]
    assert steps == [1, 2]  # of both: two runs in one folder would be refused
    assert (tmp_path / "run" / "evaluation-test.json").is_file()


def found(ranks: Path) -> list[dict[str, Any]]:
    return [json.loads((ranks / f"found.{rank}.json").read_text()) for rank in (0, 1)]


# -- ranks and parts do not change the result --------------------------------------------------------------------------
@pytest.fixture(scope="module")
def alone(ranks: Path, make_config: MakeConfig) -> Path:
    """The same run on one process."""
    with double_without_batch_statistics():
        run = train(make_config(ranks / "data", ranks / "alone", **SHARED), quiet=True)
        train(make_config(ranks / "data", ranks / "alone-parts", **SHARED, **{"optim.accumulate": 3}), quiet=True)
        once = make_config(ranks / "data", ranks / "alone-once", **SHARED | {"method": ONCE})
        train(once, init_from=ranks / "double", quiet=True)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("other", ["alone-parts", "double", "double-parts"])
def test_neither_ranks_nor_parts_change_the_result(other: str, alone: Path, ranks: Path) -> None:
    """One label per image, so a head often has labels on one rank only; uneven parts; discovered terms; the average."""
    for which in ("student", "teacher"):
        one, many = (
            load_file(complete_checkpoints(run / "checkpoints")[-1] / f"{which}.safetensors")
            for run in (alone, ranks / other)
        )
        assert one.keys() == many.keys()
        for name, tensor in one.items():
            assert torch.allclose(tensor, many[name], rtol=1e-9, atol=1e-10), name
    keys = [key for key in read_rows(alone / "metrics.jsonl")[-2] if "/" in key]
    assert any(key.startswith("feature/") for key in keys)
    rows = [[row for row in read_rows(run / "metrics.jsonl") if "step" in row] for run in (alone, ranks / other)]
    for one_row, other_row in zip(*rows, strict=True):
        losses = [key for key in one_row if "/" in key]
        assert [other_row[key] for key in losses] == pytest.approx([one_row[key] for key in losses], abs=1e-9)


@pytest.mark.slow
def test_ranks_discover_what_one_discovers_and_learn_the_same_from_it(alone: Path, ranks: Path) -> None:
    """With the same teacher, bit for bit; which rank discovered what is not to be seen."""
    for path in (ranks / "alone-once" / "discovered").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (ranks / "once" / path.relative_to(ranks / "alone-once")).read_bytes(), path
    one, many = (
        load_file(complete_checkpoints(ranks / run / "checkpoints")[-1] / "student.safetensors")
        for run in ("alone-once", "once")
    )
    for name, tensor in one.items():
        assert torch.allclose(tensor, many[name], rtol=1e-9, atol=1e-10), name


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BESIDE))
def test_ranks_do_not_change_what_is_trained_beside_the_student(
    name: str, ranks: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    """DDP knows nothing of it: its gradients are averaged by the step."""
    with double_without_batch_statistics():
        run = train(make_config(ranks / "data", tmp_path / "alone", **SHARED | BESIDE[name]), quiet=True)
    last, other = (complete_checkpoints(each / "checkpoints")[-1] for each in (run, ranks / f"double-{name}"))
    files = sorted(path.name for path in last.glob("*.safetensors"))
    assert "method.safetensors" in files
    assert ("balance.safetensors" in files) == (name == "mtpsl")
    start = complete_checkpoints(run / "checkpoints")[0]
    for file in files:
        one, many, first = (load_file(folder / file) for folder in (last, other, start))
        for key, tensor in one.items():
            # The solver of a joined gradient stops before the last digits.
            torch.testing.assert_close(tensor, many[key], rtol=1e-6, atol=1e-7, msg=key)
        if file != "optimizer.safetensors":
            assert not same_tensors(one, first)


OTHERS = [name for name in METHODS if name not in (*BESIDE, "htt")]
"""Methods whose ranks the tests above do not have."""


def settings_of(name: str) -> dict[str, Any]:
    """Of a short run of a method, with a teacher where it has one."""
    fields = METHODS[name].settings_class.model_fields
    lengths = {"stage1_steps": 2, "stage2_steps": 2} if "stage1_steps" in fields else {"steps": 4}
    return SHARED | {"method": {"name": name, **lengths}, "model.backbone": "test_resnet"}


@pytest.fixture(scope="module")
def ranks_of_methods(make_folder: Any, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of `OTHERS` on two ranks."""
    folder = tmp_path_factory.mktemp("methods")
    data = make_folder(folder / "data", count=6, train=5)
    for name in OTHERS:
        (folder / f"{name}.yaml").write_text(to_yaml(make_config(data, folder / name, **settings_of(name))))
    with two(before=partial(two_ranks.methods, folder)) as both:
        assert [code for code, _ in ends(both)] == [0, 0], [rank.errors for rank in both]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_two_ranks_learn_what_one_learns_by_every_method(
    name: str, ranks_of_methods: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    """All that a checkpoint holds: the networks, what is trained beside them, thresholds, moments of the optimiser."""
    with double_without_batch_statistics():
        run = train(make_config(ranks_of_methods / "data", tmp_path / "alone", **settings_of(name)), quiet=True)
    last, other = (complete_checkpoints(each / "checkpoints")[-1] for each in (run, ranks_of_methods / name))
    files = sorted(path.name for path in last.glob("*.safetensors"))
    assert "student.safetensors" in files
    for file in files:
        one, many = (load_file(folder / file) for folder in (last, other))
        assert one.keys() == many.keys()
        for key, tensor in one.items():
            torch.testing.assert_close(tensor, many[key], rtol=1e-8, atol=1e-9, msg=f"{file}: {key}")
    first = load_file(complete_checkpoints(run / "checkpoints")[0] / "student.safetensors")
    assert not same_tensors(first, load_file(last / "student.safetensors"))


@pytest.mark.slow
def test_ranks_hold_the_same_average_and_the_same_seed_gives_the_same_bits(ranks: Path) -> None:
    """With batch norm: statistics are averaged. Loader processes and resuming change nothing."""
    first, second = (each["digests"] for each in found(ranks))
    assert first == second
    assert len(set(first)) == 1
    whole, again = (load_file(ranks / run / "model" / "model.safetensors") for run in ("online", "online-again"))
    assert same_tensors(whole, again)
    statistics = [name for name in whole if name.endswith("running_mean")]
    assert any(whole[name].abs().sum() > 0 for name in statistics)


@pytest.mark.slow
def test_an_evaluation_counts_each_image_once(ranks: Path) -> None:
    for split in ("train", "test"):
        expected = evaluate(ranks / "online", split, write=False)
        for each in found(ranks):
            for name, values in expected.items():
                assert_metrics_equal(each[split][name], values, tolerance=1e-3)


@pytest.mark.slow
def test_discovery_on_several_ranks_writes_what_one_writes(ranks: Path, tmp_path: Path) -> None:
    """It was stopped once, and had lost its last lines."""
    assert [each["discovery stopped"] for each in found(ranks)] == ["exit 143", "exit 143"]
    assert found(ranks)[0]["written"] == ["discovering.1.jsonl", "discovering.jsonl"]
    discover(ranks / "online", tmp_path / "alone", quiet=True)
    one, many = (
        {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
        for out in (tmp_path / "alone", ranks / "discovered")
    )
    assert one == many


@pytest.mark.slow
def test_prediction_on_several_ranks_covers_every_image_once(ranks: Path) -> None:
    for task in ("depth", "pictures"):
        written = sorted(path.name for path in (ranks / "predicted" / task).iterdir())
        assert written == [f"im0{number}.png" for number in range(6)]


# -- ending together ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_an_error_on_one_rank_is_an_error_on_all(ranks: Path) -> None:
    assert [each["failing"] for each in found(ranks)] == [
        "OtherRankError: rank 1 failed: DataError: a file is missing there", "DataError: a file is missing there",
    ]  # fmt: skip
    first, second = (each["sampler"] for each in found(ranks))
    assert "4 images" in first
    assert "cannot be shared out among 2 processes in 3 parts" in first
    assert second == f"OtherRankError: rank 0 failed: {first}"
    assert not (ranks / "too-many-parts").exists()
    first, second = (each["folder"] for each in found(ranks))  # which only the first rank looks at
    assert "is not empty" in first
    assert second == f"OtherRankError: rank 0 failed: {first}"


@pytest.mark.slow
def test_a_signal_to_one_rank_ends_the_evaluation_of_all(ranks: Path) -> None:
    assert [each["evaluation stopped"] for each in found(ranks)] == ["exit 143", "exit 143"]


def test_a_signal_to_one_rank_ends_training_on_all_with_a_checkpoint(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    changes = {"method": {"name": "mtl", "steps": 10**6}, "run.checkpoint_every": 10**6}
    (tmp_path / "c.yaml").write_text(to_yaml(make_config(folder_root, tmp_path / "run", **SHARED | changes)))
    log = tmp_path / "run" / "metrics.jsonl"
    with two("train", "--config", tmp_path / "c.yaml", "-q") as both:
        both[0].until(lambda: log.is_file() and read_rows(log))
        both[1].send_signal(signal.SIGTERM)
        (first, said), (second, silent) = ends(both)
    assert (first, second) == (143, 143), said + silent
    assert "stopped by SIGTERM" in said
    assert "Traceback" not in said + silent
    (checkpoint,) = complete_checkpoints(tmp_path / "run" / "checkpoints")
    assert int(checkpoint.name.split("-")[1]) == read_rows(log)[-1]["step"]


def test_what_another_rank_has_said_is_not_said_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **settings: Any) -> None:
        raise OtherRankError("rank 0 failed: DataError: a file is missing there")

    import_module("tasktokens.reporting.train")  # or it would keep what is there now
    monkeypatch.setattr("tasktokens.training.trainer.train", fail)
    assert run_cli(capsys, "train") == (2, "", "")


def lose_a_file() -> None:
    """On rank 1, no sample after the fifth can be read."""
    load, calls = dataset.load_sample, iter(range(10**6))

    def lose(collection: Any, id: str, *rest: Any) -> Any:
        if os.environ["RANK"] == "1" and next(calls) > 4:
            raise DataError(f"cannot read {id}")
        return load(collection, id, *rest)

    dataset.load_sample = lose


def test_a_file_that_one_rank_cannot_read_in_training_ends_all(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    changes = {"method": {"name": "mtl", "steps": 10**6}, "data.cache": False}
    (tmp_path / "c.yaml").write_text(to_yaml(make_config(folder_root, tmp_path / "run", **SHARED | changes)))
    with two("train", "--config", tmp_path / "c.yaml", "-q", before=lose_a_file) as both:
        (first, lost), (second, said) = ends(both)
    assert (first, second) == (2, 2), lost
    assert "error: cannot read im0" in said
    assert "error: rank 0 has lost contact with another rank" in lost
    assert "Traceback" not in said + lost


@pytest.mark.parametrize(("code", "joined"), [(0, False), (2, True)])
def test_a_command_leaves_the_other_ranks_when_all_is_done_and_not_when_it_failed(
    code: int, joined: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A group that is still there as Python ends aborts some processes; leaving it may wait for ranks that are lost."""
    monkeypatch.setattr(cli, "app", lambda: sys.exit(code))
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        assert leaving.value.code == code
        assert distributed.is_initialized() == joined
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


# -- starting ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_processes_that_do_not_know_of_each_other_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start(RunSettings(device="cpu"))  # this process works alone
    monkeypatch.setenv(name, "2")
    with pytest.raises(ConfigError, match=rf"2 processes were started and only 1 joined the run.*unset {name}"):
        start(RunSettings(device="cpu"))


def test_a_launcher_that_started_one_process_in_place_of_several_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    start(RunSettings(device="cpu"))  # asked for one
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(ConfigError, match="'accelerate launch' was asked for several processes and started one"):
        start(RunSettings(device="cpu"))


def test_parameters_that_the_loss_does_not_reach_are_named() -> None:
    network = torch.nn.ModuleDict({"used": torch.nn.Linear(2, 2), "idle": torch.nn.Linear(2, 2)})
    image = torch.ones(1, 2)
    check_all_used(network, (network["used"](image) + 0 * network["idle"](image)).sum())
    with pytest.raises(TrainingError, match=r"2 parameters, such as idle\.weight, idle\.bias"):
        check_all_used(network, network["used"](image).sum() * 0)
    assert all(p.grad is None for p in network.parameters())
