"""Resizing in NumPy is torch's, on all sizes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tasktokens.utils.resizing import columns_between, resize_pixels, rows_between, working_size

SIDES = st.integers(1, 90)


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 9))
def test_pixels_are_bit_for_bit_those_of_torch(
    height: int, width: int, to_height: int, to_width: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = F.interpolate(tensor, (to_height, to_width), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    np.testing.assert_array_equal(resize_pixels(image, (to_height, to_width)), expected.numpy())


@given(SIDES, SIDES, SIDES, SIDES)
def test_maps_in_bands_are_those_of_torch(height: int, width: int, to_height: int, to_width: int) -> None:
    maps = np.random.default_rng(height).normal(size=(2, height, width)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(maps)[None], (to_height, to_width), mode="bilinear")[0].numpy()
    middle = to_height // 2
    bands = [rows_between(maps, to_height, 0, middle), rows_between(maps, to_height, middle, to_height)]
    found = columns_between(np.concatenate(bands, axis=1), to_width)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_working_size_is_the_trained_one_or_whole_strides(height: int, width: int) -> None:
    found = working_size((height, width), (96, 128))
    assert found == (96, 128) or (found[0] % 32 == 0 == found[1] % 32 and min(found) >= 32)
