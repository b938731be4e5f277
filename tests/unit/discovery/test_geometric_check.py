"""Depth and normals that must agree: exact on planes, near on spheres, low where they contradict each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from test_methods import PRESENT, Fixed, build, by_name, detach, eager
from torch import Tensor
from torch.nn import functional as F

from properties import random_batch
from tasktokens.discovery.pseudo_labels import discover_labels, geometric_agreement
from tasktokens.methods import Htt, HttMethod, StepOptions, StrongView
from tasktokens.models import TaskOutput
from tasktokens.tasks import Depth, Normals, Task, build_task

FOCAL, HEIGHT, WIDTH = 0.9, 36, 48
DEPTH = Depth("depth", minimum=0.5, maximum=20, bins=256)
NORMALS = Normals("normals", centres_count=512)


def rays() -> Tensor:
    """(3, H, W): the point of depth 1 at each pixel."""
    v = (torch.arange(HEIGHT) + 0.5 - HEIGHT / 2) / (FOCAL * WIDTH)
    u = (torch.arange(WIDTH) + 0.5 - WIDTH / 2) / (FOCAL * WIDTH)
    return torch.stack([u.expand(HEIGHT, WIDTH), v[:, None].expand(HEIGHT, WIDTH), torch.ones(HEIGHT, WIDTH)])


def plane(normal: tuple[float, float, float], distance: float = 3.0) -> tuple[Tensor, Tensor]:
    """Depth (1, 1, H, W) and normals (1, 3, H, W) of the plane n . P = -distance."""
    n = F.normalize(torch.tensor(normal), dim=0)[:, None, None]
    return (-distance / (n * rays()).sum(0))[None, None], n.expand(3, HEIGHT, WIDTH)[None]


def sphere(radius: float = 1.5, away: float = 5.0) -> tuple[Tensor, Tensor, Tensor]:
    """Depth, normals, and the pixels (H, W) well within its outline."""
    d, centre = rays(), torch.tensor([0.2, 0.1, away])[:, None, None]
    a, b = (d * d).sum(0), (d * centre).sum(0)
    root = b**2 - a * (away**2 + 0.05 - radius**2)
    depth = torch.where(root > 0, (b - root.clamp(min=0).sqrt()) / a, away)
    return depth[None, None], F.normalize(depth * d - centre, dim=0)[None], root / a > 0.5


def output(logits: Tensor) -> TaskOutput:
    return TaskOutput(logits, torch.zeros(len(logits), 4, *logits.shape[-2:]))


def of_depth(depth: Tensor, task: Depth = DEPTH) -> TaskOutput:
    """Logits whose expectation is nearly that depth."""
    return output(-4000 * (task.centres().log()[:, None, None] - depth.log()) ** 2)


def of_normals(normals: Tensor) -> TaskOutput:
    return output(60 * torch.einsum("kc,bchw->bkhw", NORMALS.centres(), normals))


def agree(depth: Tensor, normals: Tensor, task: Depth = DEPTH) -> dict[str, Tensor]:
    tasks = {"depth": task, "normals": NORMALS}
    return geometric_agreement(tasks, {"depth": of_depth(depth, task), "normals": of_normals(normals)}, FOCAL)


PLANES = [(0.0, 0.0, -1.0), (0.0, -1.0, -0.3), (0.4, 0.1, -0.8), (-0.5, 0.4, -0.7)]


@pytest.mark.parametrize("normal", PLANES)
def test_the_normals_of_a_plane_are_exact_for_depth_and_inverse_depth_of_any_unit(
    normal: tuple[float, float, float],
) -> None:
    depth, normals = plane(normal)
    near = (depth > 0) & (depth < 50)  # the others lie behind the camera
    rows = near.all(dim=-1).flatten()
    depth, normals = depth[:, :, rows], normals[:, :, rows]
    if rows.all():
        torch.testing.assert_close(DEPTH.surface_normals(depth, FOCAL), normals, atol=2e-4, rtol=0)
        inverse = replace(DEPTH, inverse=True)
        torch.testing.assert_close(inverse.surface_normals(37.0 / depth, FOCAL), normals, atol=2e-4, rtol=0)
    else:
        assert normal == (0.0, -1.0, -0.3)


@pytest.mark.parametrize("normal", [PLANES[0], PLANES[2], PLANES[3]])
def test_a_consistent_pair_agrees_and_wrong_normals_do_not(normal: tuple[float, float, float]) -> None:
    depth, normals = plane(normal)
    right = agree(depth, normals)
    assert right.keys() == {"depth", "normals"}
    assert right["depth"].min() > 0.95
    assert torch.equal(right["depth"], right["normals"])
    wrong = agree(depth, plane((-normal[0], 0.9, -0.2))[1])["normals"]
    assert wrong.max() < 0.6
    assert wrong.min() >= 0


def test_a_sphere_agrees_within_its_outline_and_not_with_the_wall_behind_it() -> None:
    depth, normals, inside = sphere()
    assert inside.sum() > 100
    assert agree(depth, normals)["depth"][0, 0][inside].mean() > 0.97
    flat = agree(depth, plane((0.0, 0.0, -1.0))[1])["depth"][0, 0]
    assert flat[inside].mean() < 0.9
    implied = DEPTH.surface_normals(depth, FOCAL)
    assert implied is not None
    torch.testing.assert_close(implied[0][:, inside], normals[0][:, inside], atol=0.1, rtol=0)


def test_a_mirrored_pair_agrees_like_the_pair() -> None:
    depth, normals, _ = sphere()
    mirrored = normals.flip(-1) * torch.tensor([-1.0, 1, 1])[:, None, None]
    there, back = agree(depth, normals)["depth"], agree(depth.flip(-1), mirrored)["depth"].flip(-1)
    torch.testing.assert_close(there, back, atol=0.03, rtol=0)


def test_what_is_not_finite_agrees_with_nothing_and_stays_where_it_is() -> None:
    depth, normals = plane(PLANES[2])
    tasks: dict[str, Task] = {"depth": DEPTH, "normals": NORMALS}
    outputs = {"depth": of_depth(depth), "normals": of_normals(normals)}
    outputs["depth"].logits[..., 5, 7] = math.nan
    found = geometric_agreement(tasks, outputs, FOCAL)["normals"]
    assert found.isfinite().all()
    assert found[0, 0, 5, 7] < 0.6  # its neighbours stand beside a hole
    away = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    away[3:8, 5:10] = False
    assert found[0, 0][away].min() > 0.95


def test_a_task_alone_a_single_row_or_vectors_are_compared_with_nothing() -> None:
    depth, normals = plane(PLANES[0])
    assert geometric_agreement({"depth": DEPTH}, {"depth": of_depth(depth)}, FOCAL) == {}
    assert agree(depth[:, :, :1], normals[:, :, :1]) == {}
    vectors = build_task("flow", {"kind": "vectors"})
    assert vectors.surface_normals(normals, FOCAL) is None


def test_it_multiplies_the_confidence_before_the_threshold(tiny_tasks: Mapping[str, Task]) -> None:
    task = tiny_tasks["depth"]
    logits, pixels = torch.randn(2, task.num_tokens, 8, 8), torch.ones(2, 1, 8, 8, dtype=torch.bool)
    agreement = torch.rand(2, 1, 8, 8)
    plain = discover_labels(task, logits, pixels)
    checked = discover_labels(task, logits, pixels, agreement_B1HW=agreement)
    assert torch.equal(checked.confidence, plain.confidence * agreement)
    assert torch.equal(checked.valid, checked.confidence > task.threshold)
    assert torch.equal(checked.value, plain.value)


def test_only_the_discovered_labels_of_the_compared_tasks_change(tiny_tasks: dict[str, Task]) -> None:
    batch = random_batch(tiny_tasks, PRESENT)
    student = build("htt", tiny_tasks).eval()
    taught = {name: detach(out) for name, out in build("htt", tiny_tasks, 1).eval()(batch.image).items()}
    plain = HttMethod(teacher_views=1, strong=StrongView(photometric=0, grey=0, blur=0))

    def terms(settings: HttMethod) -> dict[str, Tensor]:
        options = StepOptions(torch.Generator().manual_seed(3))
        made = by_name(Htt(eager(tiny_tasks), settings).terms(batch, student, Fixed(taught), options))
        return {name: term.total.detach() for name, term in made.items()}

    without, with_check = terms(plain), terms(plain.model_copy(update={"geometry": True}))
    assert without.keys() == with_check.keys()
    changed = {name for name in without if not torch.equal(without[name], with_check[name])}
    assert {"discovered_loss/depth", "discovered_loss/normals"} <= changed
    assert changed <= {f"{kind}/{name}" for kind in ("discovered_loss", "discovered") for name in ("depth", "normals")}
    # With a patch of another image the check follows the pixels.
    mixed = terms(HttMethod(teacher_views=2, geometry=True, strong=StrongView(cutmix=1.0)))
    assert all(total.isfinite() for total in mixed.values())
