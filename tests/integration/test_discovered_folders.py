"""Labels that somebody else discovered, with confidences: what is learned from them, and what is refused."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from conftest import discovered_rows, run_cli
from properties import same_tensors
from resuming import stopped_at
from tasktokens.config import Augmentation, Config
from tasktokens.data.dataset import PartialDataset
from tasktokens.data.transforms import flip
from tasktokens.datasets.discovered_folders import DiscoveredFolders
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.open import open_data
from tasktokens.errors import ConfigError, DataError, LabelError
from tasktokens.inference.discover import discover
from tasktokens.methods import METHODS, Htt, HttMethod, StepOptions
from tasktokens.models import TaskOutput
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Config]
METHOD = {"name": "htt", "stage1_steps": 0, "stage2_steps": 3}
HEIGHT, WIDTH = 40, 56


@pytest.fixture(scope="session")
def make_config(make_config_of_two: MakeConfig) -> MakeConfig:
    """Two tasks will do."""
    return make_config_of_two


def constant(folder: Path, metres: float, confidence: Any, ids: list[str], columns: slice = slice(None)) -> Path:
    """Depth of another model, 16 bit in millimetres, where it says something; confidences as an array or none."""
    for id in ids:
        depth = np.zeros((HEIGHT, WIDTH), np.uint16)
        depth[:, columns] = round(metres * 1000)
        (folder / "depth").mkdir(parents=True, exist_ok=True)
        Image.fromarray(depth).save(folder / "depth" / f"{id}.png")
        if confidence is not None:
            (folder / "confidence" / "depth").mkdir(parents=True, exist_ok=True)
            np.save(folder / "confidence" / "depth" / f"{id}.npy", np.broadcast_to(confidence, (HEIGHT, WIDTH)))
    return folder


def ids_of(root: Path) -> list[str]:
    return list(open_folder(root).split("train"))


def opened(root: Path, visible: dict[str, tuple[str, ...]], *folders: Path) -> DiscoveredFolders:
    index = open_folder(root)
    return DiscoveredFolders(folders, index, index.tasks, visible)


# -- what is read ------------------------------------------------------------------------------------------------------
def test_of_several_folders_the_most_confident_says_each_pixel(folder_root: Path, tmp_path: Path) -> None:
    """Truth by hand: a ramp beside a constant, and a third that says nothing on the left."""
    ids = ids_of(folder_root)
    ramp = np.linspace(0, 1, WIDTH, dtype=np.float32)
    a = constant(tmp_path / "a", 2.0, ramp, ids)
    b = constant(tmp_path / "b", 4.0, np.float32(0.5), ids)
    c = constant(tmp_path / "c", 8.0, np.float32(0.75), ids[:1], columns=slice(WIDTH // 2, None))
    found = opened(folder_root, dict.fromkeys(ids, ("semseg",)), a, b, c)
    label = found.find(ids[0], "depth", (HEIGHT, WIDTH))
    assert label is not None
    assert label.weight is not None
    weights = np.stack([ramp, np.full(WIDTH, 0.5), np.where(np.arange(WIDTH) < WIDTH // 2, 0, 0.75)])
    metres = np.array([2.0, 4.0, 8.0])[weights.argmax(0)]
    np.testing.assert_allclose(label.value[0].numpy(), np.broadcast_to(metres, (HEIGHT, WIDTH)), rtol=1e-6)
    np.testing.assert_allclose(label.weight[0].numpy(), np.broadcast_to(weights.max(0), (HEIGHT, WIDTH)), rtol=1e-6)
    rows = list(found.rows(ids[0]))
    assert [row[:3] for row in rows] == [[ids[0], "depth", str(folder)] for folder in (a, b, c)]
    for number, row in enumerate(rows):
        won = weights.argmax(0) == number
        assert row[3] == pytest.approx(won.mean(), abs=1e-4)
        assert row[4] == pytest.approx(weights[number][won].mean(), abs=1e-4)
    assert [row[2] for row in found.rows(ids[1])] == [str(a), str(b)]


def test_a_given_label_is_never_replaced_and_void_is_worth_nothing(folder_root: Path, tmp_path: Path) -> None:
    ids = ids_of(folder_root)
    folder = constant(tmp_path / "a", 2.0, None, ids, columns=slice(10, None))
    visible = {ids[0]: ("depth",), **dict.fromkeys(ids[1:], ("semseg",))}
    found = opened(folder_root, visible, folder)
    assert found.find(ids[0], "depth", (HEIGHT, WIDTH)) is None
    assert found.find(ids[1], "semseg", (HEIGHT, WIDTH)) is None
    label = found.find(ids[1], "depth", (HEIGHT, WIDTH))
    assert label is not None
    assert label.weight is not None
    assert (label.weight[..., 10:] == 1).all()
    assert not label.weight[..., :10].any()
    assert not label.valid[..., :10].any()


@pytest.mark.parametrize("bits", [8, 16])
def test_confidences_are_pictures_of_8_or_16_bits_too(bits: int, folder_root: Path, tmp_path: Path) -> None:
    ids = ids_of(folder_root)
    folder, most = constant(tmp_path / "a", 2.0, None, ids), 2**bits - 1
    share = np.linspace(0, 1, WIDTH)
    for id in ids:
        (folder / "confidence" / "depth").mkdir(parents=True, exist_ok=True)
        picture = np.broadcast_to(np.rint(share * most), (HEIGHT, WIDTH)).astype(f"uint{bits}")
        Image.fromarray(np.ascontiguousarray(picture)).save(folder / "confidence" / "depth" / f"{id}.png")
    label = opened(folder_root, dict.fromkeys(ids, ()), folder).find(ids[0], "depth", (HEIGHT, WIDTH))
    assert label is not None
    assert label.weight is not None
    np.testing.assert_allclose(label.weight[0, 0].numpy(), share, atol=0.5 / most + 1e-6)


def test_weights_move_with_their_label_and_pass_for_given_nowhere(folder_root: Path, tmp_path: Path) -> None:
    """The weight is written into the depth itself: both move alike; only given labels are in ``labels``."""
    ids = ids_of(folder_root)
    folder = tmp_path / "a"
    ramp = np.linspace(0.1, 0.9, WIDTH, dtype=np.float32) * np.linspace(0.5, 1, HEIGHT, dtype=np.float32)[:, None]
    for id in ids:
        for place in (folder / "depth", folder / "confidence" / "depth"):
            place.mkdir(parents=True, exist_ok=True)
            np.save(place / f"{id}.npy", ramp)
    index = open_folder(folder_root)
    visible: dict[str, tuple[str, ...]] = dict.fromkeys(ids, ("semseg",)) | {ids[1]: ("semseg", "depth")}
    source = DiscoveredFolders([folder], index, index.tasks, visible)
    changes = Augmentation(scale=(0.7, 1.5), crop_max_share=0.75)
    dataset = PartialDataset(index, visible, index.tasks, (32, 48), changes, weighted=source)
    samples = [dataset[epoch, 0] for epoch in range(4)] + [dataset[0, 1]]
    for sample in samples[:4]:
        label = sample.labels["depth"]
        assert not label.given
        assert label.weight is not None
        inside = label.valid
        scale = (label.weight[inside] / label.value[inside]).mean()  # depth is divided by the zoom
        torch.testing.assert_close(label.value[inside] * scale, label.weight[inside], rtol=1e-4, atol=1e-5)
        assert not label.weight[~sample.pixels].any()
        again = flip(flip(sample, index.tasks), index.tasks).labels["depth"]
        assert torch.equal(again.weight, label.weight)  # type: ignore[arg-type]
    batch = dataset.collate(samples)
    assert batch.labels["depth"].rows.tolist() == [4]
    assert batch.labels["depth"].absent.tolist() == [0, 1, 2, 3]
    assert batch.weighted["depth"].rows.tolist() == [0, 1, 2, 3]
    assert batch.weighted["semseg"].rows.tolist() == []
    assert batch.labels["depth"].weight is None


def test_each_pixel_s_loss_is_weighed_by_its_confidence(folder_root: Path, tmp_path: Path) -> None:
    """Truth: the task's own loss per pixel times the confidence, summed; the count is all pixels of these images."""
    ids = ids_of(folder_root)[:2]
    ramp = np.linspace(0, 1, WIDTH, dtype=np.float32)
    folder = constant(tmp_path / "a", 2.0, ramp, ids, columns=slice(20, None))
    index = open_folder(folder_root)
    tasks = {"depth": index.tasks["depth"], "semseg": index.tasks["semseg"]}
    visible: dict[str, tuple[str, ...]] = dict.fromkeys(ids, ("semseg",))
    source = DiscoveredFolders([folder], index, tasks, visible)
    dataset = PartialDataset(index, visible, tasks, (HEIGHT, WIDTH), weighted=source)
    batch = dataset.collate([dataset[0], dataset[1]])
    method = Htt(tasks, HttMethod())
    generator = torch.Generator().manual_seed(0)
    outputs = {
        name: TaskOutput(torch.randn(2, task.num_tokens, HEIGHT, WIDTH, generator=generator), torch.zeros(2, 4, 5, 7))
        for name, task in tasks.items()
    }
    prepared = method.prepare(batch, torch.Generator(), StepOptions(discovered=True))
    terms = {term.name: term for term in method.terms(prepared, lambda image: outputs)}  # type: ignore[arg-type]
    each = tasks["depth"].pixel_loss(outputs["depth"].logits, torch.full((2, 1, HEIGHT, WIDTH), 2.0))
    expected = (each[..., 20:] * torch.from_numpy(ramp[20:])).sum()
    torch.testing.assert_close(terms["weighted_loss/depth"].total, expected, rtol=1e-5, atol=1e-3)
    assert terms["weighted_loss/depth"].count == 2 * HEIGHT * WIDTH
    assert terms["weighted_loss/semseg"].count == 0
    counts = method.counts(prepared)
    assert all(counts[name] == term.count for name, term in terms.items() if term.weight)


# -- a run -------------------------------------------------------------------------------------------------------------
def test_a_second_stage_alone_learns_from_a_folder_and_resumes(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    ids = ids_of(folder_root)
    near, far = (constant(tmp_path / str(metres), metres, np.float32(0.8), ids) for metres in (1.0, 9.0))
    changes = {"method": METHOD, "data.labels": "one"}
    runs = {
        folder.name: train(
            make_config(folder_root, tmp_path / f"run-{folder.name}", **changes, **{"data.discovered": [str(folder)]}),
            quiet=True,
        )
        for folder in (near, far)
    }
    weights = {name: load_file(run / "model" / "model.safetensors") for name, run in runs.items()}
    assert not same_tensors(weights["1.0"], weights["9.0"])
    run = runs["1.0"]
    with (run / "discovered" / "discovered.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (run / "labels.csv").open() as file:
        without = [row["id"] for row in csv.DictReader(file) if row["depth"] == "0"]
    assert [(row["id"], row["task"], row["source"]) for row in rows] == [(id, "depth", str(near)) for id in without]
    assert not (run / "teacher").exists()
    assert not list((run / "discovered").rglob("*.npy"))
    train(stopped_at(run, tmp_path / "again", "1-0000002"), resume=True, quiet=True)
    assert same_tensors(load_file(tmp_path / "again" / "model" / "model.safetensors"), weights["1.0"])


def test_what_discover_wrote_teaches_and_its_copies_of_given_labels_do_not(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever way it is passed: beside the data that it was made from, or as the data itself."""
    run = train(make_config(folder_root, tmp_path / "run"), quiet=True)
    discover(run, tmp_path / "filled", quiet=True, threshold=0.1)
    discovered = {(row["id"], row["task"]) for row in discovered_rows(tmp_path / "filled")}
    index = open_folder(tmp_path / "filled")
    nothing: dict[str, tuple[str, ...]] = dict.fromkeys(index.split("train"), ())
    source = DiscoveredFolders([tmp_path / "filled"], index, index.tasks, nothing)
    pairs = {(id, task) for id in nothing for task in index.tasks}
    assert {pair for pair in pairs if source.find(*pair, (HEIGHT, WIDTH)) is not None} == discovered != pairs
    config = make_config(
        tmp_path / "filled", tmp_path / "next", method=METHOD,
        **{"data.labels": "full", "data.discovered": [str(tmp_path / "filled")]},
    )  # fmt: skip
    given = {(id, task) for id, seen in open_data(config).train.items() for task in seen}
    assert given == pairs - discovered
    train(config, quiet=True)
    code, out, _ = run_cli(
        capsys, "train", "-q", "--root", folder_root, "--discovered", tmp_path / "filled", "data.labels=one",
        "data.size=[32,48]", "data.kind=folder", "method.stage2_steps=1", "model.backbone=test_resnet",
        "model.pretrained=false", "model.width=16", "optim.batch_size=2", "run.device=cpu", "run.evaluate=none",
        f"run.dir={tmp_path / 'cli'}",
    )  # fmt: skip
    assert code == 0
    assert str(tmp_path / "cli") in out


# -- discover --teacher ------------------------------------------------------------------------------------------------
def test_discover_takes_labels_of_another_model_and_says_whose_each_is(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    """In place of the network's where there is one, with its confidence, void below the threshold; given ones stay."""
    run = train(make_config(folder_root, tmp_path / "run", **{"method.stage2_steps": 0}), quiet=True)
    ids, ramp = ids_of(folder_root), np.linspace(0, 1, WIDTH, dtype=np.float32)
    near = constant(tmp_path / "near", 2.0, ramp, ids[:5])
    far = constant(tmp_path / "far", 4.0, np.float32(0.5), ids[:3])
    out = Path(
        discover(run, tmp_path / "out", {"depth": 0.6}, quiet=True, views=1, teacher={"depth": [near, far]}).folder
    )
    with (tmp_path / "run" / "labels.csv").open() as file:
        missing = [row["id"] for row in csv.DictReader(file) if row["depth"] == "0"]
    sources = {(row["id"], row["task"]): row["by"] for row in discovered_rows(out)}
    plain = Path(discover(run, tmp_path / "plain", {"depth": 0.6}, quiet=True, views=1).folder)
    for id in missing:
        stored = np.asarray(Image.open(out / "depth" / f"{id}.png"))
        confidence = np.asarray(Image.open(out / "confidence" / "depth" / f"{id}.png"))
        if id in ids[:5]:
            assert sources[id, "depth"] == (f"{near}; {far}" if id in ids[:3] else str(near))
            assert set(np.unique(stored)) == {0, 2000}
            np.testing.assert_array_equal(stored[0] > 0, ramp > 0.6)
            expected = np.maximum(ramp, 0.5) if id in ids[:3] else ramp
            np.testing.assert_array_equal(confidence[0], np.rint(expected * 255))
        else:
            assert sources[id, "depth"] == "network"
            np.testing.assert_array_equal(stored, np.asarray(Image.open(plain / "depth" / f"{id}.png")))
    assert {source for (_, task), source in sources.items() if task != "depth"} == {"network"}
    for id in set(ids) - set(missing):
        assert (out / "depth" / f"{id}.png").read_bytes() == (folder_root / "depth" / f"{id}.png").read_bytes()


def test_a_teacher_that_does_not_fit_is_refused_and_nothing_is_written(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(make_config(folder_root, tmp_path / "run", **{"method.stage2_steps": 0}), quiet=True)
    near, out = constant(tmp_path / "near", 2.0, np.float32(0.5), ids_of(folder_root)), tmp_path / "out"
    for word, said in (
        (f"dpeth={near}", "the task 'dpeth'"), (f"depth={tmp_path / 'gone'}", "does not exist"),
        ("depth", "such as depth=FOLDER"), (f"semseg={near}", "labels of none of the tasks semseg"),
    ):  # fmt: skip
        code, _, err = run_cli(capsys, "discover", run, "--out", out, "--teacher", word, "-q")
        assert (code, out.exists()) == (2, False)
        assert said in err
    another_size(near)
    code, _, err = run_cli(capsys, "discover", run, "--out", out, "--teacher", f"depth={near}", "-q")
    assert (code, out.exists()) == (2, False)
    assert "30x20 pixels" in err
    code, _, err = run_cli(capsys, "discover", run, "--out", out, "--views", "[[1, true]]", "-q")
    assert (code, out.exists()) == (2, False)
    assert "one view at least must not be mirrored" in err


def test_discover_sees_images_as_the_run_s_own_teacher_did(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    method = {"name": "htt", "stage1_steps": 2, "stage2_steps": 2, "views": [[1, False], [1.5, False]]}
    run = train(make_config(folder_root, tmp_path / "run", method=method), quiet=True)
    own, same, one = (
        Path(discover(run, tmp_path / f"out{number}", 0.0, quiet=True, views=views).folder)
        for number, views in enumerate((None, [(1, False), (1.5, False)], 1))
    )
    files = [path.relative_to(own) for path in (own / "confidence").rglob("*.png")]
    assert all((own / path).read_bytes() == (same / path).read_bytes() for path in files)
    assert any((own / path).read_bytes() != (one / path).read_bytes() for path in files)


# -- refusals ----------------------------------------------------------------------------------------------------------
SPOILT = ("im01", "im03")
"""One label of depth is given."""


def unknown_id(folder: Path) -> None:
    for path in (folder / "depth" / "im00.png", folder / "confidence" / "depth" / "im00.npy"):
        shutil.copy(path, path.with_name(f"im99{path.suffix}"))


def another_size(folder: Path) -> None:
    for id in SPOILT:
        Image.fromarray(np.full((20, 30), 2000, np.uint16)).save(folder / "depth" / f"{id}.png")


def another_confidence(folder: Path) -> None:
    for id in SPOILT:
        np.save(folder / "confidence" / "depth" / f"{id}.npy", np.ones((20, 30), np.float32))


def too_confident(folder: Path) -> None:
    for id in SPOILT:
        np.save(folder / "confidence" / "depth" / f"{id}.npy", np.full((HEIGHT, WIDTH), 1.5, np.float32))


def no_confidence(folder: Path) -> None:
    (folder / "confidence" / "depth" / "im01.npy").unlink()


def no_task(folder: Path) -> None:
    (folder / "depth").rename(folder / "dpeth")


def nothing_there(folder: Path) -> None:
    shutil.rmtree(folder)


def other_task(folder: Path) -> None:
    (folder / "dataset.yaml").write_text("tasks: {depth: {kind: depth, range: [1, 80], bins: 8}}\n")


REFUSED: list[tuple[Callable[[Path], None], type[Exception], str]] = [
    (unknown_id, DataError, r"im99\.png is of no image"), (another_size, LabelError, r"im0[13]\.png is 30x20 pixels"),
    (another_confidence, LabelError, r"im0[13]\.npy is 30x20 pixels, its image 56x40"),
    (too_confident, LabelError, r"im0[13]\.npy must hold .* from 1\.5 to 1\.5"),
    (no_confidence, DataError, r"im01\.png has no confidence"), (no_task, DataError, "'dpeth', which is no task"),
    (nothing_there, DataError, "does not exist"), (other_task, ConfigError, "range"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "error", "named"), REFUSED, ids=[each[0].__name__ for each in REFUSED])
def test_what_does_not_fit_is_refused_by_name(
    spoil: Callable[[Path], None], error: type[Exception], named: str, folder_root: Path, make_config: MakeConfig,
    tmp_path: Path,
) -> None:  # fmt: skip
    folder = constant(tmp_path / "a", 2.0, np.float32(0.5), ids_of(folder_root))
    spoil(folder)
    changes = {"method": METHOD, "data.labels": "0.2", "data.discovered": [str(folder)]}
    with pytest.raises(error, match=named):
        train(make_config(folder_root, tmp_path / "run", **changes), quiet=True)
    assert not (tmp_path / "run").exists(), "the corrected command must not be refused"


def test_methods_that_learn_from_no_discovered_labels_refuse_them(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    folder = constant(tmp_path / "a", 2.0, None, ids_of(folder_root))
    for method in ({"name": "mtl", "steps": 2}, METHOD | {"teacher": "live"}, METHOD | {"schedule": "online"}):
        with pytest.raises(ConfigError, match=r"data\.discovered names labels to learn from in place of a teacher"):
            train(
                make_config(folder_root, tmp_path / "run", method=method, **{"data.discovered": [str(folder)]}),
                quiet=True,
            )
    with pytest.raises(ConfigError, match=r"labels of data\.discovered have none; set method\.token_level=0"):
        train(
            make_config(
                folder_root, tmp_path / "run", method=METHOD | {"token_level": 0.1},
                **{"data.discovered": [str(folder)]},
            ),
            quiet=True,
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in METHODS if name != "htt"])
def test_the_option_is_refused_with_every_other_method_in_one_sentence(
    name: str, folder_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its confidences would be ignored without a word."""
    words = ["--discovered", tmp_path, "--root", folder_root, f"method.name={name}", f"run.dir={tmp_path / 'run'}"]
    code, _, errors = run_cli(capsys, "train", *words, "model.pretrained=false")
    assert code == 2
    assert "data.discovered names labels to learn from" in errors
    assert f"'{name}' as it is set reads none" in errors
    assert not (tmp_path / "run").exists()


def test_where_every_label_is_given_there_is_nothing_to_learn(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    folder = constant(tmp_path / "a", 2.0, None, ids_of(folder_root))
    changes = {"method": METHOD, "data.labels": "full", "data.discovered": [str(folder)]}
    with pytest.raises(DataError, match="nothing to learn from it"):
        train(make_config(folder_root, tmp_path / "run", **changes), quiet=True)
