"""Every format gives back every pixel that it was given, "no label" included, whatever classes are called."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasktokens.datasets.formats import FORMATS, ExportItem, Vocabulary, open_archive
from tasktokens.datasets.formats.base import VOID
from tasktokens.errors import DataError

NAMES = ("floor", 'wall & <b> "x"', "Küche 厨房", "void")
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9))


def write(path: Path, name: str, items: list[ExportItem], words: Vocabulary) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        FORMATS[name]().write(out, words, iter(items))
    return path


def item(id: str, classes: Any, confidence: Any = None) -> ExportItem:
    return ExportItem(id, f"{id}.png", classes, confidence, "discovered")


def read(path: Path, name: str, items: list[ExportItem], words: Vocabulary) -> dict[str, Any]:
    """What a file says of each image, in the numbers of the vocabulary, where nothing is no label."""
    with open_archive(path) as archive:
        assert [each for each in FORMATS if FORMATS[each]().recognises(archive)] == [name]
        found = FORMATS[name]().read(archive)
        numbers = [words.names.index(label) if label in words.names else VOID for label in found.names]
        table = np.array([*numbers, VOID, VOID])
        by_name = {entry.name.removesuffix(".png"): entry for entry in found.entries}
        return {each.id: table[by_name[each.id].draw(each.size)] for each in items}


@pytest.mark.parametrize("name", list(FORMATS))
@settings(max_examples=25)
@given(data=st.data())
def test_every_pixel_comes_back(name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    words = Vocabulary("semseg", NAMES, COLOURS)
    sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
    maps = st.lists(arrays(np.int16, sizes, elements=st.integers(VOID, len(NAMES) - 1)), min_size=1, max_size=3)
    items = [item(f"a b/ü{number}.x", classes) for number, classes in enumerate(data.draw(maps))]
    path = write(tmp_path_factory.mktemp("zip") / "annotations.zip", name, items, words)
    for id, classes in read(path, name, items, words).items():
        assert (classes == next(each.classes for each in items if each.id == id)).all()


@pytest.mark.parametrize("width", [9, 11, 13])
def test_a_hole_whose_cut_runs_through_centres_of_pixels_comes_back(width: int, tmp_path: Path) -> None:
    classes = np.ones((6, width), np.int16)
    classes[1, 2] = 0
    words = Vocabulary("semseg", NAMES, COLOURS)
    items = [item("a", classes)]
    assert (read(write(tmp_path / "a.zip", "yolo", items, words), "yolo", items, words)["a"] == classes).all()


@pytest.mark.parametrize("name", list(FORMATS))
def test_as_many_classes_as_there_may_be(name: str, tmp_path: Path) -> None:
    count = 256
    words = Vocabulary("many", tuple(f"c{n}" for n in range(count)), tuple((n, 255 - n, 7) for n in range(count)))
    classes = np.arange(count, dtype=np.int16).reshape(16, 16)
    items = [item("full", classes)]
    found = read(write(tmp_path / "full.zip", name, items, words), name, items, words)
    assert (found["full"] == classes).all()
    with_void = classes.copy()
    with_void[0, 0] = VOID
    items = [item("full", with_void)]
    if name in ("cityscapes_png", "voc", "parquet"):  # eight bits cannot hold 257 values
        with pytest.raises(DataError, match="8 bits"):
            write(tmp_path / "void.zip", name, items, words)
    else:
        assert (read(write(tmp_path / "void.zip", name, items, words), name, items, words)["full"] == with_void).all()


@pytest.mark.parametrize("name", list(FORMATS))
def test_the_same_labels_make_the_same_bytes(name: str, tmp_path: Path) -> None:
    words = Vocabulary("semseg", NAMES[:3], COLOURS[:3])
    classes = np.array([[0, 1], [2, VOID]], np.int16)
    first, second = (write(tmp_path / f"{n}.zip", name, [item("a", classes)], words).read_bytes() for n in "12")
    assert first == second


@pytest.mark.parametrize("name", ["cvat", "label_studio", "coco", "panoptic", "parquet"])
def test_confidence_and_source_are_told(name: str, tmp_path: Path) -> None:
    words = Vocabulary("semseg", NAMES[:2], COLOURS[:2])
    confidence = np.array([[0.25, 0.75], [1.0, 1.0]], np.float32)
    items = [item("a", np.array([[0, 0], [1, 1]], np.int16), confidence)]
    path = write(tmp_path / "a.zip", name, items, words)
    with zipfile.ZipFile(path) as file:
        content = b"".join(file.read(each) for each in file.namelist())
    assert b"discovered" in content
    if name != "parquet":
        assert b"0.5" in content  # the mean of the first class
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        (tmp_path / "a.parquet").write_bytes(zipfile.ZipFile(path).read("data/train-00000-of-00001.parquet"))
        assert parquet.read_table(tmp_path / "a.parquet")["score"].to_pylist() == [0.75]


def test_a_class_that_needs_the_name_of_a_decision_is_refused(tmp_path: Path) -> None:
    words = Vocabulary("semseg", ("accepted",), ((1, 2, 3),))
    with pytest.raises(DataError, match="rename"):
        write(tmp_path / "a.zip", "cvat", [item("a", np.zeros((2, 2), np.int16))], words)


def test_cvat_is_read_by_its_own_library_of_masks(tmp_path: Path) -> None:
    masks = pytest.importorskip("cvat_sdk.masks")
    from xml.etree import ElementTree

    words = Vocabulary("semseg", NAMES[:2], COLOURS[:2])
    classes = np.random.default_rng(0).integers(-1, 2, (9, 7)).astype(np.int16)
    path = write(tmp_path / "a.zip", "cvat", [item("a", classes)], words)
    root = ElementTree.fromstring(zipfile.ZipFile(path).read("annotations.xml"))
    drawn = np.full(classes.shape, -9)
    for mask in root.iter("mask"):
        left, top, width, height = (int(mask.get(key, "")) for key in ("left", "top", "width", "height"))
        encoded = [*map(int, mask.get("rle", "").split(",")), left, top, left + width - 1, top + height - 1]
        found = masks.decode_mask(encoded, image_width=7, image_height=9)
        drawn[found] = words.names.index(mask.get("label")) if mask.get("label") in words.names else VOID
    assert (drawn == classes).all()
