"""Run lengths and polygons hold every mask; against pycocotools, and against hand-written examples."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasktokens.datasets.formats.polygons import fill_polygon, trace_mask
from tasktokens.datasets.formats.runs import brush_bytes, brush_mask, coco_counts, coco_mask, flat_mask, run_lengths

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(MASKS)
def test_run_lengths_hold_a_mask(mask: Any) -> None:
    lengths = run_lengths(mask.ravel())
    assert sum(lengths) == mask.size
    assert all(length > 0 for length in lengths[1:])
    assert (flat_mask(lengths, mask.size).reshape(mask.shape) == mask).all()


@given(MASKS)
def test_coco_counts_are_those_of_pycocotools(mask: Any) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    counts = coco_counts(mask)
    assert coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode() == counts
    assert (coco_mask(counts, *mask.shape) == mask).all()
    assert (coco_mask(run_lengths(mask.ravel(order="F")), *mask.shape) == mask).all()


@given(MASKS)
def test_brushes_hold_a_mask(mask: Any) -> None:
    assert (brush_mask(brush_bytes(mask), *mask.shape) == mask).all()


def test_a_brush_of_label_studio_is_read() -> None:
    # 4 RGBA pixels, bit by bit: 16 values of 8 bits, sizes 3, 4, 8, 16; a run of 8 x 0, then 8 values that are listed.
    bits = f"{16:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "1" + "00" + "111" + "0" * 8 + "0" + "00" + "111"
    bits += "11111111" * 4 + "00000000" * 4
    bits += "0" * (-len(bits) % 8)
    values = [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]
    assert brush_mask(values, 2, 2).tolist() == [[False, False], [True, False]]


def test_a_long_run_of_a_brush_is_cut_into_parts() -> None:
    mask = np.zeros((300, 300), bool)
    mask[100:] = True  # runs of more than 65536 values
    assert (brush_mask(brush_bytes(mask), 300, 300) == mask).all()


@given(MASKS)
def test_polygons_hold_a_mask_with_its_holes(mask: Any) -> None:
    drawn = np.zeros(mask.shape, int)
    for line in trace_mask(mask):
        drawn += fill_polygon(np.array(line, float), *mask.shape)
    assert (drawn == mask).all()  # each pixel once


def test_pixels_whose_centres_are_inside_belong_to_a_polygon() -> None:
    triangle = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    y, x = np.mgrid[:4, :4] + 0.5
    assert (fill_polygon(triangle, 4, 4) == (x + y < 4)).all()
    outside = np.array([[-3.0, -3.0], [9.0, -3.0], [9.0, 9.0], [-3.0, 9.0]])
    assert fill_polygon(outside, 4, 5).all()


@pytest.mark.parametrize("lengths", [[5], [3, -1, 2], [2, 3], []])
def test_run_lengths_that_do_not_add_up_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="add up"):
        flat_mask(lengths, 4)


@given(st.lists(st.integers(0, 255), max_size=40))
def test_damaged_brushes_end_in_an_error_or_in_a_mask(values: list[int]) -> None:
    with contextlib.suppress(ValueError):
        assert brush_mask(values, 3, 3).shape == (3, 3)


@given(st.text(max_size=30))
def test_damaged_counts_end_in_an_error_or_in_a_mask(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert coco_mask(text, 3, 3).shape == (3, 3)
