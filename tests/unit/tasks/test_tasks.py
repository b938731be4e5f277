"""Tasks as values: files, geometry, losses, decoding, confidence."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from properties import random_label
from tasktokens.errors import ConfigError, LabelError
from tasktokens.losses import masked_loss
from tasktokens.tasks import (
    KINDS,
    Binary,
    Depth,
    Edge,
    Normals,
    Regression,
    Saliency,
    Segmentation,
    Task,
    Vectors,
    build_task,
)
from tasktokens.tasks.base import distribution, expectation

SEMSEG = Segmentation("semseg", classes=("sky", "road", "car", "person"), void=(255, 9))
DEPTH = Depth("depth", minimum=0.5, maximum=8.0, bins=12)
NORMALS = Normals("normals", centres_count=20)
EDGE, SALIENCY = Edge("edge"), Saliency("saliency")
BINARY = Binary("binary", positive_weight=0.8)
HEAT = Regression("heat", minimum=-20.0, maximum=60.0, unit="°C", bins=17)
FLOW = Vectors("flow", centres_count=32, flip_signs=(-1, 1, -1))
ALL = [SEMSEG, DEPTH, NORMALS, EDGE, SALIENCY, BINARY, HEAT, FLOW]
every_task = pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
SIZE = (9, 14)


def only_file(path: Path) -> Path:
    """What was written for a path, whatever its ending."""
    (found,) = path.parent.glob(f"{path.stem}.*")
    return found


def logits_like(task: Task, seed: int = 0, factor: float = 3.0) -> torch.Tensor:
    return torch.randn(2, task.num_tokens, *SIZE, generator=torch.Generator().manual_seed(seed)) * factor


# -- files -------------------------------------------------------------------------------------------------------------
@every_task
def test_a_written_label_is_read_back_with_its_void(task: Task, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    value, valid = random_label(task, SIZE, rng).numpy(), rng.random(SIZE) > 0.3
    path = tmp_path / "new" / "label.png"
    task.write(path, value, valid)
    read, read_valid = task.read(only_file(path))
    assert read.shape == value.shape
    assert np.array_equal(read_valid, valid)
    assert np.isfinite(read).all()
    tolerance = {
        "semseg": 0, "depth": 0.0005, "normals": 1.5 / 127.5, "edge": 0.5 / 255, "saliency": 0.5 / 255,
        "binary": 0.5 / 255, "heat": 0, "flow": 1.5 / 127.5,
    }[task.name]  # fmt: skip
    assert np.abs(read - value)[:, valid].max() <= tolerance + 1e-6
    if task in (NORMALS, FLOW):
        np.testing.assert_allclose(np.linalg.norm(read, axis=0), 1, atol=1e-5)


@every_task
def test_without_a_mask_every_written_pixel_is_valid(task: Task, tmp_path: Path) -> None:
    task.write(tmp_path / "label.png", random_label(task, SIZE, np.random.default_rng(2)).numpy())
    assert task.read(only_file(tmp_path / "label.png"))[1].all()


def test_class_ids_are_those_of_the_file(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 2], [3, 9, 255]], np.uint8)
    Image.fromarray(stored).save(tmp_path / "ids.png")
    palette = Image.fromarray(stored, mode="L").convert("P")
    palette.putdata(stored.flatten().tolist())
    palette.save(tmp_path / "palette.png")
    np.save(tmp_path / "ids.npy", stored.astype(np.int64))
    for name in ("ids.png", "palette.png", "ids.npy"):
        value, valid = SEMSEG.read(tmp_path / name)
        assert value.dtype == np.uint8
        assert valid.tolist() == [[True, True, True], [True, False, False]], name
        assert value[0][valid].tolist() == [0, 1, 2, 3], name


def test_depth_is_the_stored_number_plus_offset_times_scale(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 256], [1000, 65535, 12]], np.uint16)
    Image.fromarray(stored).save(tmp_path / "depth.png")
    task = Depth("depth", scale=0.01, offset=-1.0)
    value, valid = task.read(tmp_path / "depth.png")
    assert np.array_equal(valid, stored > 1)  # 0 is void, and so is what means 0 metres
    np.testing.assert_allclose(value[0][valid], (stored[valid] - 1.0) * 0.01, rtol=1e-6)


def test_depth_in_npy_is_in_metres_and_nan_is_void(tmp_path: Path) -> None:
    stored = np.array([[1.25, np.nan, 0.0], [np.inf, 3.5, 9.0]], np.float64)
    np.save(tmp_path / "depth.npy", stored)
    value, valid = Depth("depth", scale=0.5, offset=7.0).read(tmp_path / "depth.npy")
    assert valid.tolist() == [[True, False, False], [False, True, True]]
    np.testing.assert_allclose(value[0][valid], [1.25, 3.5, 9.0])
    assert np.isfinite(value).all()


def test_negative_depth_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "depth.npy", np.array([[1.0, -0.5]]))
    with pytest.raises(LabelError, match=r"depth\.npy.*negative"):
        DEPTH.read(tmp_path / "depth.npy")


def test_normals_are_read_as_two_v_over_255_minus_one(tmp_path: Path) -> None:
    stored = np.array([[[255, 127, 128], [127, 0, 127]], [[128, 128, 128], [60, 70, 20]]], np.uint8)
    Image.fromarray(stored).save(tmp_path / "normals.png")
    value, valid = NORMALS.read(tmp_path / "normals.png")
    vectors = 2 * stored.astype(np.float64) / 255 - 1
    expected = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    assert valid.tolist() == [[True, True], [False, True]]
    np.testing.assert_allclose(np.moveaxis(value, 0, -1)[valid], expected[valid], atol=1e-6)


def test_normals_in_npy_may_have_any_length_near_one_and_nan_is_void(tmp_path: Path) -> None:
    stored = np.array([[[0, 0, -1.2], [np.nan, 0, 1], [0, 0, 0]]])
    np.save(tmp_path / "normals.npy", stored)
    value, valid = NORMALS.read(tmp_path / "normals.npy")
    assert valid.tolist() == [[True, False, False]]
    np.testing.assert_allclose(value[:, 0, 0], [0, 0, -1])
    assert np.isfinite(value).all()


@pytest.mark.parametrize("task", [EDGE, SALIENCY, BINARY], ids=lambda task: task.name)
def test_probabilities_are_scaled_by_the_type_and_alpha_marks_void(task: Task, tmp_path: Path) -> None:
    grey, alpha = np.array([[0, 51, 255]], np.uint8), np.array([[255, 255, 0]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey, alpha], -1)).save(tmp_path / "alpha.png")
    Image.fromarray(np.array([[0, 13107, 65535]], np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(grey > 100).save(tmp_path / "bits.png")
    np.save(tmp_path / "float.npy", np.array([[0.0, 0.2, np.nan]]))
    read = {path.stem: task.read(path) for path in tmp_path.iterdir()}
    np.testing.assert_allclose(read["grey"][0], [[[0, 0.2, 1]]])
    np.testing.assert_allclose(read["deep"][0], [[[0, 0.2, 1]]])
    np.testing.assert_allclose(read["bits"][0], [[[0, 0, 1]]])
    assert read["alpha"][1].tolist() == [[True, True, False]]
    assert read["float"][1].tolist() == [[True, True, False]]


def test_probabilities_outside_zero_to_one_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "edge.npy", np.array([[0.0, 3.0]]))
    with pytest.raises(LabelError, match=r"edge\.npy.*0 to 1"):
        EDGE.read(tmp_path / "edge.npy")


@pytest.mark.parametrize("wrong", [4, 200])
def test_an_unknown_class_id_is_an_error_that_names_file_and_id(wrong: int, tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, wrong]], np.uint8)).save(tmp_path / "bad.png")
    with pytest.raises(LabelError, match=rf"bad\.png.*{wrong}.*0 to 3"):
        SEMSEG.read(tmp_path / "bad.png")


@pytest.mark.parametrize("ids", [[[0.0, np.inf]], [[0.0, 1.5]], [[-1, 0]], [[-1.0, 0]], [[0, 256]]], ids=str)
def test_class_ids_that_are_no_ids_are_refused(ids: list[list[float]], tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array(ids))
    with pytest.raises(LabelError, match=r"ids\.npy"):
        SEMSEG.read(tmp_path / "ids.npy")


@every_task
def test_a_truncated_missing_or_foreign_file_is_a_label_error(task: Task, tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    task.write(whole, random_label(task, (64, 64), np.random.default_rng(3)).numpy())
    whole = only_file(whole)
    cut = tmp_path / f"cut{whole.suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.npy").write_text("no array")
    for name in (cut.name, "text.png", "text.npy", "missing.png"):
        with pytest.raises(LabelError, match=name):
            task.read(tmp_path / name)


def test_a_pickle_in_npy_is_not_executed(tmp_path: Path) -> None:
    np.save(tmp_path / "label.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(LabelError, match=r"label\.npy"):
        DEPTH.read(tmp_path / "label.npy")


@pytest.mark.parametrize("task", [SEMSEG, DEPTH, EDGE, SALIENCY, BINARY, HEAT], ids=lambda task: task.name)
def test_three_channels_are_refused_where_one_is_expected(task: Task, tmp_path: Path) -> None:
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).save(tmp_path / "rgb.png")
    with pytest.raises(LabelError, match=r"rgb\.png.*one channel"):
        task.read(tmp_path / "rgb.png")


def test_normals_need_three_channels_of_8_bit_or_floats(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "grey.png")
    np.save(tmp_path / "whole.npy", np.zeros((4, 5, 3), np.int32))
    for name in ("grey.png", "whole.npy"):
        with pytest.raises(LabelError, match=name):
            NORMALS.read(tmp_path / name)


def test_endings_are_read_in_any_case(tmp_path: Path) -> None:
    np.save(tmp_path / "depth.npy", np.full((2, 2), 3.0))
    (tmp_path / "depth.npy").rename(tmp_path / "DEPTH.NPY")
    assert (DEPTH.read(tmp_path / "DEPTH.NPY")[0] == 3).all()


@every_task
def test_a_picture_is_rgb_and_void_looks_like_no_label(task: Task) -> None:
    value = random_label(task, SIZE, np.random.default_rng(4)).numpy()
    valid = np.ones(SIZE, bool)
    valid[0] = False
    shown, whole = task.colourise(value, valid), task.colourise(value)
    assert shown.shape == (*SIZE, 3)
    assert shown.dtype == np.uint8
    assert np.array_equal(shown[1:], whole[1:])
    assert len(np.unique(shown[0].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(whole.reshape(-1, 3), axis=0)) > 1


# -- geometry ----------------------------------------------------------------------------------------------------------
@every_task
def test_a_flip_is_its_own_inverse_and_mirrors_positions(task: Task) -> None:
    value = random_label(task, SIZE, np.random.default_rng(5))
    flipped = task.flip(value)
    assert torch.equal(task.flip(flipped), value)
    signs = {"normals": [-1.0, 1.0, 1.0], "flow": [-1.0, 1.0, -1.0]}.get(task.name, [1.0])
    sign = torch.tensor(signs)[:, None, None]
    assert torch.equal(flipped.float(), value.float().flip(-1) * sign)


@every_task
def test_decoding_mirrored_logits_is_mirroring_the_decoded(task: Task) -> None:
    logits = logits_like(task)
    back = task.flip_logits(logits)
    assert torch.equal(task.flip_logits(back), logits)
    for one, other in zip(task.decode(back), task.decode(logits), strict=True):
        torch.testing.assert_close(one, task.flip(other), atol=1e-5, rtol=1e-5)


@every_task
def test_only_distances_are_brought_back_from_a_zoom(task: Task) -> None:
    logits = logits_like(task)
    assert torch.equal(task.zoom_logits(logits, 1.0), logits)
    assert torch.equal(task.zoom_logits(logits, 1.5), logits) == (task.kind != "depth")


@every_task
@pytest.mark.parametrize("scale", [0.5, 1.7])
def test_a_zoom_changes_distances_only(task: Task, scale: float) -> None:
    value = random_label(task, SIZE, np.random.default_rng(6))
    torch.testing.assert_close(task.zoom(value, scale), value / scale if task is DEPTH else value)


@every_task
@pytest.mark.parametrize("size", [(9, 14), (4, 7), (18, 42), (3, 14), (9, 5), (20, 7)], ids=str)
def test_resizing_invents_no_values_and_keeps_the_shape(task: Task, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    value, valid = random_label(task, SIZE, rng), torch.from_numpy(rng.random((1, *SIZE)) > 0.3)
    value = torch.where(valid, value, torch.tensor(0).to(value.dtype))
    new, new_valid = task.resize(value, valid, size)
    assert new.shape == (value.shape[0], *size)
    assert new_valid.shape == (1, *size)
    assert new_valid.dtype == torch.bool
    assert np.isin(new.numpy(), value.numpy()).all()


def test_nearest_neighbour_takes_pixel_centres() -> None:
    value = torch.arange(12.0).expand(1, 4, 12)
    new, _ = DEPTH.resize(value, torch.ones(1, 4, 12, dtype=torch.bool), (4, 4))
    assert new[0, 0].tolist() == [1, 4, 7, 10]


@pytest.mark.parametrize("size", [(16, 16), (32, 16), (16, 32), (40, 16)], ids=str)
def test_a_thin_edge_survives_every_shrinking(size: tuple[int, int]) -> None:
    for at in range(32):
        for value in (torch.zeros(1, 32, 32), torch.zeros(1, 32, 32)):
            value[0, :, at] = 1
            new, _ = EDGE.resize(value, torch.ones(1, 32, 32, dtype=torch.bool), size)
            assert (new[0].amax(dim=1) == 1).all(), f"the vertical line in column {at} is gone"


# -- bins and centres --------------------------------------------------------------------------------------------------
@given(low=st.floats(0.3, 1.0), high=st.floats(1.0, 3.0), bins=st.integers(2, 60))
def test_widened_depth_covers_the_zoomed_range_at_the_same_spacing(low: float, high: float, bins: int) -> None:
    task = Depth("depth", minimum=0.67, maximum=10.0, bins=bins)
    wide = task.widened((low, high))
    assert wide.minimum <= task.minimum / high * (1 + 1e-6)
    assert wide.maximum >= task.maximum / low * (1 - 1e-6)
    assert len(wide.centres()) == wide.num_tokens == wide.bins
    steps = wide.centres().double().log().diff()
    np.testing.assert_allclose(steps, math.log(10 / 0.67) / (bins - 1), rtol=1e-3)
    # One bin less would not have covered the range.
    assert wide.maximum / math.exp(steps[0].item()) < task.maximum / low * (1 + 1e-4)


@every_task
def test_widening_by_nothing_changes_nothing(task: Task) -> None:
    wide = task.widened((1.0, 1.0))
    assert wide.num_tokens == task.num_tokens
    assert wide.spec().keys() == task.spec().keys()
    assert task is DEPTH or wide == task


@pytest.mark.parametrize("count", [2, 12, 40, 100])
def test_normal_centres_are_distinct_unit_vectors_that_face_the_camera(count: int) -> None:
    centres = Normals("normals", centres_count=count).centres()
    assert centres.shape == (count, 3)
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(count))
    assert (centres[:, 2] < 0).all()
    assert torch.equal(centres, Normals("other", centres_count=count).centres())
    nearest = (centres @ centres.T - 2 * torch.eye(count)).amax(dim=1)
    # No two are closer than a sixth of the spacing of an even cover of the half sphere.
    assert nearest.max() < math.cos(math.sqrt(2 * math.pi / count) / 6)
    # The mirror image of each is one of them.
    mirrored = centres * torch.tensor([-1.0, 1.0, 1.0])
    assert ((mirrored @ centres.T).amax(dim=1) > 1 - 1e-5).all()


def test_every_direction_to_the_camera_is_near_a_centre() -> None:
    directions = random_label(NORMALS, (100, 100), np.random.default_rng(8)).flatten(1)
    nearest = (Normals("normals").centres() @ directions).amax(dim=0)
    assert torch.rad2deg(nearest.min().acos()) < 30


# -- building ----------------------------------------------------------------------------------------------------------
@every_task
def test_a_spec_builds_the_same_task(task: Task) -> None:
    assert build_task(task.name, task.spec() | task.training()) == task


@every_task
def test_what_training_goes_by_is_taken_from_the_spec(task: Task) -> None:
    training = {"weight": 3.5, "threshold": 0.25, "discovered_weight": 2.0}
    built = build_task("other", task.spec() | training)
    assert built.training() == training


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "dept"}, "did you mean 'depth'"),
        ({"kind": "segmentation"}, "expected one of: binary, classes"),
        ({}, "kind None"),
        ({"kind": "depth", "bin": 3}, "did you mean 'bins'"),
        ({"kind": "depth", "range": 5}, "depth"),
        ({"kind": "depth", "range": [1, 2, 3]}, "depth"),
        ({"kind": "depth", "range": [0, 10]}, "range"),
        ({"kind": "depth", "range": [10, 1]}, "range"),
        ({"kind": "depth", "range": ["near", "far"]}, "range"),
        ({"kind": "depth", "bins": 1}, "bins"),
        ({"kind": "depth", "bins": "many"}, "bins"),
        ({"kind": "depth", "scale": 0}, "scale"),
        ({"kind": "normals", "centres": 0}, "centre"),
        ({"kind": "normals", "centres": 7}, "even"),
        ({"kind": "normals", "centres": 4.0}, "whole number"),
        ({"kind": "normals", "centres": "x"}, "centres"),
        ({"kind": "classes"}, "classes"),
        ({"kind": "classes", "classes": []}, "at least one class"),
        ({"kind": "classes", "classes": [str(i) for i in range(300)]}, "256"),
        ({"kind": "classes", "classes": ["a"], "void": 255}, "void|TypeError"),
        ({"kind": "classes", "classes": "abc"}, "classes"),
        ({"kind": "edge", "positive_weight": 2}, "positive_weight"),
        ({"kind": "edge", "weight": "heavy"}, "weight"),
        ({"kind": "edge", "threshold": 7}, "threshold"),
        ({"kind": "edge", "discovered_weight": -1}, "discovered_weight"),
        ({"kind": "edge", "discovered_weight": float("nan")}, "discovered_weight"),
        ({"kind": "saliency", "classes": 2}, "no setting 'classes'"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_spec_is_one_sentence_that_names_the_task(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_task("mine", spec)
    assert "mine" in str(caught.value)


def test_kinds_are_listed_under_their_own_name() -> None:
    assert all(task.kind == kind for kind, task in KINDS.items())


# -- decoding and confidence -------------------------------------------------------------------------------------------
@every_task
@pytest.mark.parametrize("factor", [0.1, 3.0, 60.0])
def test_predictions_lie_in_the_range_of_the_labels(task: Task, factor: float) -> None:
    prediction = task.decode(logits_like(task, factor=factor))
    assert prediction.shape == (2, task.label_channels, *SIZE)
    if task is SEMSEG:
        assert prediction.dtype == torch.uint8
        assert prediction.max() < task.num_tokens
    elif task is DEPTH:
        assert DEPTH.minimum * 0.999 <= prediction.min() <= prediction.max() <= DEPTH.maximum * 1.001
    elif task is HEAT:
        assert HEAT.minimum - 1e-3 <= prediction.min() <= prediction.max() <= HEAT.maximum + 1e-3
    elif task in (NORMALS, FLOW):
        torch.testing.assert_close(prediction.norm(dim=1), torch.ones(2, *SIZE))
    else:
        assert 0 <= prediction.min() <= prediction.max() <= 1


@every_task
def test_a_sure_network_is_more_confident_than_a_flat_one(task: Task) -> None:
    sharp = torch.full((1, task.num_tokens, 1, 1), -10.0)
    # In the middle of a scale, or facing the camera: at the end of one, flat mass moved there spreads it first.
    sharp[:, {"depth": DEPTH.bins // 2, "normals": -1, "heat": HEAT.bins // 2}.get(task.name, 0)] = 10.0
    flat = torch.zeros_like(sharp)
    for confidence in (task.confidence, task.paper_confidence):
        assert 0 <= confidence(flat).item() < confidence(sharp).item() <= 1 + 1e-6
        assert confidence(sharp).item() > 0.99
        # In between, it grows with the sharpness.
        grows = torch.stack([confidence(sharp * share) for share in (0.0, 0.02, 0.05, 0.1, 0.2)]).flatten()
        assert (grows.diff() > 0).all()


@every_task
@pytest.mark.parametrize("factor", [0.1, 3.0, 60.0])
def test_confidence_lies_between_zero_and_one(task: Task, factor: float) -> None:
    for confidence in (
        task.confidence(logits_like(task, factor=factor)),
        task.paper_confidence(logits_like(task, factor=factor)),
    ):
        assert confidence.shape == (2, 1, *SIZE)
        assert 0 <= confidence.min() <= confidence.max() <= 1 + 1e-6


@pytest.mark.parametrize("sharpness", [0.5, 3.0, 5.0, 8.0])
def test_confidence_of_normals_is_a_forecast_of_being_right(sharpness: float) -> None:
    """Directions drawn around the prediction, scattered as its mean vector's length says, are right as often."""
    logits = sharpness * torch.eye(NORMALS.num_tokens)[:1, :, None, None]
    length = float(expectation(distribution(logits), NORMALS.centres()).norm())
    low, high = 1e-3, 700.0
    for _ in range(60):  # the concentration of a von Mises-Fisher distribution with a mean of that length
        middle = (low + high) / 2
        low, high = (middle, high) if 1 / math.tanh(middle) - 1 / middle < length else (low, middle)
    drawn = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cosine = 1 + torch.log(drawn + (1 - drawn) * math.exp(-2 * low)) / low
    right = (cosine > math.cos(math.radians(22.5))).double().mean()
    assert NORMALS.confidence(logits).item() == pytest.approx(right.item(), abs=0.02)


def test_depth_torn_between_near_and_far_is_not_confident() -> None:
    torn, near_by = torch.full((2, 1, DEPTH.bins, 1, 1), -30.0)
    torn[:, 0], torn[:, -1] = 5, 5
    near_by[:, 3], near_by[:, 4] = 5, 5
    assert DEPTH.confidence(torn) < 0.3
    assert DEPTH.confidence(near_by) > 0.8


@every_task
def test_the_truth_itself_is_correct_and_its_opposite_is_not(task: Task) -> None:
    truth = random_label(task, SIZE, np.random.default_rng(9))[None]
    opposite = {
        "semseg": (truth + 1) % 4, "depth": truth * 2, "normals": -truth, "edge": 1 - truth, "saliency": 1 - truth,
        "binary": 1 - truth, "heat": truth + 5, "flow": -truth,
    }[task.name]  # fmt: skip
    assert task.correct(truth, truth).shape == (1, 1, *SIZE)
    assert task.correct(truth, truth).all()
    assert not task.correct(opposite, truth).any()


@pytest.mark.parametrize(
    ("task", "angle_or_factor", "right"),
    [(DEPTH, 1.24, True), (DEPTH, 1.26, False), (DEPTH, 1 / 1.24, True), (DEPTH, 1 / 1.26, False),
     (NORMALS, 22.0, True), (NORMALS, 23.0, False)],
)  # fmt: skip
def test_how_near_counts_as_correct(task: Task, angle_or_factor: float, right: bool) -> None:
    if task is DEPTH:
        truth, guess = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 2.0 * angle_or_factor)
    else:
        a = math.radians(angle_or_factor)
        truth = torch.tensor([0.0, 0.0, -1.0]).reshape(1, 3, 1, 1)
        guess = torch.tensor([math.sin(a), 0.0, -math.cos(a)]).reshape(1, 3, 1, 1)
    assert task.correct(guess, truth).item() is right


# -- losses of a task --------------------------------------------------------------------------------------------------
@every_task
def test_loss_falls_to_near_its_least_on_the_truth(task: Task) -> None:
    """Gradient descent on the logits reaches a prediction that counts as correct nearly everywhere."""
    target = random_label(task, (4, 4), np.random.default_rng(10))[None]
    logits = torch.zeros(1, task.num_tokens, 4, 4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(150):
        optimizer.zero_grad()
        task.pixel_loss(logits, target).sum().backward()
        optimizer.step()
    assert task.correct(task.decode(logits.detach()), target).float().mean() > 0.9


@pytest.mark.parametrize("task", [EDGE, SALIENCY, BINARY], ids=lambda task: task.name)
@pytest.mark.parametrize("target", [0.04, 0.3, 0.9, 0.97])
def test_a_soft_discovered_target_is_best_met_by_its_own_probability(task: Task, target: float) -> None:
    """Defect 4 of the release: a teacher's sure "no" must not teach "perhaps", nor its 0.9 a 0."""
    probability = torch.linspace(0.005, 0.995, 199)
    logit = torch.logit(probability)[:, None, None, None]
    logits = logit if task.num_tokens == 1 else torch.cat([torch.zeros_like(logit), logit], dim=1)
    one = torch.ones(1, 1, 1, 1)
    losses = torch.stack([masked_loss(task, row[None], one * target, one > 0, one)[0] for row in logits])
    assert probability[losses.argmin()].item() == pytest.approx(target, abs=0.006)


@pytest.mark.parametrize("task", [EDGE, SALIENCY, Binary("even")], ids=lambda task: task.name)
def test_a_soft_given_target_is_best_met_by_its_own_probability(task: Task) -> None:
    target = torch.tensor([0.1, 0.4, 0.8, 0.95]).reshape(1, 1, 1, 4)
    logits = torch.zeros(1, task.num_tokens, 1, 4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 600)
        optimizer.zero_grad()
        masked_loss(task, logits, target, torch.ones(1, 1, 1, 4, dtype=torch.bool))[0].backward()
        optimizer.step()
    torch.testing.assert_close(task.decode(logits.detach()), target, atol=0.01, rtol=0)


def test_hard_edge_labels_weigh_positives_by_095() -> None:
    logits = torch.randn(2, 1, 5, 6)
    target = (torch.rand(2, 1, 5, 6) > 0.7).float()
    total, count = masked_loss(EDGE, logits, target, torch.ones(2, 1, 5, 6, dtype=torch.bool))
    p, t = logits.sigmoid().numpy().astype(np.float64), target.numpy()
    expected = -(0.95 * t * np.log(p) + 0.05 * (1 - t) * np.log(1 - p)).sum()
    assert count == 60
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_saliency_balances_the_two_classes_within_each_image() -> None:
    """Flat logits: however rare the salient pixels, both classes have the same share of an image's loss."""
    target = torch.zeros(1, 1, 10, 10)
    target[..., :3] = 1
    weight = SALIENCY.pixel_weight(target, torch.ones(1, 1, 10, 10, dtype=torch.bool))
    assert weight[target == 1].sum().item() == pytest.approx(weight[target == 0].sum().item(), rel=1e-5)


def test_normals_loss_is_the_l1_of_three_channels_plus_a_tenth_of_cross_entropy() -> None:
    logits, target = (
        logits_like(NORMALS),
        torch.stack([random_label(NORMALS, SIZE, np.random.default_rng(i)) for i in (1, 2)]),
    )
    centres = NORMALS.centres().numpy().astype(np.float64)
    p = np.exp(logits.numpy().astype(np.float64))
    p /= p.sum(1, keepdims=True)
    mean = np.einsum("bkhw,kc->bchw", p, centres)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    nearest = np.einsum("bchw,kc->bkhw", target.numpy(), centres).argmax(1)
    cross = -np.log(np.take_along_axis(p, nearest[:, None], 1))
    expected = np.abs(mean - target.numpy()).sum(1, keepdims=True) + 0.1 * cross
    np.testing.assert_allclose(NORMALS.pixel_loss(logits, target), expected, rtol=1e-4, atol=1e-5)


def test_depth_loss_is_l1_in_metres_plus_a_tenth_of_cross_entropy() -> None:
    logits, target = (
        logits_like(DEPTH),
        torch.stack([random_label(DEPTH, SIZE, np.random.default_rng(i)) for i in (1, 2)]),
    )
    centres = np.geomspace(0.5, 8.0, 12)
    p = np.exp(logits.numpy().astype(np.float64))
    p /= p.sum(1, keepdims=True)
    mean = (p * centres[:, None, None]).sum(1, keepdims=True)
    nearest = np.abs(np.log(target.numpy()) - np.log(centres)[:, None, None]).argmin(1)
    expected = np.abs(mean - target.numpy()) - 0.1 * np.log(np.take_along_axis(p, nearest[:, None], 1))
    np.testing.assert_allclose(DEPTH.pixel_loss(logits, target), expected, rtol=1e-4, atol=1e-4)


def test_depth_outside_the_bins_is_clamped_to_them() -> None:
    logits = logits_like(DEPTH)[:1, :, :1, :2]
    outside, inside = torch.tensor([0.1, 99.0]).reshape(1, 1, 1, 2), torch.tensor([0.5, 8.0]).reshape(1, 1, 1, 2)
    torch.testing.assert_close(DEPTH.pixel_loss(logits, outside), DEPTH.pixel_loss(logits, inside))
