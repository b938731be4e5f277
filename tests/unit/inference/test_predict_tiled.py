"""`predict` in tiles: the files of the arrays, whatever is stored how; what goes wrong leaves nothing half written."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import processes
import tasktokens
from conftest import run_cli
from tasktokens.errors import ConfigError, DataError, RunExistsError
from tasktokens.inference import label_pictures
from tasktokens.inference.image_rows import ArrayRows
from tasktokens.inference.predict_files import TiledWriter
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.tiles import Blended, choose_tiles
from tasktokens.tasks import build_task
from tasktokens.utils import pictures

TILE = {"tile": 96, "overlap": 32}
SIZE = (150, 203)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TIFF in tiles, and a small PNG in a folder."""
    root = tmp_path_factory.mktemp("photos")
    large = np.asarray(Image.effect_mandelbrot(SIZE[::-1], (-2, -1.5, 1, 1.5), 20).convert("RGB"))
    tifffile.imwrite(root / "large.tif", large, tile=(48, 64), compression="zlib", photometric="rgb")
    (root / "more").mkdir()
    Image.fromarray(large[:40, :56]).save(root / "more" / "small.png")
    return root


@pytest.fixture(scope="module")
def predicted(photos: Path, untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "predicted"
    tasktokens.predict(untrained, photos, out, quiet=True, **TILE)  # type: ignore[arg-type]
    return out


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


@pytest.mark.parametrize("id", ["large", "more/small"])
def test_files_hold_what_the_model_returns_for_the_array(
    id: str, photos: Path, predicted: Path, untrained: Path
) -> None:
    (source,) = photos.glob(f"{id}.*")
    result = tasktokens.load(untrained, "cpu").predict(source, **TILE)  # type: ignore[call-overload]
    for name, prediction in result.items():
        task = prediction.task
        value, valid = task.read(predicted / name / f"{id}.png")
        expected, _ = task.read(prediction.save(predicted.parent / "saved" / name / id))
        assert valid.all()
        np.testing.assert_array_equal(value, expected)
        confidence = np.asarray(Image.open(predicted / "confidence" / name / f"{id}.png"))
        np.testing.assert_array_equal(confidence, np.rint(prediction.confidence * 255).astype(np.uint8))


def test_the_folder_is_that_of_predict(photos: Path, predicted: Path, untrained: Path, tmp_path: Path) -> None:
    tasktokens.predict(untrained, photos, tmp_path / "whole", quiet=True)
    assert [name for name, _ in files(predicted)] == [name for name, _ in files(tmp_path / "whole")]
    for name in ("dataset.yaml", "classes.csv"):
        assert (predicted / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for picture in ("large", "more/small"):
        paths = [folder / "pictures" / f"{picture}.png" for folder in (predicted, tmp_path / "whole")]
        tiled, whole = (np.asarray(Image.open(path)) for path in paths)
        assert tiled.shape[1] == whole.shape[1]


def test_a_picture_shows_the_image_reduced(
    photos: Path, untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "LARGEST", 50)
    monkeypatch.setattr(label_pictures, "LARGEST", 50)
    tasktokens.predict(untrained, photos / "large.tif", tmp_path / "out", quiet=True, **TILE)  # type: ignore[arg-type]
    with Image.open(tmp_path / "out" / "pictures" / "large.png") as picture:
        assert picture.size[1] < SIZE[0] + 200
        drawn = np.asarray(picture)
    image = tifffile.imread(photos / "large.tif")
    shown = image[pictures.nearest_pixels(*SIZE)].repeat(2, 0).repeat(2, 1)
    found = any(
        (drawn[y : y + len(shown), x : x + shown.shape[1]] == shown).all() for y in range(60) for x in range(150)
    )
    assert found


def test_without_tiles_files_are_what_they_were(photos: Path, untrained: Path, tmp_path: Path) -> None:
    """Bit for bit those that the arrays of the predictor give when they are saved."""
    tasktokens.predict(untrained, photos, tmp_path / "out", quiet=True, pictures=False)
    predictor = Predictor(untrained, "cpu")
    for id, source in (("large", photos / "large.tif"), ("more/small", photos / "more" / "small.png")):
        for name, prediction in predictor(np.asarray(Image.open(source).convert("RGB"))).items():
            saved = prediction.save(tmp_path / "saved" / name / id)
            assert saved.read_bytes() == (tmp_path / "out" / name / f"{id}{saved.suffix}").read_bytes()


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "depth", "range": [0.5, 100], "scale": 0.001},
        {"kind": "depth", "range": [0.5, 20], "scale": 0.001},
        {"kind": "regression", "range": [-40, 60]},
        {"kind": "saliency", "void": [9]},
    ],
)
def test_numbers_of_other_types_are_written_as_without_tiles(
    spec: dict[str, Any], untrained: Path, tmp_path: Path
) -> None:
    """Also where the type depends on values that come last: integers, unless one of them does not fit."""
    from tasktokens.inference.image_files import ImageReader

    predictor, image = Predictor(untrained, "cpu"), np.zeros((*SIZE, 3), np.uint8)
    image[100:] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    task = build_task("some", spec)
    predictor.info = replace(predictor.info, tasks={"some": task})
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(task.num_tokens, 2)).astype(np.float32) * 8

    def logits(seen: Any) -> list[dict[str, Any]]:
        import torch

        dark = [(tile[:, :1, ::4, ::4] < 128).float() for tile in seen]
        first, second = torch.from_numpy(scores)[None, :, :, None, None].unbind(2)
        return [{"some": part * first + (1 - part) * second} for part in dark]

    predictor.logits = logits  # type: ignore[method-assign, assignment]
    tiles = choose_tiles(predictor.network, (32, 48), 64, 32)
    writer = TiledWriter(predictor, ImageReader({"a": tmp_path / "a.png"}), tmp_path / "out", False, tiles)
    assert writer.write("a", None, None)
    from tasktokens.inference.tiled import predict_tiled

    saved = predict_tiled(predictor, image, tiles)["some"]
    task.write(tmp_path / "whole.png", saved.value_CHW)
    (written,) = (tmp_path / "out" / "some").iterdir()
    (whole,) = tmp_path.glob("whole.*")
    assert written.suffix == whole.suffix
    np.testing.assert_array_equal(task.read(written)[0], task.read(whole)[0])


# -- what goes wrong ---------------------------------------------------------------------------------------------------
def test_an_image_that_cannot_be_read_is_named_and_the_others_are_written(
    photos: Path, untrained: Path, tmp_path: Path
) -> None:
    for file in photos.rglob("*.*"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / file.name).write_bytes(file.read_bytes())
    data = (tmp_path / "in" / "large.tif").read_bytes()
    (tmp_path / "in" / "large.tif").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(DataError, match=r"1 of 2 images were left out: image .*large\.tif cannot be read"):
        tasktokens.predict(untrained, tmp_path / "in", tmp_path / "out", quiet=True, **TILE)  # type: ignore[arg-type]
    names = [name for name, _ in files(tmp_path / "out")]
    assert "depth/small.png" in names
    assert not [name for name in names if "large" in name or "partial" in name]
    (tmp_path / "in" / "large.tif").write_bytes((photos / "large.tif").read_bytes())
    tasktokens.predict(untrained, tmp_path / "in", tmp_path / "out", quiet=True, **TILE)  # type: ignore[arg-type]
    assert (tmp_path / "out" / "depth" / "large.png").is_file()


def test_other_tiles_are_another_prediction(photos: Path, untrained: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError):
        tasktokens.predict(untrained, tmp_path / "in", tmp_path / "out", quiet=True, tile=64)
    with pytest.raises(RunExistsError, match="it had another choice of tiles"):
        tasktokens.predict(untrained, tmp_path / "in", tmp_path / "out", quiet=True, tile=96)


def interrupt_third() -> None:
    """Have the third tile interrupt its process, once: a second signal would end it at once."""
    add, calls = Blended._add, itertools.count()

    def interrupt(self: Blended, *arguments: Any) -> None:
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        add(self, *arguments)

    Blended._add = interrupt  # type: ignore[method-assign]


def test_a_signal_ends_a_large_image_between_two_rows_of_tiles(photos: Path, untrained: Path, tmp_path: Path) -> None:
    words = ("predict", untrained, photos / "large.tif", "--out", tmp_path / "out", "--tile", "64", "-q")
    ended = processes.run(*words, before=interrupt_third)
    assert ended.returncode == 130, ended.stderr
    assert "0 of 1 images are done; run the same command to resume" in ended.stderr
    assert not [name for name, _ in files(tmp_path / "out") if "large" in name or "partial" in name]
    assert processes.run(*words).returncode == 0
    assert (tmp_path / "out" / "semseg" / "large.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tile", "16"], "at least 32 pixels"),
        (["--tile", "500"], "give 480 or 512"),
        (["--tile", "64", "--overlap", "64"], "from 0 to 32"),
        (["--tile", "4x"], "HEIGHTxWIDTH"),
        (["--overlap", "4"], "give a tile"),
    ],
)
def test_bad_settings_are_one_sentence_and_write_nothing(
    words: list[str], message: str, photos: Path, untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = run_cli(capsys, "predict", untrained, photos, "--out", tmp_path / "out", *words)
    assert code == 2
    assert message in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--tile"], ["--tile", "auto"], ["--tile", "--overlap", "32"]])
def test_a_tile_without_a_size_is_of_the_training_size(
    words: list[str], photos: Path, untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = photos / "more" / "small.png"
    code, _, errors = run_cli(capsys, "predict", untrained, "-q", "--out", tmp_path / "out", *words, photo)
    assert (code, errors) == (0, "")
    assert (tmp_path / "out" / "depth" / "small.png").is_file()


def test_tiles_need_a_network_that_they_suit(untrained: Path) -> None:
    predictor = Predictor(untrained, "cpu")
    with pytest.raises(ConfigError, match="the network's stride"):
        choose_tiles(predictor.network, predictor.info.size, 40)
    assert ArrayRows(np.zeros((4, 5, 3), np.uint8)).width == 5


MEASURE = """
import resource, sys
import tasktokens
tasktokens.predict(sys.argv[1], sys.argv[2], sys.argv[3], quiet=True, tile=128)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_height_of_an_image(untrained: Path, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    found = []
    for height in (512, 4096):
        image = np.random.default_rng(0).integers(0, 256, (height, 1500, 3), dtype=np.uint8)
        tifffile.imwrite(tmp_path / f"{height}.tif", image, tile=(256, 256), compression="zlib", photometric="rgb")
        arguments = [untrained, tmp_path / f"{height}.tif", tmp_path / f"out{height}"]
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, *map(str, arguments)], stdout=subprocess.PIPE, check=True, text=True
        )
        found.append(int(done.stdout.split()[-1]))
    # The image alone would be 16 MB more, its values and confidences 200 MB; what the allocator keeps differs by 80.
    assert found[1] - found[0] < 120, found
