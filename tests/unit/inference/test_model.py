"""A trained model in a user's hands: what may be given to it, what comes back, and what that can do."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tasktokens
from tasktokens.errors import CheckpointError, ConfigError, DataError
from tasktokens.inference.inputs import as_image
from tasktokens.tasks import build_task


@pytest.fixture(scope="module")
def run(folder_root: Path, make_config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps on all five tasks of the tiny data set."""
    config = make_config(
        folder_root, tmp_path_factory.mktemp("runs") / "run",
        **{"method": {"name": "htt", "stage1_steps": 2, "stage2_steps": 0}, "model.backbone": "test_resnet"},
    )  # fmt: skip
    return tasktokens.train(config, quiet=True)


@pytest.fixture(scope="module")
def model(run: Path) -> tasktokens.Model:
    return tasktokens.load(run, device="cpu")


def draw(seed: int, height: int = 40, width: int = 56) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_same(left: tasktokens.Result, right: tasktokens.Result) -> None:
    np.testing.assert_array_equal(left.image, right.image)
    assert list(left) == list(right)
    for name in left:
        np.testing.assert_array_equal(left[name].value, right[name].value)
        np.testing.assert_array_equal(left[name].confidence, right[name].confidence)


# -- what may be given -------------------------------------------------------------------------------------------------
FORMS: dict[str, Callable[[Any, Path], Any]] = {
    "text": lambda image, path: str(path),
    "path": lambda image, path: path,
    "PIL": lambda image, path: Image.fromarray(image),
    "PIL with alpha": lambda image, path: Image.fromarray(np.dstack([image, image[..., 0]])),
    "array": lambda image, path: image,
    "array with alpha": lambda image, path: np.dstack([image, image[..., :1]]),
    "array of 16 bits": lambda image, path: image.astype(np.uint16) * 257,
    "view with negative strides": lambda image, path: np.ascontiguousarray(image[:, ::-1])[:, ::-1],
    "tensor": lambda image, path: torch.from_numpy(image).permute(2, 0, 1),
    "contiguous tensor": lambda image, path: torch.from_numpy(image).permute(2, 0, 1).contiguous(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_gives_the_same(form: str, model: tasktokens.Model, tmp_path: Path) -> None:
    image = draw(1)
    Image.fromarray(image).save(tmp_path / "image.png")
    result = model.predict(FORMS[form](image, tmp_path / "image.png"))
    assert_same(result, model.predict(image))
    assert result.path == (tmp_path / "image.png" if form in ("text", "path") else None)


@pytest.mark.parametrize("grey", [draw(2)[..., 0], draw(2)[..., :1]], ids=["plane", "one channel"])
def test_grey_is_repeated(grey: Any, model: tasktokens.Model) -> None:
    repeated = np.stack([grey.reshape(40, 56)] * 3, axis=-1)
    assert_same(model.predict(grey), model.predict(repeated))
    assert_same(model.predict(Image.fromarray(grey.reshape(40, 56))), model.predict(repeated))
    assert_same(model.predict(torch.from_numpy(grey.reshape(1, 40, 56))), model.predict(repeated))


FLOATS, OTHERS = [np.float16, np.float32, np.float64], [bool, np.int8, np.int32, np.int64, np.uint32]
WRONG: list[Any] = [
    *(pytest.param(draw(0).astype(dtype) / 255, "expected uint8", id=np.dtype(dtype).name) for dtype in FLOATS),
    *(
        pytest.param(draw(0).astype(d), "8 or 16 bits", id=np.dtype(d).name)
        for d in (bool, np.int8, np.int32, np.int64)
    ),
    pytest.param(torch.rand(3, 40, 56), "to.torch.uint8", id="tensor of floats"),
    pytest.param(torch.zeros(3, 40, 56, dtype=torch.int64), "8 or 16 bits", id="tensor of int64"),
    pytest.param(torch.zeros(40, 56, 3, dtype=torch.uint8), "permute", id="tensor with channels last"),
    pytest.param(torch.zeros(40, 56, dtype=torch.uint8), "the shape .3, H, W.", id="tensor of a plane"),
    pytest.param(np.zeros((3, 40, 56), np.uint8), "transpose", id="array with channels first"),
    pytest.param(np.zeros((40, 56, 2), np.uint8), "grey or RGB", id="two channels"),
    pytest.param(np.zeros(5, np.uint8), "grey or RGB", id="a line"),
    pytest.param(np.zeros((0, 56, 3), np.uint8), "no pixels", id="no rows"),
    pytest.param("missing.png", "does not exist", id="missing"),
    pytest.param(".", "is a folder", id="folder"),
    pytest.param(None, "found NoneType", id="None"),
    pytest.param(7, "found int", id="number"),
]


@pytest.mark.parametrize(("image", "message"), WRONG)
def test_what_is_no_image_is_refused_in_one_sentence(image: Any, message: str, model: tasktokens.Model) -> None:
    for given in ([image], image):
        with pytest.raises(DataError, match=message) as caught:
            model.predict(given)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp"])
def test_a_picture_that_breaks_off_is_a_sentence(ending: str, model: tasktokens.Model, tmp_path: Path) -> None:
    path = tmp_path / f"image.{ending}"
    Image.fromarray(draw(0, 200, 300)).save(path)
    with Image.open(path) as image:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    for given in (path, str(path)):
        with pytest.raises(DataError, match="cannot be read"):
            model.predict(given)
    with Image.open(path) as broken, pytest.raises(DataError, match="cannot be read"):
        model.predict(broken)
    with pytest.raises(DataError, match="cannot be read"):
        model.predict(image)  # closed


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I;16", "I", "F"])
def test_pictures_of_every_mode_are_taken_as_their_files_are(
    mode: str, model: tasktokens.Model, tmp_path: Path
) -> None:
    picture = Image.fromarray(draw(1))
    picture = picture.convert(mode) if mode not in ("I;16", "LAB") else Image.new(mode, (56, 40))
    if mode in ("I", "F"):
        with pytest.raises(DataError, match=r"8 or 16 bits|expected uint8"):
            model.predict(picture)
        return
    taken = as_image(picture)
    if mode == "I;16":
        np.testing.assert_array_equal(taken, np.zeros((40, 56, 3), np.uint8))
        return
    np.testing.assert_array_equal(taken, np.asarray(picture.convert("RGB")))
    if mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        picture.save(tmp_path / "image.png")
        np.testing.assert_array_equal(as_image(tmp_path / "image.png"), taken)


@pytest.mark.parametrize("scheme", ["http", "https", "ftp", "s3", "gs", "hf", "HTTPS", "file"])
def test_nothing_is_fetched(scheme: str) -> None:
    with pytest.raises(DataError, match="only local files"):
        as_image(f"{scheme}://example.org/image.png")


# -- several of them ---------------------------------------------------------------------------------------------------
SIZES = [(40, 56), (64, 48), (40, 56), (33, 90), (40, 56)]


@pytest.mark.parametrize("views", [1, 2])
def test_many_images_give_exactly_what_each_gives_alone(views: int, run: Path) -> None:
    model = tasktokens.load(run, "cpu", views)
    images = [draw(seed, *size) for seed, size in enumerate(SIZES)]
    alone = [model.predict(image) for image in images]
    for form in (list, tuple):
        together = model.predict(form(images))
        assert isinstance(together, list)
        for left, right in zip(together, alone, strict=True):
            assert_same(left, right)


def test_a_batch_through_the_network_agrees_but_for_rounding(model: tasktokens.Model) -> None:
    images = [draw(seed, *size) for seed, size in enumerate(SIZES)]
    for left, right in zip(model.predict(images, batch_size=4), model.predict(images), strict=True):
        np.testing.assert_array_equal(left.image, right.image)
        for name in left:
            np.testing.assert_allclose(left[name].confidence, right[name].confidence, atol=1e-5)
            if name != "semseg":
                np.testing.assert_allclose(left[name].value, right[name].value, atol=1e-4)
        assert (left["semseg"].value == right["semseg"].value).mean() > 0.999


def test_batched_arrays_and_tensors(model: tasktokens.Model) -> None:
    images = np.stack([draw(seed) for seed in range(3)])
    alone = [model.predict(image) for image in images]
    for given in (images, torch.from_numpy(images).permute(0, 3, 1, 2)):
        for left, right in zip(model.predict(given), alone, strict=True):
            assert_same(left, right)
    assert model.predict([]) == []
    assert model.predict(images[:0]) == []


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_generator_is_read_as_far_as_needed(batch_size: int, model: tasktokens.Model) -> None:
    read: list[int] = []

    def images() -> Iterator[Any]:
        for seed in range(5):
            read.append(seed)
            yield draw(seed)

    results = model.predict(images(), batch_size=batch_size)
    assert not read
    assert_same(next(results), model.predict(draw(0))) if batch_size == 1 else next(results)
    assert len(read) == batch_size
    assert len(list(results)) == 4


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_images(batch_size: int, model: tasktokens.Model) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        model.predict(draw(0), batch_size=batch_size)


# -- what comes back ---------------------------------------------------------------------------------------------------
def test_values_have_the_size_of_the_image_and_the_units_of_the_task(model: tasktokens.Model) -> None:
    result = model.predict(draw(3, 47, 61))
    assert isinstance(result, tasktokens.Result)
    assert result.tasks == dict(model.tasks)
    assert len(result) == 5
    for prediction in result.values():
        assert prediction.confidence.shape == (47, 61)
        assert prediction.confidence.dtype == np.float32
        assert 0 <= prediction.confidence.min() <= prediction.confidence.max() <= 1
    assert result["semseg"].value.dtype == np.uint8
    assert result["semseg"].value.max() < len(result["semseg"].task.class_names() or ())
    assert result["depth"].value.shape == (47, 61)
    assert (result["depth"].value > 0).all()
    assert result["normals"].value.shape == (47, 61, 3)
    np.testing.assert_allclose(np.linalg.norm(result["normals"].value, axis=-1), 1, atol=1e-3)
    assert 0 <= result["edge"].value.min() <= result["edge"].value.max() <= 1


def test_valid_compares_the_confidence(model: tasktokens.Model) -> None:
    for prediction in model.predict(draw(4)).values():
        np.testing.assert_array_equal(prediction.valid(), prediction.confidence > prediction.task.threshold)
        middle = float(np.median(prediction.confidence))
        np.testing.assert_array_equal(prediction.valid(middle), prediction.confidence > middle)
        assert not prediction.valid(1).any()
        for threshold in (-0.1, 1.1, float("nan"), 80):
            with pytest.raises(ConfigError, match="from 0 to 1"):
                prediction.valid(threshold)


QUANTISED = {"semseg": 0, "depth": 6e-4, "normals": 8e-3, "edge": 2.1e-3, "saliency": 2.1e-3}
"""Half a step of each format of files; normals are made unit vectors again."""


@pytest.mark.parametrize("masked", [False, True])
def test_a_saved_label_is_read_back(masked: bool, model: tasktokens.Model, tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((40, 56)) < 0.5 if masked else None
    for name, prediction in model.predict(draw(5)).items():
        path = prediction.save(tmp_path / "new" / name, mask)
        assert path == tmp_path / "new" / f"{name}.png"
        assert prediction.save(str(tmp_path / f"{name}.png"), mask) == tmp_path / f"{name}.png"
        assert path.read_bytes() == (tmp_path / f"{name}.png").read_bytes()
        value, valid = prediction.task.read(path)
        np.testing.assert_array_equal(valid, np.ones((40, 56), bool) if mask is None else mask)
        difference = np.abs(value.astype(float) - prediction.value_CHW)[:, valid]
        assert difference.max() <= QUANTISED[name]
    assert not list(tmp_path.rglob(".saving*"))


KINDS: dict[str, tuple[dict[str, Any], str, float]] = {
    "classes": ({"kind": "classes", "classes": ["a", "b", "c"]}, ".png", 0),
    "classes with ids": ({"kind": "classes", "classes": ["a", "b"], "ids": {7: "a", 300: "b"}, "void": [0]}, ".png", 0),
    "classes in colours": (
        {"kind": "classes", "classes": ["a", "b"], "colours": [[255, 0, 0], [0, 0, 255]], "void_colours": [[0, 0, 0]]},
        ".png", 0,
    ),
    "depth": ({"kind": "depth", "range": [0.5, 10]}, ".png", 6e-4),
    "inverse depth": ({"kind": "depth", "range": [0.004, 0.5], "inverse": True}, ".png", 1e-5),
    "depth with offset": ({"kind": "depth", "range": [1, 80], "scale": 0.01, "offset": -1}, ".png", 6e-3),
    "normals": ({"kind": "normals", "centres": 12}, ".png", 8e-3),
    "edge": ({"kind": "edge"}, ".png", 2.1e-3),
    "saliency": ({"kind": "saliency"}, ".png", 2.1e-3),
    "binary": ({"kind": "binary"}, ".png", 2.1e-3),
    "regression": ({"kind": "regression", "range": [-40, 60]}, ".npy", 1e-5),
    "vectors": ({"kind": "vectors"}, ".png", 8e-3),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_labels_of_every_kind_are_read_back(kind: str, seed: int, tmp_path: Path) -> None:
    spec, ending, step = KINDS[kind]
    task, rng = build_task("own", spec), np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 3, (1, task.num_tokens, 9, 13)).astype(np.float32))
    confidence = rng.random((9, 13)).astype(np.float32)
    prediction = tasktokens.Prediction(task, task.decode(logits)[0].numpy(), confidence)
    mask = rng.random((9, 13)) < 0.7
    path = prediction.save(tmp_path / "label", mask)
    assert path.name == f"label{ending}"
    value, valid = task.read(path)
    np.testing.assert_array_equal(valid, mask)
    assert np.abs(value.astype(float) - prediction.value_CHW)[:, mask].max() <= step
    assert prediction.value.shape[:2] == (9, 13)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_saving_a_result_writes_what_the_verb_writes(run: Path, model: tasktokens.Model, tmp_path: Path) -> None:
    Image.fromarray(draw(6)).save(tmp_path / "a.b.png")
    tasktokens.predict(run, tmp_path / "a.b.png", tmp_path / "verb", quiet=True)
    paths = model.predict(tmp_path / "a.b.png").save(tmp_path / "own")
    assert [path.relative_to(tmp_path / "own").as_posix() for path in paths] == [f"{n}/a.b.png" for n in model.tasks]
    for path in paths:
        assert path.read_bytes() == (tmp_path / "verb" / path.relative_to(tmp_path / "own")).read_bytes()
    assert model.predict(draw(6)).save(tmp_path / "named", "x")[0] == tmp_path / "named/semseg/x.png"


def test_saving_refuses_what_could_not_be_read_back(model: tasktokens.Model, tmp_path: Path) -> None:
    depth = model.predict(draw(7))["depth"]
    with pytest.raises(ConfigError, match=r"are .png files"):
        depth.save(tmp_path / "depth.npy")
    for valid in (np.ones((40, 56)), np.ones((56, 40), bool)):
        with pytest.raises(DataError, match="valid must be bool"):
            depth.save(tmp_path / "depth.png", valid)
    far = build_task("depth", {"kind": "depth", "range": [1, 100], "scale": 0.001})
    with pytest.raises(ConfigError, match=r"are .npy files"):  # of metres: 16 bits at this scale end at 65 m
        replace(depth, task=far, value_CHW=np.full((1, 40, 56), 90, np.float32)).save(tmp_path / "far.png")
    assert list(tmp_path.iterdir()) == []
    near = replace(depth, task=far, value_CHW=np.full((1, 40, 56), 50, np.float32)).save(tmp_path / "near.png")
    assert far.read(near)[0].max() == pytest.approx(50)


def test_pictures_and_notebooks(model: tasktokens.Model) -> None:
    result = model.predict(draw(8))
    for name, prediction in result.items():
        picture = prediction.picture()
        assert picture.size == (56, 40)
        np.testing.assert_array_equal(np.asarray(picture), prediction.task.colourise(prediction.value_CHW))
        assert np.asarray(Image.open(io.BytesIO(prediction._repr_png_()))).shape == (40, 56, 3)
        assert name in repr(prediction)
        void = np.asarray(prediction.picture(np.zeros((40, 56), bool)))
        assert len(np.unique(void.reshape(-1, 3), axis=0)) == 1
    assert Image.open(io.BytesIO(result._repr_png_())).width > 6 * 56
    page = result._repr_html_()
    assert page.count("<img") == 6
    assert all(name in page for name in result)
    assert "40x56" in repr(result)


def test_a_notebook_gets_pictures_of_a_bounded_size(model: tasktokens.Model) -> None:
    result = model.predict(draw(8, 600, 1500))
    assert result["depth"].picture().size == (1500, 600)
    assert Image.open(io.BytesIO(result["depth"]._repr_png_())).size == (480, 192)
    colours = {tuple(colour) for colour in np.asarray(result["semseg"].picture()).reshape(-1, 3)}
    shown = np.asarray(Image.open(io.BytesIO(result["semseg"]._repr_png_())))
    assert {tuple(colour) for colour in shown.reshape(-1, 3)} <= colours
    assert Image.open(io.BytesIO(result._repr_png_())).width < 7 * 520


def test_a_task_that_is_not_there(model: tasktokens.Model) -> None:
    result = model.predict(draw(9))
    with pytest.raises(KeyError, match="did you mean 'depth'"):
        result["depht"]
    assert "flow" not in result


# -- loading -----------------------------------------------------------------------------------------------------------
def test_a_run_its_model_folder_and_text_mean_the_same(run: Path) -> None:
    expected = tasktokens.load(run).predict(draw(10))
    for path in (str(run), run / "model", str(run / "model")):
        assert_same(tasktokens.load(path).predict(draw(10)), expected)
    assert "trained at 32x48" in repr(tasktokens.load(run))


def test_what_cannot_be_loaded(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no trained model"):
        tasktokens.load(str(tmp_path))
    (tmp_path / "config.yaml").touch()  # as a run has it from its first step on
    for path in (tmp_path, tmp_path / "model"):
        with pytest.raises(CheckpointError, match=f"interrupted .*--resume run.dir={tmp_path}'"):
            tasktokens.load(path)
    for device in ("gpu9", "cuda:99", "meta9"):
        with pytest.raises(ConfigError, match="device"):
            tasktokens.load(run, device=device)
    with pytest.raises(ConfigError, match="views"):
        tasktokens.load(run, views=3)
