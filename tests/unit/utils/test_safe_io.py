"""What others wrote is not trusted: nothing runs, fills memory, leads out of a folder or asks the network."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from conftest import run_cli
from tasktokens.config import load_config, parse_config, read_yaml
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.index import DatasetIndex, image_size, read_image
from tasktokens.datasets.manifest import read_manifest
from tasktokens.datasets.pascal_context.labels import read_label_map
from tasktokens.errors import CheckpointError, ConfigError, DataError, LabelError, TaskTokensError, WeightsError
from tasktokens.inference.evaluate import evaluate
from tasktokens.inference.image_listing import find_images
from tasktokens.inference.predict import predict
from tasktokens.models.backbones import Backbone
from tasktokens.models.files import read_info, read_tensors
from tasktokens.tasks import build_task
from tasktokens.tasks.files import read_array
from tasktokens.training.trainer import train
from tasktokens.utils.safe_io import MAX_PIXELS, MAX_ROWS, MAX_YAML_VALUES, dump_yaml, load_json, load_yaml

MakeConfig = Callable[..., Any]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def npy_header(shape: str, kind: str = "<f4") -> bytes:
    """An npy that claims a shape and holds 64 bytes."""
    head = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head + bytes(64)


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(path: Path, member: bytes, name: str = "arr_0.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, member)
    return path


# -- sizes -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (2**31 - 1, 1), (12_000, 12_000)])
def test_a_picture_that_claims_too_much_is_refused_undecoded(width: int, height: int, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(width, height))
    for read, kind in ((read_image, DataError), (image_size, DataError), (read_array, LabelError)):
        with pytest.raises(kind, match=rf"bomb\.png cannot be read \(it claims .*more than 134217728.*{MAX_PIXELS}"):
            read(path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("(1000000, 1000000)", "claims 1000000x1000000 pixels"),
        (f"({2**35}, {2**35})", "pixels"),
        ("(40, 56)", "claims 8960 bytes"),
        ("(4, 4, 1000000000)", "bytes"),
        ("(-4, 4)", "shape"),
    ],
)
def test_an_array_that_claims_too_much_is_refused_before_memory_is_asked_for(
    shape: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.npy").write_bytes(npy_header(shape))
    for path in (tmp_path / "a.npy", npz(tmp_path / "a.npz", npy_header(shape))):
        for read, kind in ((read_image, DataError), (read_array, LabelError)):
            with pytest.raises(kind, match=rf"a\.np.*{message}"):
                read(path)


def test_the_limit_is_an_environment_variable_and_holds_for_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    for ending in ("png", "tif", "jpg", "bmp", "webp"):
        Image.fromarray(image).save(tmp_path / f"a.{ending}")
    np.save(tmp_path / "a.npy", image)
    np.savez_compressed(tmp_path / "a.npz", image)
    savemat(tmp_path / "a.mat", {"LabelMap": np.zeros((100, 300), np.uint16)}, do_compression=True)
    paths = [path for path in sorted(tmp_path.iterdir()) if path.suffix != ".mat"]
    monkeypatch.setenv(MAX_PIXELS, "600")
    assert all(read_image(path).shape == (20, 30, 3) for path in paths)
    monkeypatch.setenv(MAX_PIXELS, "599")
    for path in paths:
        with pytest.raises(DataError, match="30x20 pixels, more than 599"):
            read_image(path)
    with pytest.raises(LabelError, match="unpacks to more than"):
        read_label_map(tmp_path / "a.mat")
    monkeypatch.setenv(MAX_PIXELS, "30000")
    assert read_label_map(tmp_path / "a.mat").shape == (100, 300)


@pytest.mark.parametrize("value", ["0", "-5", "many", "1e9"])
def test_a_limit_that_is_no_number_is_named(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_PIXELS, value)
    Image.new("RGB", (5, 5)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=f"{MAX_PIXELS} must be a whole number above 0, found '{value}'"):
        read_image(tmp_path / "a.png")


def test_a_higher_limit_lifts_that_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    (tmp_path / "large.png").write_bytes(png_header(20_000, 20_000))
    monkeypatch.setenv(MAX_PIXELS, str(20_000 * 20_000))
    assert image_size(tmp_path / "large.png") == (20_000, 20_000)


def test_an_archive_that_unpacks_to_zeros_for_ever_is_not_unpacked(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", bytes(2**20), name="arr_0")
    with pytest.raises(LabelError, match="magic string"):
        read_array(path)


def test_a_table_with_too_many_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    (tmp_path / "t.csv").write_text("image\n" + "a.png\n" * 5)
    write_table(pyarrow.table({"image": ["a.png"] * 5}), tmp_path / "t.parquet")
    monkeypatch.setenv(MAX_ROWS, "4")
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(DataError, match=f"{name} has more than 4 rows; if that is meant, set {MAX_ROWS} higher"):
            read_manifest(tmp_path / name, [], [".png"], [])
    write_table(pyarrow.table({"image": ["a" * 10_000 + ".png"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="unpacks to"):
        read_manifest(tmp_path / "t.parquet", [], [".png"], [])


# -- what is not data --------------------------------------------------------------------------------------------------
def test_only_formats_that_no_other_program_draws_are_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="cannot identify image file"):
        read_image(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_refused_and_not_waited_for(own_folder: Path, tmp_path: Path) -> None:
    for number, ending in enumerate((".png", ".npy", ".npz", ".safetensors")):
        os.mkfifo(tmp_path / f"pipe{ending}")
        (tmp_path / f"device{ending}").symlink_to("/dev/zero")
        for name in ("pipe", "device"):
            read = read_tensors if number == 3 else read_array
            with pytest.raises(TaskTokensError, match="no ordinary file"):
                read(tmp_path / f"{name}{ending}")
    os.mkfifo(tmp_path / "model.json")
    with pytest.raises(CheckpointError):
        read_info(tmp_path)


@pytest.mark.parametrize("array", [np.full((4, 4), "wall"), np.ones((4, 4), complex), np.ones((4, 4), "M8[s]")])
def test_arrays_of_anything_but_real_numbers_are_label_errors(array: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    for task in ("depth", "edge", "regression", "classes"):
        spec = {"depth": {"range": [1, 2]}, "regression": {"range": [0, 1]}, "classes": {"classes": ["a"]}}.get(
            task, {}
        )
        with pytest.raises(LabelError, match=r"a\.npy must hold real numbers"):
            build_task("t", {"kind": task, **spec}).read(tmp_path / "a.npy")


class Hostile:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_no_pickle_is_loaded_wherever_it_lies(own_folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    content = pickle.dumps(Hostile(trace))
    array = np.array([[Hostile(trace)]], object)
    np.save(tmp_path / "object.npy", array, allow_pickle=True)
    np.savez(tmp_path / "object.npz", array)
    for name in ("a.png", "a.npy", "a.npz"):
        (tmp_path / name).write_bytes(content)
    for name in ("object.npy", "object.npz", "a.png", "a.npy", "a.npz"):
        with pytest.raises(LabelError, match="cannot be read"):
            read_array(tmp_path / name)
    torch.save({"x": Hostile(trace)}, tmp_path / "weights.pth")
    (tmp_path / "plain.pth").write_bytes(content)
    for name in ("weights.pth", "plain.pth"):
        with pytest.raises(WeightsError, match="do not fit"):
            Backbone("test_resnet", weights=tmp_path / name)
    for text in (f"data: !!python/object/apply:os.mkdir [{trace}]", "data: !!python/name:os.system"):
        with pytest.raises(ValueError, match="could not determine a constructor"):
            load_yaml(text)
    assert not trace.exists()


def test_weights_of_a_backbone_come_from_plain_tensors(tmp_path: Path) -> None:
    own = Backbone("test_resnet")
    torch.save(own.network.state_dict(), tmp_path / "w.pth")
    again = Backbone("test_resnet", weights=tmp_path / "w.pth")
    assert all(torch.equal(a, b) for a, b in zip(own.state_dict().values(), again.state_dict().values(), strict=True))
    assert "state_dict" not in again.network.pretrained_cfg


# -- text --------------------------------------------------------------------------------------------------------------
LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 10)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        MERGES,
        "a: &a [*a]",
        "[" * 100_000,
        "{a: " * 60 + "1" + "}" * 60,
        "x" * 2**21,
        "a: !!int x",
        "a: !!timestamp x",
        "a: " + "9" * 5000,
        "a: \x07",
        "--- 1\n--- 2",
    ],
    ids=["laughs", "merges", "loop", "brackets", "braces", "long", "int", "time", "digits", "bell", "two"],
)
def test_yaml_that_would_multiply_or_is_odd_is_a_short_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\w") as raised:
        load_yaml(text)
    assert len(str(raised.value)) < 500
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml cannot be read as YAML"):
        read_yaml(tmp_path / "c.yaml")


def test_ordinary_anchors_and_merges_of_yaml_stay() -> None:
    text = "base: &base {lr: 1, steps: [1, 2]}\nown:\n  <<: *base\n  lr: 2\nagain: *base\n"
    assert load_yaml(text) == yaml.safe_load(text)
    assert load_yaml("") is None
    assert len(load_yaml(str(list(range(MAX_YAML_VALUES // 2))))) == MAX_YAML_VALUES // 2


def test_json_that_nests_too_deeply_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="nests too deeply"):
        load_json("[" * 100_000)


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "seed=1e30",
        "data.size=[1e9, 1e9]",
        "data.workers=1000000",
        "model.width=1000000000",
        "optim.lr=.inf",
        "optim.clip=.nan",
        'run.dir="a\\0b"',
        'data.root="\\ud800"',
        "run.threads=1000000",
        "data.augmentation.scale=[1, .inf]",
    ],
)
def test_absurd_settings_are_config_errors(override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0].replace(".", r"\.")):
        load_config(None, [override])


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": ["depth"]},
        {"kind": {"a": 1}},
        {"kind": "depth", "range": [1, 10], "bins": 10**9},
        {"kind": "depth", "range": [1, 10], "scale": float("inf")},
        {"kind": "edge", "weight": float("inf")},
        {"kind": "classes", "classes": ["a"], "void": [float("inf")]},
        {"kind": "normals", "centres": 10**9},
    ],
)
def test_absurd_tasks_are_config_errors(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="task 't'"):
        build_task("t", spec)


def test_bins_that_the_zoom_would_multiply_beyond_measure_are_a_config_error() -> None:
    task = build_task("t", {"kind": "depth", "range": [1, 1.0000001], "bins": 4000})
    with pytest.raises(ConfigError, match="wider range or fewer bins"):
        task.widened((0.5, 2.0))


def test_a_long_wrong_value_is_shortened_in_the_message() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config({"seed": "x" * 10**6, "data": {"size": [[["y"] * 10**5]]}})
    assert len(str(raised.value)) < 3000


# -- paths -------------------------------------------------------------------------------------------------------------
BAD_IDS = ["../x", "a/../../x", "/etc/x", "a//b", "a/.", "..", "a\nb", "a\0b", "\udcff", "a\u2028b", ""]


@pytest.mark.parametrize("id", BAD_IDS)
def test_an_id_that_could_lead_out_of_a_folder_is_refused(id: str, folder_root: Path) -> None:
    good = open_folder(folder_root)
    image = next(iter(good.images.values()))
    with pytest.raises(DataError, match=r"has the id .*; rename the file|cannot be part of a file's name"):
        replace(good, images={**good.images, id: image})
    if id not in ("a//b", "a/.", "a/../../x"):
        with pytest.raises(DataError, match=r"cannot be"):
            replace(good, splits={**good.splits, id: ()})


@pytest.mark.parametrize("id", ["a", "a/b", ".hidden", "a..b", "..a", "写真/ü 1", "a b", "%s", "-x", "a." * 50])
def test_ordinary_ids_are_taken(id: str, folder_root: Path) -> None:
    good = open_folder(folder_root)
    collection: DatasetIndex = replace(good, images={id: next(iter(good.images.values()))}, splits={})
    assert list(collection.images) == [id]


def test_a_split_cannot_name_a_file_outside_the_run(own_folder: Path) -> None:
    description = yaml.safe_load((own_folder / "dataset.yaml").read_text())
    description["splits"]["../../escaped"] = "test.txt"
    (own_folder / "dataset.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(DataError, match="cannot be part of a file's name"):
        open_folder(own_folder)


def test_a_pattern_cannot_lead_predictions_out_of_their_folder(folder_root: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"has the id 'a/\.\./\.\./secret'"):
        find_images([f"{tmp_path}/in/*/../../secret.png"])


@pytest.mark.skipif(os.name == "nt", reason="names that Windows does not allow")
def test_predicting_writes_into_its_folder_alone_whatever_files_are_called(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    run = train(make_config(folder_root, tmp_path / "run", method={"name": "mtl", "steps": 1}), quiet=True)
    source = tmp_path / "photos"
    for name in ("..x.png", "[red].png", "-q.png", "sub/..y..png", "ü 写.png", "~.png", "$HOME.png", "%2e%2e.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (200, 10, 30)).save(source / name)
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    pictures = predict(run, [source], tmp_path / "out", quiet=True)
    assert len(pictures) == 6, "what begins with a dot is passed over"
    assert {path for path in tmp_path.rglob("*") if "out" not in path.parts} == before
    assert all((tmp_path / "out") in path.resolve().parents for path in pictures)


# -- the network, and what the system refuses --------------------------------------------------------------------------
def test_nothing_asks_the_network_unless_pretrained_weights_are_wanted(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **settings: Any) -> Any:
        raise AssertionError(f"asked the network: {arguments}")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    config = make_config(folder_root, tmp_path / "run", **{"run.evaluate": "test"})
    run = train(config, quiet=True)
    evaluate(run, "train")
    predict(run, [folder_root / "images" / "im00.png"], tmp_path / "out", quiet=True)
    assert json.loads((run / "evaluation-test.json").read_text())


@pytest.mark.parametrize("words", [("evaluate", "a" * 300), ("runs", "b" * 300), ("check", "c" * 300)])
def test_what_the_system_refuses_is_one_sentence(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, errors = run_cli(capsys, *words)
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


# -- words and numbers of YAML -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "No", "YES", "n", "1e", "e5", "0o7x", "a1e3"])
def test_words_stay_words(word: str) -> None:
    assert load_yaml(f"classes: [{word}, {{{word}: {word}}}]") == {"classes": [word, {word: word}]}
    assert load_yaml(dump_yaml({word: [word]})) == {word: [word]}


@pytest.mark.parametrize(
    "text", ["1e-3", "1E5", "-2e+3", "1e10", ".5", "1.", "-1.5e-7", "+3.0", "65535", "-9999.9", "0", "-3.4028235e38"]
)
def test_numbers_are_numbers(text: str) -> None:
    value = load_yaml(f"scale: {text}")["scale"]
    assert isinstance(value, int | float)
    assert value == float(text)
    assert load_yaml(dump_yaml({"scale": value})) == {"scale": value}
    assert load_yaml(dump_yaml({"word": text})) == {"word": text}  # text that looks like a number stays text


@given(st.recursive(st.text(max_size=8) | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False),
                    lambda inner: st.lists(inner, max_size=3)))  # fmt: skip
def test_what_is_dumped_is_loaded_alike(value: object) -> None:
    assert load_yaml(dump_yaml({"value": value})) == {"value": value}
    assert load_yaml(dump_yaml({"value": value}, default_flow_style=True, width=10**9)) == {"value": value}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["<u1", "<u2", ">u2"])
def test_a_tiff_of_another_writer_has_its_pixels_or_is_refused(
    kind: str, planes: str, compression: str | None, channels: int, tmp_path: Path
) -> None:
    """Whatever lies beside what: written by tifffile, read by Pillow. 16 bits become 8."""
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    given = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (20, 30, channels)).astype(kind)
    path, more = tmp_path / "image.tif", {"photometric": "rgb"} if channels > 1 else {}
    if channels == 1:
        stored = given[..., 0]
    else:
        stored = np.moveaxis(given, -1, 0) if planes == "separate" else given
        more["planarconfig"] = planes
    tifffile.imwrite(path, stored, compression=compression, byteorder=kind[0], **more)
    if channels > 1 and planes == "separate" and compression is None and kind != "<u1":
        with pytest.raises(DataError, match="16 bits per channel in a plane"):
            read_image(path)
        return
    shown = given[..., :3].repeat(3 // min(channels, 3), axis=2).astype(float)
    assert np.abs(read_image(path) - (shown if kind == "<u1" else shown / 257)).max() <= 1
