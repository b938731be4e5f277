"""The model that ships: whole, small, licensed, called `demo`, and right enough to look at."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import tasktokens
from conftest import run_cli
from tasktokens.errors import CheckpointError, WeightsError
from tasktokens.hub.shipped import shipped_model
from tasktokens.inference.model import Model
from tasktokens.models.files import load_model

PHOTOS = Path(tasktokens.__file__).parent / "assets" / "photos"
TASKS = {"semseg", "depth", "normals", "edge", "saliency", "human_parts"}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(shipped_model(), device="cpu")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_photo(path: Path) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 56, 3), np.uint8)).save(path)
    return path


# -- the files ---------------------------------------------------------------------------------------------------------
def test_its_files_are_those_of_the_manifest_and_small() -> None:
    manifest = json.loads((shipped_model() / "manifest.json").read_text())
    assert {"model.safetensors", "model.json", "NOTICE", "LICENSE"} == set(manifest)
    for name, entry in manifest.items():
        content = (shipped_model() / name).read_bytes()
        assert (len(content), sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"]), name
    assert sum(path.stat().st_size for path in shipped_model().iterdir()) <= 12_000_000


def test_it_is_stored_in_half_precision_and_read_in_single() -> None:
    stored = load_file(shipped_model() / "model.safetensors")
    assert {str(value.dtype) for value in stored.values()} == {"float16", "int64"}
    assert all(np.isfinite(value).all() for value in stored.values())
    network, _ = load_model(shipped_model())
    for name, value in network.state_dict().items():
        assert str(value.dtype) in ("torch.float32", "torch.int64"), name
        np.testing.assert_array_equal(value.numpy(), stored[name].astype(value.numpy().dtype), err_msg=name)


def test_no_classifier_of_the_backbone_ships() -> None:
    names = load_file(shipped_model() / "model.safetensors").keys()
    assert not [name for name in names if "classifier" in name or "conv_head" in name]


# -- what it says of photographs ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("photo", ["coffee", pytest.param("astronaut", marks=pytest.mark.slow)])
def test_all_tasks_of_a_photograph_have_values_in_their_ranges(model: Model, photo: str) -> None:
    result = model.predict(PHOTOS / f"{photo}.jpg")
    assert set(result) == TASKS
    size = result.image.shape[:2]
    for name, found in result.items():
        assert found.value.shape[:2] == size, name
        assert np.isfinite(found.value).all(), name
        assert found.confidence.shape == size
        assert 0 <= found.confidence.min() <= found.confidence.max() <= 1, name
        assert np.ptp(found.confidence) > 0.05, f"{name} is as sure of one pixel as of the next"
    depth, normals = result["depth"].value, result["normals"].value
    assert 0.5 <= depth.min() < depth.max() <= 10
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-4)
    for name in ("semseg", "human_parts"):
        assert result[name].value.max() < len(result[name].task.class_names()), name
    for name in ("edge", "saliency"):
        assert 0 <= result[name].value.min() < result[name].value.max() <= 1, name


# -- its name ----------------------------------------------------------------------------------------------------------
def test_demo_names_it_where_nothing_else_is_called_so(
    elsewhere: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = write_photo(elsewhere / "photo.png")
    code, _, err = run_cli(capsys, "predict", "demo", photo, "--quiet")
    assert code == 0, err
    assert (elsewhere / "predictions" / "depth" / "photo.png").is_file()
    expected = model.predict(photo)["depth"].value
    np.testing.assert_array_equal(tasktokens.load("demo", device="cpu").predict(photo)["depth"].value, expected)


@pytest.mark.slow
def test_demo_can_be_explained(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run_cli(capsys, "explain", "demo", write_photo(elsewhere / "photo.png"), "--quiet")
    assert code == 0, err
    assert list((elsewhere / "explanations").glob("photo*"))


@pytest.mark.parametrize("place", ["demo", "demo/model"])
def test_a_folder_of_that_name_comes_before_it(elsewhere: Path, place: str) -> None:
    folder = elsewhere / place
    folder.mkdir(parents=True)
    shutil.copy(shipped_model() / "model.safetensors", folder)
    described = json.loads((shipped_model() / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(described | {"size": [64, 96]}))
    assert load_model("demo")[1].size == (64, 96)


def test_a_folder_of_that_name_without_a_model_is_refused_in_a_sentence(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "demo").mkdir()
    code, _, err = run_cli(capsys, "predict", "demo", write_photo(elsewhere / "photo.png"))
    assert code == 2
    assert "Traceback" not in err
    assert "ships with TaskTokens only where nothing else is called so" in " ".join(err.split())
    assert not (elsewhere / "predictions").exists()


def test_another_name_says_nothing_of_it(elsewhere: Path) -> None:
    with pytest.raises(CheckpointError) as found:
        load_model("runs/demo")
    assert "ships with" not in str(found.value)


# -- its backbone ------------------------------------------------------------------------------------------------------
def test_its_backbone_starts_another_network(elsewhere: Path) -> None:
    tasks = {"depth": {"kind": "depth", "range": [0.5, 10]}}
    network = tasktokens.create_model("mtl", tasks, "tf_efficientnet_lite0", weights="demo", width=16)
    stored = load_file(shipped_model() / "model.safetensors")
    own = {name: value for name, value in network.state_dict().items() if name.startswith("backbone.")}
    assert own
    for name, value in own.items():
        np.testing.assert_array_equal(value.numpy(), stored[name].astype(value.numpy().dtype), err_msg=name)


def test_it_starts_no_other_kind_of_backbone(elsewhere: Path) -> None:
    tasks = {"depth": {"kind": "depth", "range": [0.5, 10]}}
    with pytest.raises(WeightsError, match="do not fit resnet10t"):
        tasktokens.create_model("mtl", tasks, "resnet10t", weights="demo", width=16)
