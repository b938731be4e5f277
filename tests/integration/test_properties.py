"""What holds for any settings, tables, files and masks, not only for those that somebody thought of."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import posixpath
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from properties import random_label
from tasktokens.config import Config, load_config, parse_config, to_yaml
from tasktokens.data.visibility import draw_visible, load_visible, published_visible, save_visible
from tasktokens.datasets.cityscapes import PUBLISHED as CITYSCAPES
from tasktokens.datasets.index import check_id, read_image
from tasktokens.datasets.manifest import read_manifest
from tasktokens.datasets.nyud.files import PUBLISHED as NYUD
from tasktokens.datasets.pascal_context.dataset import PUBLISHED as PASCAL_CONTEXT
from tasktokens.datasets.published import published_labels
from tasktokens.errors import CheckpointError, ConfigError, DataError, LabelError
from tasktokens.losses import masked_divergence, masked_loss, masked_mse
from tasktokens.models.files import read_info
from tasktokens.tasks import KINDS, Depth, Edge, Normals, Saliency, Segmentation, Task, build_task
from tasktokens.tasks.files import read_array
from tasktokens.training.log import read_rows
from tasktokens.utils.safe_io import load_yaml

quick = settings(max_examples=40, deadline=None)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
"""Anything that YAML or JSON can say."""


# -- settings ----------------------------------------------------------------------------------------------------------
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
paths = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


FILES = {"nyud": NYUD, "cityscapes": CITYSCAPES, "pascal_context": PASCAL_CONTEXT}


def positive(most: float) -> st.SearchStrategy[float]:
    return st.floats(0, most, exclude_min=True)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Settings that are right."""
    low, high = sorted((draw(st.floats(0.1, 4)), draw(st.floats(0.1, 4))))
    htt = {
        "name": "htt",
        "stage1_steps": draw(st.integers(1, 10**9)),
        "ema": draw(st.floats(0, 0.999)),
        "schedule": draw(st.sampled_from(["two-stage", "online"])),
        "confidence_loss": draw(st.floats(0, 1e9)),
    }
    data = {
        "kind": draw(st.sampled_from(["folder", "nyud", "cityscapes", "pascal_context"])),
        "root": draw(st.none() | paths),
        "size": draw(st.tuples(st.integers(1, 2**15), st.integers(1, 2**15))),
        "labels": draw(st.sampled_from(["one", "random", "full", "0.25", "a b.csv"])),
        "label_seed": draw(st.none() | st.integers(0, 10**6)),
        "workers": draw(st.integers(0, 64)),
        "holdout": draw(st.floats(0, 0.99)),
        "augmentation": {
            "scale": (low, high),
            "late_scale": draw(st.none() | st.just((low, high))),
            "late_from": draw(st.floats(0, 1)),
            "photometric": draw(st.floats(0, 1)),
            "flip": draw(st.booleans()),
        },
    }
    return {
        "seed": draw(st.integers(0, 2**29 - 1)),
        "data": data,
        "tasks": draw(st.none() | st.dictionaries(names, st.fixed_dictionaries({"weight": positive(1e6)}), max_size=3)),
        "method": draw(st.sampled_from([htt, {"name": "mtl", "steps": 5}])),
        "optim": {
            "lr": draw(positive(1e300)),
            "batch_size": draw(st.integers(1, 10**6)),
            "clip": draw(positive(1e300)),
        },
        "run": {"dir": draw(paths), "evaluate": draw(st.none() | names)},
    }


@quick
@given(values=configs())
def test_settings_come_back_from_yaml_as_they_were(
    values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = parse_config(values)
    path = tmp_path_factory.mktemp("config") / "c.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path) == config


def _flat(values: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for key, value in values.items():
        pairs += _flat(value, f"{above}{key}.") if isinstance(value, dict) and value else [(f"{above}{key}", value)]
    return pairs


@quick
@given(values=configs(), data=st.data())
def test_overrides_say_what_a_file_says_in_any_order(values: dict[str, Any], data: st.DataObject) -> None:
    flat = [(key, value) for key, value in _flat(values) if key.count(".") or key == "seed"]
    shuffled = data.draw(st.permutations(flat))
    config = load_config(None, [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in shuffled])
    assert config == parse_config({key: value for key, value in values.items() if key != "tasks" or value})


top = st.sampled_from([*Config.model_fields, "x", ""])


@settings(max_examples=150, deadline=None)
@given(
    values=st.dictionaries(top, plain, max_size=4) | st.dictionaries(top, st.dictionaries(st.text(max_size=5), plain))
)
def test_any_settings_are_right_or_a_config_error(values: dict[str, Any]) -> None:
    try:
        config = parse_config(values)
    except ConfigError:
        return
    assert parse_config(yaml.safe_load(to_yaml(config))) == config


_KEYS = sorted(key for key, _ in _flat(Config().model_dump(mode="json")))


@settings(max_examples=150, deadline=None)
@given(
    key=st.sampled_from(_KEYS) | st.text(max_size=10), value=st.text(max_size=10) | plain.map(lambda v: json.dumps(v))
)
def test_any_override_is_right_or_a_config_error(key: str, value: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(load_config(None, [f"{key}={value}"]), Config)


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60) | st.from_regex(r"([a-z&*!<:\-\[\]{},? \n\d\"'|>]{0,40})", fullmatch=True))
def test_any_text_is_yaml_as_pyyaml_reads_it_or_a_value_error(text: str) -> None:
    try:
        value = load_yaml(text)
    except ValueError:
        return
    if not re.search(r"\b(?:yes|no|on|off)\b|[0-9=]", text, re.IGNORECASE):  # words and numbers we read otherwise
        assert repr(value) == repr(yaml.safe_load(text))


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)) | plain, data=st.data())
def test_any_description_of_a_task_is_right_or_a_config_error(kind: Any, data: st.DataObject) -> None:
    known = [
        "range",
        "bins",
        "scale",
        "offset",
        "inverse",
        "classes",
        "void",
        "ids",
        "colours",
        "centres",
        "frame",
        "flip",
        "white",
        "unit",
        "weight",
        "threshold",
        "discovered_weight",
        "max_distance",
        "x",
    ]
    spec = data.draw(st.dictionaries(st.sampled_from(known), plain, max_size=3))
    good = {"depth": {"range": [1, 10]}, "regression": {"range": [0, 1]}, "classes": {"classes": ["a", "b"]}}
    base = good.get(kind, {}) if isinstance(kind, str) and data.draw(st.booleans()) else {}
    try:
        task = build_task("t", {"kind": kind, **base, **spec})
    except ConfigError as error:
        assert "'t'" in str(error)  # noqa: PT017
        return
    assert 0 < task.num_tokens <= 4096
    assert build_task("t", task.spec()).spec() == task.spec()


# -- splits ------------------------------------------------------------------------------------------------------------
ids = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=8),
    min_size=1,
    max_size=12,
    unique=True,
)
TASKS = ("a", "b", "c", "d")


@quick
@given(ids=ids, data=st.data())
def test_every_rule_keeps_its_word_for_any_labels_that_there_are(ids: list[str], data: st.DataObject) -> None:
    has = {id: data.draw(st.sets(st.sampled_from(TASKS))) for id in ids}
    available = {task: {id: None for id in ids if task in has[id]} for task in TASKS}
    rule = data.draw(st.sampled_from(["one", "random", "full", "0.4"]))
    try:
        split = draw_visible(ids, available, rule, data.draw(st.integers(0, 99)))
    except DataError as error:
        assert "no labelled image" in str(error)  # noqa: PT017 - a task may have no label at all
        return
    assert list(split) == ids
    for id, seen in split.items():
        assert set(seen) <= has[id]
        assert len(set(seen)) == len(seen)
        if rule == "one":
            assert len(seen) == min(1, len(has[id]))
        if rule == "full":
            assert set(seen) == has[id]
        if rule == "random" and has[id]:
            assert 1 <= len(seen) <= max(1, min(len(has[id]), len(TASKS) - 1))
    if rule == "0.4":
        for task in TASKS:
            assert sum(task in seen for seen in split.values()) == round(0.4 * len(available[task]))


@quick
@given(ids=ids, data=st.data())
def test_a_split_comes_back_from_its_file(
    ids: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    split = {id: tuple(sorted(data.draw(st.sets(st.sampled_from(TASKS))))) for id in ids}
    path = tmp_path_factory.mktemp("split") / "s.csv"
    save_visible(path, split, TASKS)
    assert load_visible(path, ids, dict.fromkeys(TASKS, dict.fromkeys(ids))) == split


@quick
@given(
    content=st.binary(max_size=200)
    | st.text("id,ab01\"'\n\r\0 ", max_size=60).map(lambda text: ("id,a,b\n" + text).encode())
)
def test_any_table_is_read_or_a_data_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("table") / "t.csv"
    path.write_bytes(content)
    for read in (
        lambda: load_visible(path, ["i", "d"], {"a": {"i": None}, "b": {}}),
        lambda: read_manifest(path, ["a"], [".png"], [".png"]),
    ):
        try:
            read()
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize(("name", "rule"), [(name, rule) for name, rules in FILES.items() for rule in rules])
def test_a_published_split_keeps_the_rule_of_its_name(name: str, rule: str) -> None:
    from importlib.resources import files

    text = (files("tasktokens") / "assets" / "splits" / FILES[name][rule]).read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    key, *tasks = rows[0]
    names = [row[key] for row in rows]
    split = published_labels(FILES[name], names)[rule]
    available = {task: dict.fromkeys(names) for task in tasks}
    shown = published_visible(names, available, split, rule)
    assert list(shown) == names
    counts = {len(seen) for seen in shown.values()}
    assert counts == {1} if rule == "one" else counts <= set(range(1, len(tasks) + 1))
    half = published_visible(names[::2], available, split, rule)
    assert half == {id: shown[id] for id in names[::2]}


# -- files -------------------------------------------------------------------------------------------------------------
endings = st.sampled_from([".png", ".tif", ".jpg", ".bmp", ".webp", ".npy", ".npz"])
starts = st.sampled_from(
    [
        b"",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"II*\0\x08\0\0\0",
        b"\xff\xd8\xff\xe0",
        b"BM",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"\x93NUMPY\x01\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (",
        b"PK\x03\x04",
        b"GIF89a",
    ]
)


@settings(max_examples=150, deadline=None)
@given(start=starts, content=st.binary(max_size=150), ending=endings)
def test_any_bytes_are_a_picture_or_an_error_that_names_the_file(
    start: bytes, content: bytes, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("file") / f"f{ending}"
    path.write_bytes(start + content)
    for read, kind in ((read_array, LabelError), (read_image, DataError)):
        try:
            read(path)
        except kind as error:
            assert str(path) in str(error)  # noqa: PT017


@quick
@given(
    array=hnp.arrays(
        st.sampled_from([np.uint8, np.int32, np.float32, np.float64, bool, np.complex64, "U3", "M8[s]"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    )
)
@example(array=np.array([[3.40282357e38, 1.0]]))  # more than a float32 holds
def test_any_array_is_taken_by_a_task_or_a_label_error(array: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("array") / "a.npy"
    np.save(path, array)
    for spec in (
        {"kind": "depth", "range": [1, 2]},
        {"kind": "classes", "classes": ["a", "b"]},
        {"kind": "normals"},
        {"kind": "edge"},
        {"kind": "regression", "range": [0, 1]},
        {"kind": "saliency", "white": 1, "void": [2]},
        {"kind": "classes", "colours": {"a": [0, 0, 0]}},
    ):
        task = build_task("t", spec)
        try:
            value, valid = task.read(path)
        except LabelError as error:
            assert str(path) in str(error)  # noqa: PT017
            continue
        assert value.shape == (task.label_channels, *valid.shape)
        assert np.isfinite(value[:, valid]).all()


@quick
@given(
    values=plain | st.dictionaries(st.sampled_from(["format", "network", "model", "tasks", "size"]), plain | st.just(1))
)
def test_any_json_in_place_of_a_model_is_a_checkpoint_error(
    values: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("model")
    (folder / "model.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"model\.json"):
        read_info(folder)


@quick
@given(lines=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | plain.map(json.dumps)))
def test_any_lines_are_a_log(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert all(isinstance(row, dict) for row in read_rows(path))


@given(id=st.text(st.sampled_from("ab./\\ \n\0é"), max_size=12) | st.text(max_size=8))
def test_an_id_that_is_taken_names_a_file_below_any_folder(id: str) -> None:
    try:
        check_id(id, Path("data"))
    except DataError:
        return
    assert posixpath.normpath(f"/out/{id}") == f"/out/{id}"
    assert os.fsencode(id).decode("utf-8") == id
    assert id.splitlines() == [id]


# -- losses ------------------------------------------------------------------------------------------------------------
ALL: list[Task] = [
    Segmentation("semseg", classes=("a", "b", "c")),
    Depth("depth", bins=6),
    Normals("normals", centres_count=6),
    Edge("edge"),
    Saliency("saliency"),
]
every_task = pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
SIZE = (4, 5)


def pair(task: Task, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(count, task.num_tokens, *SIZE)).astype(np.float32) * 2)
    return logits.requires_grad_(), torch.stack([random_label(task, SIZE, rng) for _ in range(count)])


masks = hnp.arrays(bool, (2, 1, *SIZE)).map(torch.from_numpy)
seeds = st.integers(0, 1000)
close = {"rtol": 1e-4, "atol": 1e-4}


@every_task
@settings(max_examples=10, deadline=None)
@given(valid=masks, other=masks, seed=seeds)
def test_the_losses_of_two_parts_add_up(task: Task, valid: torch.Tensor, other: torch.Tensor, seed: int) -> None:
    logits, target = pair(task, 2, seed)
    ones = torch.ones(2, 1, *SIZE)  # or saliency would be balanced within each part
    whole, first, rest = (
        masked_loss(task, logits, target, mask, ones) for mask in (valid | other, valid, other & ~valid)
    )
    assert whole[1] == first[1] + rest[1]
    torch.testing.assert_close(whole[0], first[0] + rest[0], **close)


@every_task
@settings(max_examples=10, deadline=None)
@given(valid=masks, seed=seeds, bad=st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30]))
def test_what_is_not_valid_gives_exactly_no_gradient_whatever_it_holds(
    task: Task, valid: torch.Tensor, seed: int, bad: float
) -> None:
    logits, target = pair(task, 2, seed)
    if target.is_floating_point():
        target = torch.where(valid, target, torch.tensor(bad))
    else:
        target = torch.where(valid, target, torch.tensor(255, dtype=target.dtype))
    total, _ = masked_loss(task, logits, target, valid)
    total.backward()
    assert torch.isfinite(total)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[(~valid).expand_as(logits)] == 0).all()
    if not valid.any():
        assert total.item() == 0


@every_task
@settings(max_examples=10, deadline=None)
@given(valid=masks, seed=seeds, factor=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_order_does_not_matter_and_weights_scale(task: Task, valid: torch.Tensor, seed: int, factor: float) -> None:
    logits, target = pair(task, 2, seed)
    total, count = masked_loss(task, logits, target, valid)
    turned = masked_loss(task, logits.flip(0), target.flip(0), valid.flip(0))
    torch.testing.assert_close(total, turned[0], **close)
    assert count == turned[1]
    ones = torch.ones(2, 1, *SIZE)
    weighted, whole = (masked_loss(task, logits, target, valid, ones * f)[0] for f in (factor, 1.0))
    torch.testing.assert_close(weighted, factor * whole, **close)


@settings(max_examples=20, deadline=None)
@given(valid=masks, seed=seeds, shift=st.floats(-50, 50))
def test_divergence_and_distillation_are_not_negative_and_ignore_what_is_not_valid(
    valid: torch.Tensor, seed: int, shift: float
) -> None:
    student, _ = pair(ALL[1], 2, seed)
    teacher = pair(ALL[1], 2, seed + 1)[0].detach()
    ones = torch.ones(2, 1, *SIZE)
    total, count = masked_divergence(student, teacher, valid, ones)
    assert total >= -1e-4
    assert count == valid.sum()
    torch.testing.assert_close(
        total, masked_divergence(student + shift, teacher - shift, valid, ones)[0], rtol=1e-3, atol=1e-2
    )
    spoilt = torch.where(valid, teacher, teacher.flip(1) * 3)
    assert masked_divergence(student, spoilt, valid, ones)[0] == total
    error, positions = masked_mse(student, teacher, valid.float())
    assert error >= 0
    assert positions == valid.sum()
    assert masked_mse(student, spoilt, valid.float())[0] == error
