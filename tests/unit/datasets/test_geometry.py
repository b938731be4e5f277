"""Cameras and normals from depth: synthetic planes with known answers, and one genuine sample where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tasktokens.datasets.geometry import Camera, dequantise_depth, normals_from_depth

CAMERA = Camera(fx=150.0, fy=152.0, cx=77.3, cy=61.8)
SHAPE = (120, 160)
NYU_CAMERA = Camera(fx=518.858, fy=519.470, cx=325.582, cy=253.736)


def rays(camera: Camera = CAMERA, shape: tuple[int, int] = SHAPE) -> NDArray[np.float64]:
    """Return the viewing rays (H, W, 3) with z = 1."""
    v, u = np.mgrid[: shape[0], : shape[1]]
    return np.stack(((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(shape)), axis=-1)


def plane(normal: tuple[float, float, float], distance: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the unit normal, and the depth (H, W) of the plane that crosses the optical axis at ``distance``."""
    unit = np.array(normal) / np.linalg.norm(normal)
    return unit, unit[2] * distance / (rays() @ unit)


def degrees_between(normals: NDArray[np.float32], expected: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the angles (H, W) in degrees; the chord keeps the accuracy that arccos loses near 0."""
    chord = np.linalg.norm(normals.astype(np.float64) - expected, axis=-1)
    return np.asarray(np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1))))


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.3, -0.2, -1), (-0.6, 0.1, -0.8), (0, -0.7, -0.7), (0.5, 0.6, -0.6)])
@pytest.mark.parametrize("distance", [0.9, 2.0, 7.0])
def test_a_plane_gives_its_normal_everywhere(normal: tuple[float, float, float], distance: float) -> None:
    expected, depth = plane(normal, distance)
    depth[(depth <= 0) | (depth > 12)] = 0
    # Grazing parts cross several layers within a few pixels; a window must still see a fair share of a layer.
    steep = np.abs(np.gradient(np.log(np.where(depth > 0, depth, 1)))).max(0) > 0.01
    normals = normals_from_depth(depth, CAMERA)
    seen = (depth > 0) & ~steep
    assert seen.mean() > 0.3
    assert degrees_between(normals, expected)[seen].max() < 0.1


def test_float32_depth_and_a_border_window_are_as_exact() -> None:
    expected, depth = plane((0.3, -0.2, -1), 2.0)
    angle = degrees_between(normals_from_depth(depth.astype(np.float32), CAMERA), expected)
    assert angle[[0, -1]].max() < 0.1
    assert angle[:, [0, -1]].max() < 0.1


def test_two_planes_with_a_depth_step_do_not_smear() -> None:
    near_normal, near = plane((0.3, 0, -1), 1.5)
    far_normal, far = plane((-0.3, -0.3, -1), 3.5)
    left = np.arange(SHAPE[1])[None, :] < 80
    normals = normals_from_depth(np.where(left, near, far), CAMERA)
    expected = np.where(left[..., None], near_normal, far_normal)
    assert degrees_between(normals, expected).max() < 0.1


def test_invalid_pixels_have_no_normal_and_disturb_no_neighbour() -> None:
    expected, depth = plane((0.3, -0.2, -1), 2.0)
    bad = np.zeros(SHAPE, bool)
    bad[30:40, 50:70] = bad[::17, ::13] = True
    depth[bad] = np.resize([0, np.nan, np.inf, -1], int(bad.sum()))
    normals = normals_from_depth(depth, CAMERA)
    assert np.all(normals[bad] == 0)
    assert degrees_between(normals, expected)[~bad].max() < 0.1


def test_what_fixes_no_plane_has_no_normal() -> None:
    assert not normals_from_depth(np.zeros(SHAPE), CAMERA).any()
    alone = np.zeros(SHAPE)
    alone[40, 40] = 2.0
    line = np.zeros(SHAPE)
    line[60] = 2.0
    for depth in (alone, line):
        assert not normals_from_depth(depth, CAMERA, min_share=0).any()


def test_normals_have_unit_length_and_face_the_camera() -> None:
    random = np.random.default_rng(0)
    depth = 2 + np.cumsum(random.normal(0, 0.01, SHAPE), axis=1) + random.normal(0, 0.01, SHAPE)
    normals = normals_from_depth(depth, CAMERA)
    seen = np.linalg.norm(normals, axis=-1) > 0
    assert normals.dtype == np.float32
    assert normals.shape == (*SHAPE, 3)
    assert seen.mean() > 0.95
    np.testing.assert_allclose(np.linalg.norm(normals[seen], axis=-1), 1, atol=1e-5)
    assert ((normals * rays()).sum(-1)[seen] < 1e-6).all()


def test_the_input_is_not_changed() -> None:
    depth = plane((0.3, -0.2, -1), 2.0)[1]
    depth[3, 4] = 0
    before = depth.copy()
    normals_from_depth(depth, CAMERA)
    dequantise_depth(depth, 0.04)
    np.testing.assert_array_equal(depth, before)


@pytest.mark.parametrize("setting", [{"half_window": 0}, {"layer_step": 0.0}, {"min_share": 1.5}])
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        normals_from_depth(np.ones(SHAPE), CAMERA, **setting)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        normals_from_depth(np.ones((2, *SHAPE)), CAMERA)


def test_a_scaled_camera_keeps_the_rays_of_the_scaled_picture() -> None:
    scaled = NYU_CAMERA.scaled(0.6, 0.6)
    assert scaled.fx == pytest.approx(311.3148)
    assert scaled.fy == pytest.approx(311.682)
    assert scaled.cx == pytest.approx((325.582 + 0.5) * 0.6 - 0.5)
    # Halving averages two pixels: the centre of the first new pixel lies between the old pixels 0 and 1.
    half = CAMERA.scaled(0.5, 0.25)
    assert (0 - half.cx) / half.fx == pytest.approx((0.5 - CAMERA.cx) / CAMERA.fx)
    assert (0 - half.cy) / half.fy == pytest.approx((1.5 - CAMERA.cy) / CAMERA.fy)
    back = half.scaled(2, 4)
    np.testing.assert_allclose([back.fx, back.fy, back.cx, back.cy], [CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy])


def test_a_camera_without_focal_length_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        Camera(0, 1, 2, 3)


def test_dequantised_depths_stay_in_their_interval_and_lose_their_stairs() -> None:
    step = 0.04
    expected, depth = plane((0.1, -0.15, -1), 1.2)
    stairs = (np.floor(depth / step) + 0.5) * step
    stairs[50:60, 50:60] = 0
    smooth = dequantise_depth(stairs, step)
    valid = stairs > 0
    assert np.abs(smooth - stairs)[valid].max() <= step / 2 + 1e-6
    assert (smooth[~valid] == 0).all()
    assert smooth.dtype == np.float32
    rough = degrees_between(normals_from_depth(stairs, CAMERA), expected)[valid]
    mended = degrees_between(normals_from_depth(smooth, CAMERA), expected)[valid]
    assert np.median(mended) < 2 < np.median(rough)


def test_dequantising_keeps_edges_and_refuses_nonsense() -> None:
    depth = np.where(np.arange(SHAPE[1])[None, :] < 80, 1.0, 2.0) * np.ones(SHAPE)
    np.testing.assert_allclose(dequantise_depth(depth, 0.04), depth, atol=1e-6)
    assert dequantise_depth(np.ones((1, 2)), 0.04).shape == (1, 2)
    with pytest.raises(ValueError, match="step"):
        dequantise_depth(depth, 0)
    with pytest.raises(ValueError, match="shape"):
        dequantise_depth(depth[0], 0.04)


def shared_data() -> Path:
    """Return the folder of genuine samples, or skip the test."""
    beside_the_repository = Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = Path(os.environ.get("TASKTOKENS_SHARED_DATA", beside_the_repository))
    if not (folder / "nyud_samples" / "norm_gt_000433.png").is_file():
        pytest.skip("genuine samples not found: set TASKTOKENS_SHARED_DATA to the folder that holds nyud_samples")
    return folder


@pytest.mark.parametrize("source", ["8 bit", "16 bit"])
def test_a_genuine_image_agrees_with_its_published_normals(source: str) -> None:
    samples = shared_data() / "nyud_samples"
    size = (384, 288)
    with Image.open(samples / "norm_gt_000433.png") as image:
        published = np.asarray(image.resize(size, Image.Resampling.NEAREST)).astype(np.float64) * 2 / 255 - 1
    labelled = np.linalg.norm(published, axis=-1) > 0.5
    expected = np.stack((published[..., 0], -published[..., 2], published[..., 1]), axis=-1)
    expected /= np.maximum(np.linalg.norm(expected, axis=-1, keepdims=True), 1e-9)

    if source == "8 bit":
        path = shared_data() / "nyuv2" / "depth" / "0433.png"
        if not path.is_file():
            pytest.skip("genuine samples not found: nyuv2/depth/0433.png is missing in the folder of samples")
        with Image.open(path) as image:
            depth = dequantise_depth((np.asarray(image) + 0.5) / 25.5, 1 / 25.5)
    else:
        with Image.open(samples / "depth_gt_000433.png") as image:
            metres = (np.asarray(image) / 5000).astype(np.float32)
        depth = np.asarray(Image.fromarray(metres).resize(size, Image.Resampling.NEAREST))

    normals = normals_from_depth(depth, NYU_CAMERA.scaled(0.6, 0.6), half_window=6)
    seen = np.linalg.norm(normals, axis=-1) > 0
    angle = degrees_between(normals, expected)[labelled & seen]
    # Measured: 8 bit 4.5 (mean 7.9, 84.6 % under 11.25), 16 bit 2.6 (mean 5.0, 91.3 %).
    assert np.median(angle) < 5.5
    assert angle.mean() < 11
    assert (angle < 11.25).mean() > 0.76
