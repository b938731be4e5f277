"""Any bytes in place of a picture, a model or a log; any id."""

from __future__ import annotations

import json
import os
import posixpath
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from any_input import examples, plain, quick
from tasktokens.datasets.index import read_image
from tasktokens.errors import CheckpointError, DataError, LabelError
from tasktokens.models.files import read_info
from tasktokens.tasks import build_task
from tasktokens.tasks.files import read_array
from tasktokens.training.log import read_rows
from tasktokens.utils.listing import check_id

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


@examples(150)
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
