"""Cameras, surface normals computed from a depth map, and depth maps without their quantisation stairs.

Frame: x right, y down, z forward. Pixel centres lie at integer coordinates, u to the right and v down, so the pixel
(u, v) at depth z is the point ``z * ((u - cx) / fx, (v - cy) / fy, 1)``. Normals have unit length and point towards
the camera: the dot product with the viewing ray is negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

FloatArray = NDArray[np.float64]

MIN_ROUNDNESS = 1e-3
"""Smallest allowed ratio of the two variances of a window's pixels: thinner supports are lines and fix no plane."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion; all four numbers are in pixels, pixel centres at integer coordinates.

    Attributes:
        fx, fy: focal lengths along x and y.
        cx, cy: the principal point.

    Raises:
        ValueError: a focal length is not positive.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if not (self.fx > 0 and self.fy > 0):
            raise ValueError(f"focal lengths must be positive, found fx={self.fx}, fy={self.fy}")

    def scaled(self, sx: float, sy: float) -> Camera:
        """Return the camera of the same picture resized by ``sx`` in width and ``sy`` in height (new / old size).

        The corner of the picture, at -0.5, stays where it is; so a centre moves as ``cx' = (cx + 0.5) * sx - 0.5``.
        """
        return Camera(self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5)


def normals_from_depth(
    depth: NDArray[np.floating],
    camera: Camera,
    half_window: int = 7,
    layer_step: float = 0.10,
    min_share: float = 0.05,
) -> NDArray[np.float32]:
    """Fit a plane around every pixel of a depth map and return the planes' normals.

    On a plane 1/z is exactly linear in the viewing ray, ``1/z = a*(u-cx)/fx + b*(v-cy)/fy + c``, and (a, b, c) is the
    normal up to length and sign; so each window is one linear least-squares fit out of a few box filters. Depths are
    cut into overlapping layers with moments of their own, and a pixel is fitted with the layer in whose middle it
    lies, so a window across a depth edge takes only pixels near the depth of its centre.

    Args:
        depth: (H, W) metres along z; 0, negative, NaN and infinite are invalid.
        camera: the camera of this very size of picture.
        half_window: a window is ``2 * half_window + 1`` pixels per side, at least 1.
        layer_step: distance of the layers in log depth; a window reaches between one half and three halves of it
            (so 5 % to 15 % of the depth at 0.1) to either side of its centre's depth.
        min_share: pixels whose window has less than this share of usable pixels, 0..1, are invalid.

    Returns:
        (H, W, 3) float32 unit normals facing the camera; (0, 0, 0) where the depth is invalid or no plane fits.

    Raises:
        ValueError: ``depth`` is not two-dimensional, or a setting is out of its range.
    """
    _check_map(depth)
    if half_window < 1 or layer_step <= 0 or not 0 <= min_share <= 1:
        raise ValueError(
            "expected half_window >= 1, layer_step > 0 and min_share in 0..1, "
            f"found {half_window}, {layer_step} and {min_share}"
        )
    normals = np.zeros((*depth.shape, 3), np.float32)
    valid = np.isfinite(depth) & (depth > 0)
    if not valid.any():
        return normals

    ray_x, ray_y = _rays(depth.shape, camera)
    inverse = np.zeros(depth.shape)
    inverse[valid] = 1 / depth[valid].astype(np.float64)
    position = np.full(depth.shape, -np.inf)  # in units of layers; layer k is centred at k
    position[valid] = -np.log(inverse[valid]) / layer_step
    nearest = np.rint(position)

    for layer in np.unique(nearest[valid]):
        centres = nearest == layer
        rows, columns = _box(centres, half_window)
        inside = np.abs(position[rows, columns] - layer) <= 1
        planes, share = _fit_planes(inside, inverse[rows, columns], ray_x[:, columns], ray_y[rows], half_window)
        fitted = centres[rows, columns] & (share >= min_share)
        normals[rows, columns][fitted] = planes[fitted]

    length = np.linalg.norm(normals, axis=2)
    fitted = length > 0
    # (a, b, c) . ray = 1/z > 0 where the plane fits its centre: the sign that faces the camera is the other one.
    away = normals[..., 0] * ray_x + normals[..., 1] * ray_y + normals[..., 2] > 0
    normals[fitted] /= np.where(away, -length, length)[fitted, None]
    return normals


def facing(normals_3HW: NDArray[np.floating], camera: Camera) -> NDArray[np.bool_]:
    """Where a normal points to the camera rather than away from it, (H, W); ``camera`` is that of this very size."""
    ray_x, ray_y = _rays(normals_3HW.shape[1:], camera)
    towards: NDArray[np.bool_] = normals_3HW[0] * ray_x + normals_3HW[1] * ray_y + normals_3HW[2] < 0
    return towards


def dequantise_depth(depth: NDArray[np.floating], step: float) -> NDArray[np.float32]:
    """Smooth the staircase out of a coarsely quantised depth map, without leaving any stair.

    Every depth may move within its own interval of ``step`` only, towards the mean of the two pixels at equal distance
    on either side of it (first far, then near; along rows and columns; only where both are at most one stair away).
    So slopes become slopes again, an edge of more than one stair stays where it was, and no value changes by more
    than half a step. Without this, a surface that is nearly parallel to the picture is flat stairs, and a window
    within one stair sees no slope at all.

    Args:
        depth: (H, W) metres at the middle of their intervals; 0, negative, NaN and infinite are invalid.
        step: the width of an interval in metres, above 0.

    Returns:
        (H, W) float32 metres, at most ``step / 2`` from ``depth``; 0 where the depth is invalid.

    Raises:
        ValueError: ``depth`` is not two-dimensional, or ``step`` is not positive.
    """
    _check_map(depth)
    if not step > 0:
        raise ValueError(f"step must be positive, found {step}")
    valid = np.isfinite(depth) & (depth > 0)
    middle = np.where(valid, depth, 0).astype(np.float32)
    smooth = middle.copy()
    for distance in (32, 16, 8, 4, 2, 1):
        alike = [_alike(middle, valid, distance, 1.5 * step), _alike(middle.T, valid.T, distance, 1.5 * step).T]
        count = alike[0] + alike[1]
        for _ in range(2):
            total = _side_means(smooth, distance) * alike[0] + _side_means(smooth.T, distance).T * alike[1]
            smooth = np.where(count > 0, (smooth + total / np.maximum(count, 1)) / 2, smooth)
            smooth = np.clip(smooth, middle - step / 2, middle + step / 2)
    return np.where(valid, smooth, np.float32(0)).astype(np.float32)


def _check_map(depth: NDArray[np.floating]) -> None:
    if depth.ndim != 2:
        raise ValueError(f"depth must have the shape (H, W), found {depth.shape}")


def _rays(shape: tuple[int, ...], camera: Camera) -> tuple[FloatArray, FloatArray]:
    """x (1, W) and y (H, 1) of the pixels' viewing rays, whose z is 1."""
    height, width = shape
    ray_x = (np.arange(width, dtype=np.float64)[None, :] - camera.cx) / camera.fx
    ray_y = (np.arange(height, dtype=np.float64)[:, None] - camera.cy) / camera.fy
    return ray_x, ray_y


def _alike(depth: NDArray[np.float32], valid: NDArray[np.bool_], distance: int, limit: float) -> NDArray[np.float32]:
    """Return 1 where the pixels ``distance`` rows above and below both exist, are valid and within ``limit`` metres."""
    alike = np.zeros(depth.shape, np.float32)
    if depth.shape[0] > 2 * distance:
        near = (np.abs(depth[distance:] - depth[:-distance]) < limit) & valid[distance:] & valid[:-distance]
        alike[distance:-distance] = near[:-distance] & near[distance:]
    return alike


def _side_means(depth: NDArray[np.float32], distance: int) -> NDArray[np.float32]:
    """Return the mean of the pixels ``distance`` rows above and below, (H, W); 0 where one of them does not exist."""
    means = np.zeros_like(depth)
    if depth.shape[0] > 2 * distance:
        means[distance:-distance] = (depth[: -2 * distance] + depth[2 * distance :]) / 2
    return means


def _box(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest box around a non-empty mask, widened by ``margin`` pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1),
    )


def _fit_planes(
    inside: NDArray[np.bool_], inverse: FloatArray, ray_x: FloatArray, ray_y: FloatArray, half_window: int
) -> tuple[FloatArray, FloatArray]:
    """Fit ``inverse = a*ray_x + b*ray_y + c`` over the window of every pixel, from the pixels ``inside`` alone.

    ``inside`` and ``inverse`` are (H, W), ``ray_x`` is (1, W), ``ray_y`` is (H, 1). Returns (a, b, c) as (H, W, 3),
    zeros where the pixels fix no plane, and the share of the window that is inside, (H, W) in 0..1.
    """

    def along(image: FloatArray, axis: int) -> FloatArray:
        return np.asarray(uniform_filter1d(image, 2 * half_window + 1, axis=axis, mode="constant"))

    weight = inside.astype(np.float64)
    target = weight * inverse
    # ray_y is the same along a row: it is multiplied in after the horizontal filters, which spares four of them.
    row_1, row_x, row_xx = along(weight, 1), along(weight * ray_x, 1), along(weight * ray_x**2, 1)
    row_w, row_xw = along(target, 1), along(target * ray_x, 1)
    share = along(row_1, 0)
    count = np.maximum(share, 1e-9)
    x, y, w = along(row_x, 0) / count, along(row_1 * ray_y, 0) / count, along(row_w, 0) / count
    xx = along(row_xx, 0) / count - x * x
    xy = along(row_x * ray_y, 0) / count - x * y
    yy = along(row_1 * ray_y**2, 0) / count - y * y
    xw = along(row_xw, 0) / count - x * w
    yw = along(row_w * ray_y, 0) / count - y * w

    determinant = xx * yy - xy * xy
    # A single pixel has no variance but rounding errors; three pixels in a corner have more than 1e-9 up to f = 20000.
    spread = np.maximum(xx + yy, 1e-9)
    fixed = (share > 1e-9) & (determinant > MIN_ROUNDNESS * spread**2)
    safe = np.where(fixed, determinant, 1.0)
    a = (xw * yy - yw * xy) / safe
    b = (yw * xx - xw * xy) / safe
    planes = np.stack((a, b, w - a * x - b * y), axis=-1)
    planes[~fixed] = 0
    return planes, share
