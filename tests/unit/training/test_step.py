"""One update: in parts, in lower precision, with randomness that belongs to the step."""

from __future__ import annotations

import copy
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from hypothesis import given
from hypothesis import strategies as st

from properties import assert_same_output, prepared, random_batch, same_tensors
from tasktokens.config import Config, ModelSettings, OptimSettings
from tasktokens.data.sampler import EpochSampler, epoch_order
from tasktokens.data.sharding import BatchShard
from tasktokens.errors import CheckpointError, ConfigError
from tasktokens.methods import Htt, HttMethod, Method, MtlMethod, StrongView, Supervised, Term
from tasktokens.methods.strong_view import strong_view
from tasktokens.models import build_network
from tasktokens.models.files import load_model
from tasktokens.tasks import Task
from tasktokens.training.checkpoint import complete_checkpoints, load_scaler
from tasktokens.training.log import read_rows
from tasktokens.training.nan_guard import FiniteGuard
from tasktokens.training.optim import make_optimizer
from tasktokens.training.step import Step
from tasktokens.training.step_memory import OneProcess
from tasktokens.training.trainer import train
from tasktokens.utils.distributed import sync_batch_norm
from tasktokens.utils.signals import StopSignal

MakeConfig = Callable[..., Config]
SHORT = {"method": {"name": "mtl", "steps": 3}, "data.check": False}


@pytest.fixture(scope="session")
def make_config(make_config_of_two: MakeConfig) -> MakeConfig:
    """Two tasks will do."""
    return make_config_of_two


# -- parts of a batch --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("taught", [False, True])
def test_counts_are_known_without_a_forward_pass(stride: int, taught: bool, tiny_tasks: dict[str, Task]) -> None:
    settings = ModelSettings(backbone="test_resnet", pretrained=False, width=16)
    batch = random_batch(tiny_tasks, [["semseg", "depth"], ["semseg"], []])
    padded = batch.pixels.clone()
    padded[1, :, 20:] = False
    batch = replace(batch, pixels=padded)
    network = build_network("htt", tiny_tasks, settings)
    htt = HttMethod(teacher="live", token_level=1.0, thresholds="adaptive")
    methods: list[tuple[Method, Any]] = [
        (Htt(tiny_tasks, htt), network.eval() if taught else None), (Supervised(tiny_tasks, MtlMethod()), None),
    ]  # fmt: skip
    for method, teacher in methods:
        step = prepared(method, batch, teacher is not None, stride, photometric=0.3)
        counts = method.counts(step)
        terms = [term for term in method.terms(step, network.eval(), teacher) if term.weight]
        assert len(terms) >= len(tiny_tasks)
        assert {term.name: term.count for term in terms} == {term.name: counts[term.name] for term in terms}


@pytest.mark.parametrize("parts", [1, 2])
def test_the_step_whose_memory_is_measured_is_the_step_of_training(parts: int, tiny_tasks: dict[str, Task]) -> None:
    """Without an accelerator, as the measurement takes it, a step leaves the same weights behind."""
    settings = ModelSettings(backbone="test_resnet", pretrained=False, width=16)
    batches = [random_batch(tiny_tasks, [["semseg", "depth"], ["normals"]], seed=seed) for seed in range(parts)]
    weights = []
    for engine in (Accelerator(cpu=True), OneProcess(torch.device("cpu"))):
        torch.manual_seed(0)
        network = build_network("htt", tiny_tasks, settings)
        teacher = copy.deepcopy(network).eval().requires_grad_(False)
        optimizer = make_optimizer(network, OptimSettings(lr=0.01))
        method = Htt(tiny_tasks, HttMethod())
        guard = FiniteGuard(optimizer, torch.device("cpu"), network=network)
        step = Step(method, engine, network, optimizer, guard, 10.0)
        sums = step([prepared(method, batch, teacher=True, photometric=0.3) for batch in batches], teacher)
        assert (sums["loss/semseg"] > 0).all()
        weights.append(network.state_dict())
    assert same_tensors(*weights)


def test_a_method_that_cannot_say_its_counts_refuses_parts_before_the_run(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supervised, "counts", Method.counts)
    with pytest.raises(ConfigError, match=r"'mtl' cannot accumulate gradients, but optim\.accumulate is 2"):
        train(make_config(folder_root, tmp_path / "run", **SHORT, **{"optim.accumulate": 2}), quiet=True)
    assert not (tmp_path / "run").exists()


@given(images=st.integers(1, 9), parts=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_part_looks_as_it_would_in_the_whole_batch(images: int, parts: int, seed: int) -> None:
    """Colours, greys and blur are drawn one after another, also where parts have different numbers of images."""

    def view(batch: Any, part: BatchShard) -> Any:
        return strong_view(batch, StrongView(grey=0.5, blur=0.5), torch.Generator().manual_seed(seed), part)

    generator = torch.Generator().manual_seed(seed)
    batch = torch.randint(0, 256, (images, 3, 96, 5), dtype=torch.uint8, generator=generator)
    whole = view(batch, BatchShard())
    for number in range(min(parts, images)):
        alone = view(batch[number::parts], BatchShard(number, parts, images))
        assert (alone.int() - whole[number::parts].int()).abs().max() <= 1  # rounding of sums in another order


@given(
    length=st.integers(6, 40), size=st.integers(6, 50), ranks=st.integers(1, 3), parts=st.integers(1, 2),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_ranks_and_parts_share_out_each_batch(length: int, size: int, ranks: int, parts: int, seed: int) -> None:
    whole = list(islice(EpochSampler(length, size, seed), 3))
    shares = [list(islice(EpochSampler(length, size, seed, 0, rank, ranks, parts), 3 * parts)) for rank in range(ranks)]
    for step, batch in enumerate(whole):
        for rank, share in enumerate(shares):
            for part in range(parts):
                number = rank + ranks * part
                assert share[step * parts + part] == batch[number :: ranks * parts] != []


@given(length=st.integers(1, 3000), seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_an_epoch_s_order_is_numpy_s_permutation(length: int, seed: int, epoch: int) -> None:
    order = epoch_order(length, seed, epoch)
    assert np.array_equal(order, np.random.default_rng([seed, epoch]).permutation(length))
    assert order.itemsize == 4


def test_more_parts_than_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"2 images \(optim\.batch_size=9, 2 training images\).*3 or more"):
        EpochSampler(2, 9, 0, accumulate=3)


# -- randomness --------------------------------------------------------------------------------------------------------
def test_noise_from_torchs_own_generator_is_resumed_too(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As dropout and stochastic depth draw it."""
    terms = Supervised.terms

    def noisy(self: Supervised, *arguments: Any) -> list[Term]:
        return [replace(term, total=term.total * torch.rand(())) for term in terms(self, *arguments)]

    monkeypatch.setattr(Supervised, "terms", noisy)
    config = make_config(folder_root, tmp_path / "run", **SHORT, **{"run.checkpoint_every": 2})
    train(config, quiet=True)
    first, _ = load_model(tmp_path / "run")
    shutil.rmtree(complete_checkpoints(tmp_path / "run" / "checkpoints")[-1])
    train(config, resume=True, quiet=True)
    again, _ = load_model(tmp_path / "run")
    assert same_tensors(first.state_dict(), again.state_dict())


def test_a_deterministic_run(folder_root: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    try:
        config = make_config(folder_root, tmp_path / "run", **SHORT, **{"run.deterministic": True})
        assert (train(config, quiet=True) / "model").is_dir()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


# -- precision ---------------------------------------------------------------------------------------------------------
def test_bf16_trains_and_stays_finite(folder_root: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    changes = {"method": {"name": "htt", "stage1_steps": 2, "stage2_steps": 2}, "data.check": False}
    config = make_config(folder_root, tmp_path / "run", **changes, **{"run.precision": "bf16"})
    run = train(config, quiet=True)
    network, _ = load_model(run)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in network.parameters())
    rows = [row for row in read_rows(run / "metrics.jsonl") if "step" in row]
    assert [row["skipped"] for row in rows] == [0, 0, 0, 0]
    exact = train(make_config(folder_root, tmp_path / "fp32", **changes, **{"run.precision": "fp32"}), quiet=True)
    first, other = rows[0]["loss/depth"], read_rows(exact / "metrics.jsonl")[0]["loss/depth"]
    assert first == pytest.approx(other, rel=0.05)
    assert first != other


def test_fp16_without_a_gpu_is_refused(folder_root: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.precision=fp16 needs a GPU"):
        train(make_config(folder_root, tmp_path / "run", **SHORT, **{"run.precision": "fp16"}), quiet=True)


@pytest.fixture
def scaled() -> tuple[torch.nn.Parameter, torch.optim.Optimizer, torch.amp.GradScaler, FiniteGuard]:
    """A weight, its optimiser, fp16's loss scaler and the guard."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return weight, optimizer, scaler, FiniteGuard(optimizer, torch.device("cpu"), patience=3)


def test_guard_and_loss_scaler_skip_the_same_steps(
    scaled: tuple[torch.nn.Parameter, torch.optim.Optimizer, torch.amp.GradScaler, FiniteGuard],
) -> None:
    """In the order of a step: the loss is scaled, gradients are unscaled before their norm is taken, then the guard."""
    weight, optimizer, scaler, guard = scaled
    prepared = AcceleratedOptimizer(optimizer, scaler=scaler)
    seen = []
    for gradient in (1.0, float("inf"), float("nan"), 2.0):
        before, moments = weight.detach().clone(), {k: v.clone() for k, v in optimizer.state[weight].items()}
        scaler.scale((weight * gradient).sum()).backward()
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_([weight], 10.0)
        guard.before_update(norm, ("sample",))
        prepared.step()
        prepared.zero_grad()
        if not np.isfinite(gradient):
            assert torch.equal(weight, before)
            assert same_tensors(optimizer.state[weight], moments)
        else:
            assert not torch.equal(weight, before)
        seen.append((guard.check(), scaler.get_scale()))
        assert weight.isfinite().all()
    assert seen == [(0, 1024.0), (1, 512.0), (2, 256.0), (0, 256.0)]
    assert not hasattr(optimizer, "found_inf")


def test_the_loss_scale_is_part_of_a_checkpoint(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    (tmp_path / "scaler.json").write_text(json.dumps(scaler.state_dict() | {"_growth_tracker": 7}))
    other = torch.amp.GradScaler("cpu")
    load_scaler(tmp_path, other)
    assert (other.get_scale(), other.state_dict()["_growth_tracker"]) == (8.0, 7)
    (tmp_path / "scaler.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"scaler\.json is damaged"):
        load_scaler(tmp_path, other)


# -- batch norm over ranks, signals ------------------------------------------------------------------------------------
def test_batch_norms_over_ranks_keep_weights_and_function(tiny_tasks: dict[str, Task]) -> None:
    """Also timm's, which have an activation in them."""
    settings = ModelSettings(backbone="test_resnet", pretrained=False, width=16)
    network = build_network("htt", tiny_tasks, settings).eval()
    image = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    with torch.no_grad():
        before, state = network(image), {name: tensor.clone() for name, tensor in network.state_dict().items()}
        sync_batch_norm(network)
        after = network(image)
    assert not any(type(m) is torch.nn.BatchNorm2d for m in network.modules())
    assert any(isinstance(m, torch.nn.SyncBatchNorm) for m in network.modules())
    assert same_tensors(network.state_dict(), state)
    for name in tiny_tasks:
        assert_same_output(before[name], after[name])


def test_batch_norm_over_ranks_is_refused_without_gpus(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="needs GPUs"):
        train(make_config(folder_root, tmp_path / "run", **SHORT, **{"run.sync_batch_norm": True}), quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_signal_that_a_launcher_hands_on_is_the_same_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter((0.0, 1.0, 9.0))
    monkeypatch.setattr("tasktokens.utils.signals.time", SimpleNamespace(monotonic=lambda: next(now)))
    with StopSignal(echo=5.0) as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
