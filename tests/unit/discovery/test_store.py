"""The files of discovered labels: what they hold, how large they are, whose they are, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from any_input import examples
from method_fakes import build
from tasktokens.datasets.folder import open_folder
from tasktokens.discovery.pseudo_labels import forward_views
from tasktokens.discovery.store import (
    Provenance,
    StoreWriter,
    label_path,
    missing_labels,
    open_store,
    quantised,
    read_logits,
    token_path,
)
from tasktokens.discovery.views import AS_IT_IS, parse_views
from tasktokens.discovery.whole_images import AT_ONCE, WholeImages, fill_store
from tasktokens.errors import CheckpointError, DataError
from tasktokens.tasks import Depth, Normals, Segmentation, Task
from tasktokens.utils.resizing import working_size

VIEWS = (AS_IT_IS, (1.0, True), (1.5, False))


def provenance(tasks: Mapping[str, Task]) -> Provenance:
    specs = {name: task.spec() for name, task in tasks.items()}
    return Provenance("abc", specs, dict.fromkeys(tasks, VIEWS), True, (32, 48), (8, 12), "labels")


def filled(folder: Path, root: Path, tasks: dict[str, Task], share: tuple[int, int] = (0, 1)) -> dict[str, Any]:
    """A store of a part of the labels of the tiny folder; what was wanted."""
    index = open_folder(root)
    wanted = missing_labels(dict.fromkeys(index.split("train"), ("semseg", "edge")), tasks)
    writer = StoreWriter(folder, provenance(tasks), tasks)
    assert not writer.begin()
    look = WholeImages(tasks, build("htt", tasks, 1).eval(), VIEWS, True, (32, 48), index, torch.device("cpu"))
    found = fill_store(writer, look, wanted, share)
    assert found is not None
    rows, left_out = found
    writer.end(rows, left_out)
    return dict(wanted)


def test_each_label_is_what_the_teacher_says_of_the_whole_image(
    tmp_path: Path, folder_root: Path, tiny_tasks: dict[str, Task]
) -> None:
    wanted = filled(tmp_path / "store", folder_root, tiny_tasks)
    index, teacher = open_folder(folder_root), build("htt", tiny_tasks, 1).eval()
    store = open_store(tmp_path / "store", provenance(tiny_tasks), tiny_tasks)
    assert store.head == (8, 12)
    files = {str(path.relative_to(tmp_path / "store")) for path in (tmp_path / "store").rglob("*.npy")}
    assert files == {f"{task}/{id}.npy" for id, names in wanted.items() for task in names}
    for id, names in wanted.items():
        array = index.images[id].read()
        size = working_size(array.shape[:2], (32, 48))
        image = torch.nn.functional.interpolate(
            torch.from_numpy(array.copy()).permute(2, 0, 1)[None], size, mode="bilinear", antialias=True
        )
        said = forward_views(tiny_tasks, teacher, image, VIEWS)
        for name in names:
            found = store.find(id, name)
            assert found is not None
            a, b = (torch.softmax(x.float(), 0) for x in (found.logits, said[name].logits[0]))
            torch.testing.assert_close(a, b, atol=2e-3, rtol=0)
    with (tmp_path / "store" / "discovered.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["task"]) for row in rows] == [(id, name) for id, names in wanted.items() for name in names]
    for row in rows:
        path = label_path(tmp_path / "store", row["task"], row["id"])
        task, logits = tiny_tasks[row["task"]], torch.from_numpy(np.load(path)).float()
        assert float(row["confidence"]) == pytest.approx(task.confidence(logits[None]).mean().item(), abs=1e-4)
        assert int(row["bytes"]) == path.stat().st_size
        assert row["source"] == "teacher"


def test_neither_ranks_nor_an_interruption_change_a_bit(
    tmp_path: Path, make_folder: Any, tiny_tasks: dict[str, Task]
) -> None:
    """Three ranks one after the other, the last of them cut short, then one that goes on."""
    root = make_folder(tmp_path / "data", count=2 * AT_ONCE + 5, train=2 * AT_ONCE + 3)
    tasks = {name: tiny_tasks[name] for name in ("semseg", "depth", "edge")}
    filled(tmp_path / "whole", root, tasks)
    index = open_folder(root)
    wanted = missing_labels(dict.fromkeys(index.split("train"), ("semseg", "edge")), tasks)
    writer = StoreWriter(tmp_path / "parts", provenance(tasks), tasks)
    look = WholeImages(tasks, build("htt", tasks, 1).eval(), VIEWS, True, (32, 48), index, torch.device("cpu"))
    assert not writer.begin()
    for rank in (2, 1):
        assert fill_store(writer, look, wanted, (rank, 3)) is not None
    assert fill_store(writer, look, wanted, (0, 3), stopped=lambda: True) is None
    later = list(wanted)[AT_ONCE + 1]
    label_path(tmp_path / "parts", "depth", later).unlink()  # as if it had been killed within a batch
    (tmp_path / "parts" / "depth" / f".{later}.9.partial.npy").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"not complete \(no store.json\)"):
        open_store(tmp_path / "parts", provenance(tasks), tasks)
    assert not writer.begin()
    found = fill_store(writer, look, wanted)
    assert found is not None
    writer.end(*found)
    assert writer.begin(), "a complete store is not written again"
    for path in sorted((tmp_path / "whole").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "parts" / path.relative_to(tmp_path / "whole")).read_bytes(), path
    assert not list((tmp_path / "parts").rglob(".*"))


def test_the_teachers_token_lies_beside_each_label(
    tmp_path: Path, folder_root: Path, tiny_tasks: dict[str, Task]
) -> None:
    index, teacher = open_folder(folder_root), build("htt", tiny_tasks, 1).eval()
    wanted = missing_labels(dict.fromkeys(index.split("train"), ("semseg",)), tiny_tasks)
    look = WholeImages(tiny_tasks, teacher, VIEWS, True, (32, 48), index, torch.device("cpu"))
    head, width = look.shapes()
    assert width is not None
    own = replace(provenance(tiny_tasks), token_width=width)
    writer = StoreWriter(tmp_path / "store", own, tiny_tasks)
    writer.begin()
    found = fill_store(writer, look, wanted)
    assert found is not None
    id, name = next(iter(wanted)), "depth"
    token_path(tmp_path / "store", name, id).unlink()
    assert not writer.has(id, (name,)), "a label without its token is not there"
    found = fill_store(writer, look, wanted)
    assert found is not None
    writer.end(*found)
    store = open_store(tmp_path / "store", own, tiny_tasks)
    assert (store.head, store.token_width) == (head, width)
    array = index.images[id].read()
    seen = torch.nn.functional.interpolate(
        torch.from_numpy(array.copy()).permute(2, 0, 1)[None], working_size(array.shape[:2], (32, 48)),
        mode="bilinear", antialias=True,
    )  # fmt: skip
    label, said = store.find(id, name), forward_views(tiny_tasks, teacher, seen, VIEWS)[name]
    assert label is not None
    assert label.token is not None
    assert said.token is not None
    torch.testing.assert_close(label.token, said.token[0], atol=1e-5, rtol=1e-5)
    sizes = [path.stat().st_size for path in (tmp_path / "store").rglob("*") if path.suffix in (".npy", ".token")]
    assert sum(row[4] for row in found[0]) == sum(sizes)
    by_hand = [2 * tiny_tasks[each].num_tokens * head[0] * head[1] + 4 * width for each in wanted[id]]
    assert writer.expected_bytes({id: wanted[id]}) == sum(by_hand)
    token_path(tmp_path / "store", name, id).write_bytes(b"half")
    with pytest.raises(DataError, match=r"\.token is damaged"):
        store.find(id, name)
    with pytest.raises(CheckpointError, match="another kind of tokens"):
        open_store(tmp_path / "store", replace(own, token_width=width + 1), tiny_tasks)


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"teacher": "other"}, "another teacher"), ({"views": {"semseg": (AS_IT_IS,)}}, "another views"),
    ({"mirror": False}, "use of mirror images"), ({"size": (64, 96)}, "another size"),
    ({"labels": "more"}, "set of images or visible labels"), ({"tasks": {}}, "another tasks"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "named"), CHANGES)
def test_a_store_of_something_else_is_refused_and_begun_anew(
    change: dict[str, Any], named: str, tmp_path: Path, folder_root: Path, tiny_tasks: dict[str, Task]
) -> None:
    filled(tmp_path / "store", folder_root, tiny_tasks)
    other = replace(provenance(tiny_tasks), **change)
    with pytest.raises(CheckpointError, match=named):
        open_store(tmp_path / "store", other, tiny_tasks)
    assert not StoreWriter(tmp_path / "store", other, tiny_tasks).begin()
    assert not list((tmp_path / "store").rglob("*.npy"))
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["writing.json"]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"cpickle", None])
def test_a_bad_file_is_named(
    content: bytes | None, tmp_path: Path, folder_root: Path, tiny_tasks: dict[str, Task]
) -> None:
    filled(tmp_path / "store", folder_root, tiny_tasks)
    store = open_store(tmp_path / "store", provenance(tiny_tasks), tiny_tasks)
    path = label_path(tmp_path / "store", "depth", "im02")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"depth/im02\.npy is (gone|damaged)"):
        store.find("im02", "depth")
    np.save(path, np.zeros((3, 8, 12), np.float16))
    with pytest.raises(DataError, match=r"expected float16 \(8, h, w\), found float16 \(3, 8, 12\)"):
        store.find("im02", "depth")
    np.save(path, np.zeros((8, 8, 12), np.float32))
    with pytest.raises(DataError, match="found float32"):
        store.find("im02", "depth")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"not json"])
def test_a_damaged_document_is_no_complete_store(
    content: bytes, tmp_path: Path, folder_root: Path, tiny_tasks: dict[str, Task]
) -> None:
    filled(tmp_path / "store", folder_root, tiny_tasks)
    (tmp_path / "store" / "store.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not complete|not of this run"):
        open_store(tmp_path / "store", provenance(tiny_tasks), tiny_tasks)


@examples(40)
@given(scale=st.sampled_from([0.1, 1.0, 30.0, 1e4]), offset=st.floats(-1e4, 1e4), seed=st.integers(0, 999))
def test_float16_keeps_distributions_whatever_their_logits(scale: float, offset: float, seed: int) -> None:
    logits = torch.randn(20, 3, 4, generator=torch.Generator().manual_seed(seed)) * scale + offset
    task = Segmentation("s", classes=tuple(f"c{k}" for k in range(20)))
    kept = quantised(task, logits)
    assert torch.isfinite(kept).all()
    torch.testing.assert_close(kept.float().softmax(0), logits.softmax(0), atol=2e-3, rtol=0)


def test_the_training_images_of_nyud_take_less_than_a_gigabyte(tmp_path: Path) -> None:
    """Every label of three tasks, bins widened by the default zoom: 13 classes, 30 bins and 40 centres."""
    tasks: tuple[Task, ...] = (
        Segmentation("semseg", classes=tuple(f"c{k}" for k in range(13))),
        Depth("depth", bins=30).widened((1.0, 1.5)), Normals("normals"),
    )  # fmt: skip
    total = 0
    for task in tasks:
        writer = StoreWriter(tmp_path, provenance({task.name: task}), {task.name: task})
        writer.write("one", task.name, torch.randn(task.num_tokens, 288 // 4, 384 // 4))
        path = label_path(tmp_path, task.name, "one")
        assert read_logits(path, task).shape == (task.num_tokens, 72, 96)
        total += path.stat().st_size
    assert 795 * total < 1e9


def test_images_that_cannot_be_read_are_left_out_where_that_is_allowed(
    own_folder: Path, tmp_path: Path, tiny_tasks: dict[str, Task]
) -> None:
    (own_folder / "images" / "im03.png").write_bytes(b"no picture")
    index = open_folder(own_folder)
    wanted = missing_labels(dict.fromkeys(index.split("train"), ("semseg",)), tiny_tasks)
    teacher: nn.Module = build("htt", tiny_tasks, 1).eval()
    writer = StoreWriter(tmp_path / "store", provenance(tiny_tasks), tiny_tasks)
    writer.begin()
    strict, lenient = (
        WholeImages(tiny_tasks, teacher, VIEWS, True, (32, 48), index, torch.device("cpu"), skip)
        for skip in (False, True)
    )
    with pytest.raises(DataError, match="im03"):
        fill_store(writer, strict, wanted)
    found = fill_store(writer, lenient, wanted)
    assert found is not None
    writer.end(*found)
    assert json.loads((tmp_path / "store" / "store.json").read_text())["left_out"] == ["im03"]
    store = open_store(tmp_path / "store", provenance(tiny_tasks), tiny_tasks)
    assert store.find("im03", "depth") is None
    assert store.find("im04", "depth") is not None


# -- views -------------------------------------------------------------------------------------------------------------
def test_a_list_of_views_is_averaged_and_may_differ_by_task(tiny_tasks: dict[str, Task]) -> None:
    """Truth from the network itself: each view by hand, then the mean."""
    from tasktokens.discovery.pseudo_labels import enlarge
    from tasktokens.models.layers import upsample

    teacher = build("htt", tiny_tasks, 1).eval()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views = parse_views({"depth": [[1.5, False], [1, True], [1, False], [1, True]], "edge": [[1, False]]})
    found = forward_views(tiny_tasks, teacher, image, views)
    with torch.no_grad():
        plain, mirrored, larger = (teacher(x) for x in (image, image.flip(-1), enlarge(image, 1.5)))
    task = tiny_tasks["depth"]
    back = upsample(task.zoom_logits(larger["depth"].logits, 1.5), (16, 16))
    expected = (back + task.flip_logits(mirrored["depth"].logits) + plain["depth"].logits) / 3
    torch.testing.assert_close(found["depth"].logits, expected, atol=1e-5, rtol=1e-5)
    for name in ("edge", "semseg"):  # its own, and the default of a task that is not named
        assert torch.equal(found[name].logits, plain[name].logits)
    unmirrored = forward_views(tiny_tasks, teacher, image, views, mirror=False)["depth"]
    torch.testing.assert_close(unmirrored.logits, (back + plain["depth"].logits) / 2, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "value", [[], {}, 3, "ab", [[1, True]], [[0, False]], [[5, False]], [[1, 2]], [[True, False]], [1, False],
              {"depth": []}, [[float("nan"), False]], [[1, False]] * 33],
)  # fmt: skip
def test_views_that_make_no_sense_are_refused_in_a_sentence(value: Any) -> None:
    with pytest.raises(ValueError, match="view"):
        parse_views(value)
