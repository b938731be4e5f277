"""``tasktokens export``: the file says what the run says, or there is no file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tasktokens
from conftest import run_cli
from tasktokens.config import ModelSettings
from tasktokens.errors import CheckpointError, ConfigError, DataError, RunExistsError
from tasktokens.exported import metadata
from tasktokens.exported import predict as exported_predict
from tasktokens.exported.metadata import KEY
from tasktokens.exported.model import ExportedModel
from tasktokens.exporting import check, export, graph, writing
from tasktokens.exporting.describe import exported_task
from tasktokens.exporting.measure import calibration_images
from tasktokens.inference.predictor import Predictor
from tasktokens.models import build_network
from tasktokens.models.files import ModelInfo, save_model
from tasktokens.models.light import pool_to
from tasktokens.tasks import KINDS, Segmentation, build_task
from tasktokens.utils.label_maps import maps_from_plain

SPECS: dict[str, dict[str, Any]] = {
    "semseg": {"kind": "classes", "classes": ["floor", "wall", "chair"], "void": [255]},
    "depth": {"kind": "depth", "range": [0.5, 10.0], "bins": 8},
    "normals": {"kind": "normals", "centres": 12},
    "edge": {"kind": "edge"},
    "roof": {"kind": "binary"},
    "saliency": {"kind": "saliency"},
    "heat": {"kind": "regression", "range": [-5, 40], "bins": 20, "unit": "K"},
    "flow": {"kind": "vectors", "centres": 8},
}
"""Every kind of task that there is."""


@dataclass(frozen=True)
class Halves(Segmentation):
    """A kind of task from outside: classes that are drawn and stored in no way that the package knows."""

    def maps(self) -> Any:
        return None


@pytest.fixture(scope="module")
def run(folder_root: Path, make_config_of_two: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = make_config_of_two(
        folder_root, tmp_path_factory.mktemp("runs") / "run",
        **{"method": {"name": "htt", "stage1_steps": 2, "stage2_steps": 0}, "run.evaluate": "test"},
    )  # fmt: skip
    return tasktokens.train(config, quiet=True)


@pytest.fixture(scope="module")
def file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    exported = tasktokens.export(run, out=tmp_path_factory.mktemp("exported") / "model.onnx")
    assert exported.max_difference < 1e-4
    assert len(exported.differences) == 3
    return exported.path


@pytest.fixture(scope="module")
def both(run: Path, file: Path) -> tuple[Any, Any]:
    return tasktokens.load(run, device="cpu"), tasktokens.load(file)


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network of every kind of task, with a task of an own kind, as a model folder."""
    tasks = {name: build_task(name, spec) for name, spec in SPECS.items()}
    chosen = ModelSettings(backbone="test_resnet", pretrained=False, width=16)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("kinds") / "model"
    save_model(folder, build_network("mtl", tasks, chosen), ModelInfo("mtl", chosen, tasks, (32, 48)))
    return folder


def draw(seed: int, height: int, width: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_alike(expected: tasktokens.Result, found: tasktokens.Result) -> None:
    """Values within 1e-4, of classes on all but a few pixels; the same types, shapes and pictures."""
    assert list(expected) == list(found)
    for name in expected:
        left, right = expected[name], found[name]
        assert left.value.dtype == right.value.dtype
        assert left.value.shape == right.value.shape
        if left.value.dtype == np.uint8:
            assert np.mean(left.value != right.value) < 1e-3
        else:
            np.testing.assert_allclose(right.value, left.value, atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(right.confidence, left.confidence, atol=1e-4)
        assert right.confidence.dtype == left.confidence.dtype
        away = np.abs(np.asarray(left.picture()).astype(int) - np.asarray(right.picture()))
        assert np.mean(away > 2) < 1e-3
        assert right.task.class_names() == left.task.class_names()
        assert right.task.threshold == left.task.threshold


@settings(max_examples=12)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 99))
def test_the_file_predicts_what_the_run_predicts(both: tuple[Any, Any], height: int, width: int, seed: int) -> None:
    if max(height, width) > 20 * min(height, width):
        height = width
    image = draw(seed, height, width)
    assert_alike(both[0].predict(image), both[1].predict(image))


def test_every_kind_of_task_is_exported(every_kind: Path, tmp_path: Path) -> None:
    assert {spec["kind"] for spec in SPECS.values()} == {name for name in KINDS if name in SPECS_KINDS}
    exported = tasktokens.export(every_kind, out=tmp_path / "m.onnx")
    model, file = tasktokens.load(every_kind, device="cpu"), tasktokens.load(exported.path)
    for number, size in enumerate(((32, 48), (70, 90), (200, 130))):
        image = draw(number, *size)
        expected, found = model.predict(image), file.predict(image)
        assert_alike(expected, found)
        for name in expected:
            valid = found[name].valid(0.2)
            ours = expected[name].save(tmp_path / f"ours/{name}", valid)
            theirs = type(expected[name])(found[name].task, expected[name].value_CHW, found[name].confidence)
            saved = theirs.save(tmp_path / f"theirs/{name}", valid)
            assert ours.name == saved.name
            assert ours.read_bytes() == saved.read_bytes()
            np.testing.assert_array_equal(np.asarray(expected[name].picture(valid)), np.asarray(theirs.picture(valid)))
    assert file.tasks["heat"].unit == "K"
    assert file.tasks["depth"].unit == "m"
    assert file.tasks["depth"].tokens == model.tasks["depth"].token_names()
    assert build_task("depth", file.tasks["depth"].spec) == build_task("depth", SPECS["depth"])


SPECS_KINDS = {"classes", "depth", "normals", "edge", "binary", "saliency", "regression", "vectors"}


def test_an_own_kind_of_task_gives_values_and_says_what_it_cannot(tmp_path: Path) -> None:
    task = exported_task(Halves("halves", classes=("a", "b")))
    assert task.drawn is None
    with pytest.raises(ConfigError, match="method 'maps'"):
        task.colourise(np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(ConfigError, match=r"take prediction\.value"):
        task.write(tmp_path / "x.png", np.zeros((1, 2, 2), np.uint8))


@pytest.mark.parametrize("name", SPECS)
def test_colours_and_files_survive_as_json(name: str) -> None:
    maps = build_task(name, SPECS[name]).maps()
    assert maps is not None
    assert maps_from_plain(json.loads(json.dumps(maps.plain()))) == maps


def test_the_graph_gives_values_in_units_for_any_batch(file: Path, run: Path) -> None:
    """By ONNX Runtime alone, as another program would: no rule of this package in between."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["image"]
    names = [each.name for each in session.get_outputs()]
    image = draw(1, 64, 96)[None].repeat(3, 0)
    found = dict(zip(names, session.run(None, {"image": image}), strict=True))
    assert found["semseg"].shape == (3, 1, 64, 96)
    assert found["depth"].min() >= 0.49
    assert found["depth"].max() <= 15.1
    logits = torch.from_numpy(found["semseg.logits"])
    enlarged = torch.nn.functional.interpolate(logits, (64, 96), mode="bilinear").numpy()
    exponential = np.exp(enlarged - enlarged.max(1, keepdims=True))
    np.testing.assert_allclose(
        found["semseg.confidence"][:, 0], (exponential / exponential.sum(1, keepdims=True)).max(1), atol=1e-5
    )


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 5, 30]))
def test_pooling_means_the_same_in_numpy(height: int, width: int, most: int) -> None:
    x = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(height))
    side = max(1, int(np.ceil(np.sqrt(height * width / most))))
    expected = [
        [x[..., top : top + side, left : left + side].mean(dim=(2, 3)) for left in range(0, width, side)]
        for top in range(0, height, side)
    ]
    np.testing.assert_allclose(
        pool_to(x, most).numpy(), torch.stack([torch.stack(row, -1) for row in expected], -2).numpy(), atol=1e-5
    )


# -- precisions --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("precision", [pytest.param("fp16", marks=pytest.mark.slow), "int8"])
def test_fewer_bits_are_measured(run: Path, tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.onnx"
    code, text, _ = run_cli(capsys, "export", run, "--precision", precision, "--out", out, "--limit", 1, "--json")
    found = json.loads(text)
    assert code == 0
    assert (found["precision"], found["split"], found["images"]) == (precision, "test", 1)
    assert found["metrics"].keys() == found["torch_metrics"].keys() == {*tasktokens.load(out).tasks}
    assert 1e-6 < found["max_difference"] < 1
    types = {each.data_type for each in onnx.load(out).graph.initializer}
    assert (onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.INT8) in types
    assert found["mb"] == pytest.approx(out.stat().st_size / 1e6, abs=1e-3)


def test_calibration_sees_images_of_the_training_and_no_label(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("a label was opened")

    monkeypatch.setattr("tasktokens.tasks.base.Task.read", refuse)
    info = tasktokens.load_model(run)[1]
    images = calibration_images(run, info, None, count=4)
    assert [image.shape for image in images] == [(1, 32, 32, 3)] * 4  # of 40x56, by the rule for other shapes
    seen = {line.split(",")[0] for line in (run / "labels.csv").read_text().splitlines()[1:]}
    assert seen == {f"im{number:02d}" for number in range(6)}  # the first six are the training's


# -- refusals ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "onxx"], "did you mean 'onnx'"),
        (["--precision", "int4"], "one of fp32, fp16, int8"),
        (["--format", "torch", "--precision", "int8"], "torch has fp32"),
        (["--format", "torch", "--out", "m.pt2"], "trained at 32x48; take --format onnx"),
        (["--out", "m.xml"], r"end in \.onnx, found 'm\.xml'"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, _, error = run_cli(capsys, "export", run, *words)
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(error)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run_cli(capsys, "export", tmp_path)
    assert code == 2
    assert "holds no trained model" in error


def test_a_file_that_exists_is_kept(run: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = file.read_bytes()
    with pytest.raises(RunExistsError, match="--overwrite"):
        tasktokens.export(run, out=file)
    assert file.read_bytes() == before


def without_writing(monkeypatch: pytest.MonkeyPatch, found: dict[tuple[int, int], float]) -> None:
    """Export in no time: a file of a byte that is said to differ by so much."""
    monkeypatch.setattr(export, "describe", lambda *_: None)
    monkeypatch.setattr(export, "write_model", lambda path, *_: path.write_bytes(b"x"))
    monkeypatch.setattr(export, "runner", lambda *_: None)
    monkeypatch.setattr(export, "differences", lambda *_: found)


def test_a_file_that_differs_is_refused_and_removed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_writing(monkeypatch, {(32, 48): 0.5, (64, 64): float("nan")})
    with pytest.raises(CheckpointError, match="differs from PyTorch by"):
        tasktokens.export(run, out=tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_the_check_finds_a_graph_of_one_size(run: Path, tmp_path: Path) -> None:
    """What the check is for: a file that is right at the size at which it was traced alone."""
    network, info = tasktokens.load_model(run)
    right = check.differences(network, check_of(network), info.size)
    assert len(right) == 3
    assert max(right.values()) == 0
    fixed = check.differences(network, lambda image: check_of(network)(image * 0), info.size)
    assert min(fixed.values()) > 1e-4


def check_of(network: Any) -> Any:
    def run_network(image: Any) -> dict[str, Any]:
        with torch.no_grad():
            outputs = graph.ExportGraph(network).eval()(torch.from_numpy(image))
        return dict(zip(graph.output_names(network), (each.numpy() for each in outputs), strict=True))

    return run_network


def test_a_missing_package_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs onnx, onnxruntime: pip install 'tasktokens\[export\]'"):
        tasktokens.export(run, out=tmp_path / "m.onnx")


def test_a_later_format_and_a_strange_file_are_refused(file: Path, tmp_path: Path) -> None:
    model = onnx.load(file)
    values = json.loads(next(each.value for each in model.metadata_props if each.key == KEY))
    for text, message in (
        (json.dumps(values | {"format": metadata.FORMAT + 1}), "has format 2 of exported models"),
        (json.dumps(values | {"tasks": {}}), "is damaged"),
        ("[]", "is damaged"),
        ("", "was not written by 'tasktokens export'"),
    ):
        onnx.helper.set_model_props(model, {KEY: text})
        onnx.save(model, tmp_path / "changed.onnx")
        with pytest.raises(CheckpointError, match=message):
            tasktokens.load(tmp_path / "changed.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(CheckpointError, match="is no ONNX model"):
        tasktokens.load(tmp_path / "text.onnx")
    with pytest.raises(CheckpointError, match="does not exist"):
        tasktokens.load(tmp_path / "none.onnx")


@pytest.mark.parametrize(("given_", "message"), [({"device": "cuda"}, "on the CPU"), ({"views": 2}, "views=2")])
def test_what_a_file_cannot_do_is_said(file: Path, given_: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tasktokens.load(file, **given_)


def test_a_file_is_not_served_on_another_device_than_was_asked_for(file: Path) -> None:
    with pytest.raises(ConfigError, match="on the CPU"):
        Predictor(file, "cuda")
    assert Predictor(file, "cpu").device == Predictor(file).device == torch.device("cpu")


# -- other formats -----------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_openvino(run: Path, tmp_path: Path, precision: str) -> None:
    exported = tasktokens.export(run, "openvino", tmp_path / "m.xml", precision, limit=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    file = tasktokens.load(exported.path)
    assert isinstance(file, ExportedModel)
    if precision == "fp32":
        image = draw(3, 70, 50)
        assert_alike(tasktokens.load(run, device="cpu").predict(image), file.predict(image))
        ended = subprocess.run([sys.executable, "-c", DROPPED_ELSEWHERE, str(exported.path)], capture_output=True)
        assert (ended.returncode, b"handled" in ended.stdout) == (0, True), ended


DROPPED_ELSEWHERE = """
import faulthandler, signal, subprocess, sys, threading
from pathlib import Path
from tasktokens.exported.runtimes import open_runtime
faulthandler.enable()  # with a stack for signals
signal.signal(signal.SIGCHLD, lambda number, frame: print("handled"))
models = [open_runtime(Path(sys.argv[1]))]
thread = threading.Thread(target=models.clear)
thread.start()
thread.join()
subprocess.run(["true"])
"""
"""A model that another thread than its own drops, as the garbage collector may, and a signal afterwards."""


@pytest.mark.slow
def test_a_program_of_torch(tmp_path: Path) -> None:
    tasks = {name: build_task(name, SPECS[name]) for name in ("semseg", "depth")}
    chosen = ModelSettings(backbone="test_resnet", pretrained=False, width=16)
    save_model(tmp_path / "model", build_network("mtl", tasks, chosen), ModelInfo("mtl", chosen, tasks, (64, 96)))
    exported = tasktokens.export(tmp_path / "model", "torch")
    assert exported.max_difference < 1e-4
    extra = {"tasktokens.json": ""}
    torch.export.load(exported.path, extra_files=extra)
    assert json.loads(extra["tasktokens.json"])["size"] == [64, 96]
    with pytest.raises(ConfigError, match=r"torch\.export\.load"):
        tasktokens.load(exported.path)


def test_the_command_prints_the_differences(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_writing(monkeypatch, {(32, 48): 2e-6, (64, 64): 3e-6})
    out = tmp_path / "new" / "m.onnx"
    code, text, error = run_cli(capsys, "export", run, "--out", out)
    assert (code, error) == (0, "")
    assert "difference to PyTorch" in text
    assert "32x48" in text
    assert "3.0e-06" in text
    assert out.read_bytes() == b"x"
    assert run_cli(capsys, "export", run, "--out", out)[0] == 2
    code, text, _ = run_cli(capsys, "export", run, "--out", out, "--overwrite", "--json")
    assert code == 0
    assert json.loads(text)["differences"][0] == {"size": [32, 48], "difference": 2e-6}


# -- verbs -------------------------------------------------------------------------------------------------------------
def label_files(folder: Path) -> dict[str, Any]:
    """Arrays of all files but pictures, by their path."""
    files = [path for path in sorted(folder.rglob("*.*")) if path.suffix in (".png", ".npy")]
    read = {".png": lambda path: np.asarray(Image.open(path)), ".npy": np.load}
    return {path.relative_to(folder).as_posix(): read[path.suffix](path) for path in files}


def assert_same_folder(expected: Path, found: Path, same_font: bool = True) -> None:
    """The same files; labels, confidences and pictures alike up to rounding; the same description."""
    left, right = label_files(expected), label_files(found)
    assert left.keys() == right.keys()
    for name in left:
        assert (left[name].shape, left[name].dtype) == (right[name].shape, right[name].dtype)
        if same_font or not name.startswith("pictures/"):
            assert np.mean(np.abs(left[name].astype(float) - right[name]) > 2) < 1e-3, name
    for name in ("dataset.yaml", "classes.csv"):
        assert (expected / name).read_text() == (found / name).read_text()
    assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}


def test_predict_writes_what_it_writes_with_the_run(
    run: Path, file: Path, folder_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [folder_root / "images/im07.png", folder_root / "images/im06.png"]
    for model, out in ((run, "run"), (file, "file")):
        assert run_cli(capsys, "predict", model, *inputs, "--out", tmp_path / out, "-q") == (
            0,
            f"{tmp_path / out}\n",
            "",
        )
    assert_same_folder(tmp_path / "run", tmp_path / "file")
    code, _, error = run_cli(capsys, "predict", file, *inputs, "--out", tmp_path / "file", "-q")
    assert (code, "not empty" in error) == (2, True)
    again = tasktokens.predict(file, inputs, tmp_path / "file", overwrite=True, quiet=True, batch_size=2)
    assert [path.name for path in again] == ["im07.png", "im06.png"]
    assert_same_folder(tmp_path / "run", tmp_path / "file")


def test_predict_in_tiles_too(run: Path, file: Path, folder_root: Path, tmp_path: Path) -> None:
    image = folder_root / "images/im07.png"
    for model, out in ((run, "run"), (file, "file")):
        tasktokens.predict(model, image, tmp_path / out, quiet=True, tile=32)
    assert_same_folder(tmp_path / "run", tmp_path / "file")


def test_predict_goes_on_after_an_interruption_and_names_bad_images(
    file: Path, folder_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("im07", "im06"):
        shutil.copy(folder_root / f"images/{name}.png", tmp_path / f"{name}.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    seen: list[str] = []
    write = exported_predict._Writer._write_image

    def interrupted(self: Any, id: str, *given: Any) -> None:
        seen.append(id)
        if len(seen) == 2:
            raise KeyboardInterrupt
        write(self, id, *given)

    monkeypatch.setattr(exported_predict._Writer, "_write_image", interrupted)
    inputs, out = [tmp_path / f"{name}.png" for name in ("im07", "im06", "bad")], tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        tasktokens.predict(file, inputs, out, quiet=True)
    with pytest.raises(DataError, match=r"1 of 3 images were left out: image .*bad\.png cannot be read"):
        tasktokens.predict(file, inputs, out, quiet=True)
    assert seen == ["im07", "im06", "im06"]
    assert {path.name for path in (out / "pictures").iterdir()} == {"im07.png", "im06.png"}


def test_evaluate_gives_the_metrics_of_the_run(run: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected, inside = tasktokens.evaluate(run, "test", write=False), run / "file.onnx"
    shutil.copy(file, inside)
    code, text, error = run_cli(capsys, "evaluate", inside, "--split", "test", "--json")
    assert (code, error) == (0, "")
    found = json.loads(text)
    assert found.keys() == expected.keys()
    for task, metrics in expected.items():
        for name, value in metrics.items():
            assert (
                found[task][name] is None if np.isnan(value) else found[task][name] == pytest.approx(value, 1e-2, 1e-2)
            )
    assert json.loads((run / "file.evaluation-test.json").read_text()) == found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "FILE", "IMAGE", "--views", "2"], "see each image once"),
        (["predict", "none.onnx", "IMAGE"], r"none\.onnx does not exist"),
        (["predict", "FILE", "none.png"], "no image at 'none.png'"),
        (["predict", "FILE", "IMAGE", "--every", "2"], "--every are about videos"),
        (["evaluate", "FILE"], "lies in no run"),
        (["explain", "FILE", "IMAGE"], "gives no gates"),
        (["discover", "FILE", "--out", "found"], "lies in no run"),
        (["discover", "INSIDE", "--out", "found"], "discover with its run"),
    ],
)
def test_what_a_file_is_not_for_is_one_sentence(
    run: Path, file: Path, folder_root: Path, words: list[str], message: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shutil.copy(file, run / "file.onnx")
    named = {"FILE": file, "INSIDE": run / "file.onnx", "IMAGE": folder_root / "images/im07.png"}
    code, _, error = run_cli(capsys, *(named.get(word, word) for word in words))
    assert (code, error.count("\n")) == (2, 1)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(error)
    assert not list(tmp_path.iterdir())


# -- without torch -----------------------------------------------------------------------------------------------------
WITHOUT = """
import sys

FOR_VERBS = set()

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED and name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

HEAVY = {"torch", "torchvision", "timm", "accelerate", "pydantic", "typer", "yaml", "rich", "matplotlib", "scipy",
         "torchmetrics", "safetensors", "huggingface_hub", "jinja2", "filelock", "psutil", "onnx", "openvino"}
HEAVY -= FOR_VERBS
ALLOWED = {"numpy", "PIL", "onnxruntime", "tasktokens"}
sys.meta_path.insert(0, Refuse())
"""
PREDICT = """
import sys
import numpy as np
import tasktokens
model = tasktokens.load(sys.argv[1])
result = model.predict(sys.argv[2])
values = {}
for name, prediction in result.items():
    values[name], values[name + ".confidence"] = prediction.value, prediction.confidence
    prediction.picture(prediction.valid(0.3)).save(f"{sys.argv[3]}/{name}.picture.png")
result.save(sys.argv[3], "one")
result.picture().save(f"{sys.argv[3]}/all.png")
np.savez(f"{sys.argv[3]}/values.npz", **values)
assert "torch" not in sys.modules
"""


def check_without_torch(python: list[str], run: Path, file: Path, folder_root: Path, tmp_path: Path) -> None:
    image = folder_root / "images/im07.png"
    tmp_path.joinpath("out").mkdir()
    program = tmp_path / "program.py"
    program.write_text((WITHOUT if len(python) == 1 and python[0] == sys.executable else "") + PREDICT)
    done = subprocess.run(
        [*python, program, file, image, tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found, expected = np.load(tmp_path / "out/values.npz"), tasktokens.load(run, device="cpu").predict(image)
    for name in expected:
        if found[name].dtype != np.uint8:
            np.testing.assert_allclose(found[name], expected[name].value, atol=1e-4, rtol=1e-4)
        else:
            assert np.mean(found[name] != expected[name].value) < 1e-3
        np.testing.assert_allclose(found[f"{name}.confidence"], expected[name].confidence, atol=1e-4)
        assert list((tmp_path / "out" / name).glob("one.*"))
    assert (tmp_path / "out/all.png").stat().st_size > 0


def test_it_predicts_where_nothing_else_can_be_imported(
    run: Path, file: Path, folder_root: Path, tmp_path: Path
) -> None:
    check_without_torch([sys.executable], run, file, folder_root, tmp_path)


def test_the_command_predicts_there_too(run: Path, file: Path, folder_root: Path, tmp_path: Path) -> None:
    """With typer (and what it needs), PyYAML and filelock beside NumPy, Pillow and ONNX Runtime."""
    program, image = tmp_path / "verb.py", folder_root / "images/im07.png"
    allowed = 'FOR_VERBS = {"typer", "rich", "pydantic", "yaml", "filelock"}'
    program.write_text(f"{WITHOUT.replace('FOR_VERBS = set()', allowed)}\nfrom tasktokens.cli import main\nmain()\n")
    command = [sys.executable, program, "predict", file, image, "-q", "--out", tmp_path / "file"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[-2000:]) == (0, "")
    tasktokens.predict(run, image, tmp_path / "run", quiet=True)
    assert_same_folder(tmp_path / "run", tmp_path / "file", same_font=False)  # it comes with matplotlib
    done = subprocess.run([*command, "--overwrite", "--tile", "64"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "this needs torch" in done.stderr


@pytest.mark.slow
def test_it_predicts_in_an_environment_of_three_packages(
    run: Path, file: Path, folder_root: Path, tmp_path: Path
) -> None:
    """NumPy, Pillow, ONNX Runtime and this package's files, nothing else."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = str(tmp_path / "env/bin/python")
    installed = subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "pillow", "onnxruntime"], check=False)
    if installed.returncode != 0:
        pytest.skip("no package index can be reached")
    source = Path(tasktokens.__file__).parents[1]
    subprocess.run(
        [python, "-c", f"import site; open(site.getsitepackages()[0] + '/t.pth', 'w').write({str(source)!r})"]
    )
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode != 0
    check_without_torch([python], run, file, folder_root, tmp_path)
