"""What is particular to each compared method, against formulas that are written out here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from method_fakes import PRESENT, Fixed, build, by_name, detach, eager
from properties import random_batch
from tasktokens.data.sample import Batch
from tasktokens.data.sharding import BatchShard
from tasktokens.data.transforms import resize_labels
from tasktokens.methods import METHODS, Method, StepOptions, Term, build_method
from tasktokens.methods.image_noise import ImageNoise
from tasktokens.methods.jtr import Jtr
from tasktokens.methods.mean_teacher import consistency_term, squared_difference
from tasktokens.methods.mtpsl import Mtpsl
from tasktokens.models import Network, TaskOutput
from tasktokens.models.diffusion import DiffusionNetwork, kept_shares
from tasktokens.models.prototypes import PrototypeNetwork
from tasktokens.tasks import Task

Tasks = dict[str, Task]


def made(name: str, tasks: Tasks, **settings: Any) -> tuple[Any, Network]:
    method: Method = build_method(METHODS[name].settings_class(**settings), tasks)  # type: ignore[call-arg]
    network = build(method.network, tasks).eval()
    torch.manual_seed(3)
    method.begin(network)
    if (state := method.state()) is not None:
        state.eval()
    return method, network


def terms_at(
    method: Method, batch: Batch, student: nn.Module, teacher: nn.Module | None = None, step: int = 10**6
) -> dict[str, Term]:
    options = StepOptions(step, teacher is not None)
    return by_name(method.terms(method.prepare(batch, torch.Generator().manual_seed(5), options), student, teacher))


# -- self-training -----------------------------------------------------------------------------------------------------
def test_pseudo_labels_are_the_teachers_and_only_where_labels_are_missing(tiny_tasks: Tasks) -> None:
    tasks = eager(tiny_tasks)
    plain = {"photometric": 0.0, "grey": 0.0, "blur": 0.0}
    settings = {"thresholds": "fixed", "views": [[1, False]], "strong": plain}
    method, student = made("self_training", tasks, targets="distribution", **settings)
    batch = random_batch(tasks, PRESENT)
    taught = {name: detach(output) for name, output in build("mtl", tasks, 1).eval()(batch.image).items()}
    found = terms_at(method, batch, student, Fixed(taught))
    # Where the labels are, another teacher teaches the same.
    other = {
        name: replace(output, logits=output.logits.index_fill(0, batch.labels[name].rows, 99.0))
        for name, output in taught.items()
    }
    again = terms_at(method, batch, student, Fixed(other))
    assert {name: term.total for name, term in found.items()} == {name: term.total for name, term in again.items()}
    absent = batch.labels["semseg"].absent
    p, q = (
        outputs["semseg"].logits[absent].double().softmax(1).numpy() for outputs in (taught, student(batch.image))
        for outputs in [{n: detach(o) for n, o in outputs.items()}]
    )  # fmt: skip
    divergence = (p * (np.log(p) - np.log(q))).sum(1) * p.max(1)
    assert found["pseudo/semseg"].total.item() == pytest.approx(divergence.sum() * 16, rel=1e-4)
    assert found["pseudo/semseg"].count == len(absent) * 64 * 64
    off, _ = made("self_training", tasks, pseudo=0.0, **settings)
    assert terms_at(off, batch, student, Fixed(taught))["pseudo/semseg"].weight == 0
    assert [stage.name for stage in made("self_training", tasks, rounds=2)[0].stages()] == [
        "supervised", "students", "students2",
    ]  # fmt: skip


# -- consistency -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["consistency", "mean_teacher"])
def test_the_weight_grows_and_is_only_on_missing_labels(name: str, tiny_tasks: Tasks) -> None:
    method, student = made(name, tiny_tasks, steps=100, ramp=0.5, consistency=3.0)
    teacher = build("mtl", tiny_tasks, 1).eval() if name == "mean_teacher" else None
    batch = random_batch(tiny_tasks, PRESENT)
    factor = 0.5 if name == "consistency" else 1.0  # both directions are in one term
    for step, share in ((0, np.exp(-5)), (25, np.exp(-5 / 4)), (50, 1.0), (99, 1.0)):
        terms = terms_at(method, batch, student, teacher, step)
        for task in tiny_tasks:
            assert terms[f"consistency/{task}"].weight == pytest.approx(3 * factor * share)
            assert terms[f"consistency/{task}"].count == 64 * 64 * len(batch.labels[task].absent)


@pytest.mark.parametrize("distance", ["divergence", "squared"])
def test_predictions_that_agree_cost_nothing_and_others_do(distance: Any, tiny_tasks: Tasks) -> None:
    batch = random_batch(tiny_tasks, [[], []])
    one, two = (build("mtl", tiny_tasks, seed).eval()(batch.image) for seed in (0, 1))
    for name, task in tiny_tasks.items():
        same = consistency_term(task, one[name], one[name], batch.pixels, 1.0, distance)
        other = consistency_term(task, one[name], two[name], batch.pixels, 1.0, distance)
        if distance == "squared" or task.has_distribution:
            assert same.total.item() == pytest.approx(0, abs=1e-3)
        assert other.total > same.total
        assert torch.autograd.grad(other.total, two[name].logits, allow_unused=True, retain_graph=True)[0] is None
        if task.has_distribution:
            p, q = (o[name].logits.detach().double().softmax(1).numpy() for o in (one, two))
            expected = ((p - q) ** 2).sum(1)
            found = squared_difference(task, one[name].logits, two[name].logits).detach()[:, 0].numpy()
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_second_view_is_mirrored_and_brought_back(tiny_tasks: Tasks) -> None:
    """A network that gives the same for a mirror image is consistent with itself."""
    plain = {"photometric": 0.0, "grey": 0.0, "blur": 0.0}
    method, _ = made("consistency", tiny_tasks, strong=plain, distance="squared")

    class Pixelwise(nn.Module):
        def forward(self, image: Tensor) -> dict[str, TaskOutput]:
            grey = image.float().mean(1, keepdim=True) / 255
            logits = {n: torch.cat([grey * (k + 1) for k in range(t.num_tokens)], 1) for n, t in tiny_tasks.items()}
            # Centres of normals come in mirrored pairs: what is the same for both is the same after a flip.
            return {n: TaskOutput(x.mean(1, keepdim=True).expand_as(x), grey) for n, x in logits.items()}

    batch = random_batch(tiny_tasks, [[], []])
    terms = terms_at(method, batch, Pixelwise())
    prepared = method.prepare(batch, torch.Generator().manual_seed(5), StepOptions())
    assert torch.equal(prepared.second, batch.image.flip(-1))
    assert all(term.total.item() == pytest.approx(0, abs=1e-6) for term in terms.values())
    method.mirrored = False
    assert torch.equal(method.prepare(batch, torch.Generator(), StepOptions()).second, batch.image)


# -- MTPSL -------------------------------------------------------------------------------------------------------------
class Plain(nn.Module):
    """In place of the mapping network: the mean of a map and the number of the pair; the other channels are 0."""

    def forward(self, maps: Sequence[tuple[int, int, Tensor]]) -> list[Tensor]:
        found = []
        for task, other, x in maps:
            mean = nn.functional.avg_pool2d(x.float(), 2).mean(1, keepdim=True)
            pair = torch.full_like(mean, 1 + task + 10 * other)
            found.append(torch.cat([mean, pair, mean.new_zeros(len(x), 366, *mean.shape[-2:])], dim=1))
        return found


def test_pairs_of_a_missing_and_a_given_label_are_compared_where_the_label_is_valid(tiny_tasks: Tasks) -> None:
    tasks = {name: tiny_tasks[name] for name in ("depth", "normals", "saliency")}
    method, student = made("mtpsl", tasks, regularisation=0.0)
    assert isinstance(method, Mtpsl)
    method.mapping = Plain()  # type: ignore[assignment]
    batch = random_batch(tasks, [["depth"], [], ["depth", "saliency"]])
    terms = terms_at(method, batch, student)
    outputs = {name: detach(output) for name, output in student(batch.image).items()}
    names, expected = list(tasks), dict.fromkeys(tasks, 0.0)
    pairs = [(0, "normals", "depth"), (0, "saliency", "depth"), (2, "normals", "depth"), (2, "normals", "saliency")]
    for image, s, t in pairs:
        labels = batch.labels[t]
        at = labels.rows.tolist().index(image)
        value, valid = resize_labels(tasks[t], labels, (16, 16))
        label = torch.where(valid, tasks[t].label_map(value), 0.0)[at : at + 1]
        given = tasks[s].prediction_map(outputs[s].logits[image : image + 1])
        a, b = Plain()([(names.index(s), names.index(t), given), (names.index(t), names.index(s), label)])
        a, b = a[0].double().numpy(), b[0].double().numpy()
        cosine = (a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)
        inside = valid[at, 0].double().numpy().reshape(8, 2, 8, 2).mean((1, 3)) > 0.5
        expected[s] += (1 - cosine)[inside].mean()
    for name in tasks:
        assert terms[f"cross_task/{name}"].total.item() == pytest.approx(expected[name], abs=1e-4)
        assert terms[f"cross_task/{name}"].count == len(pairs)
        assert terms[f"cross_task/{name}"].weight == 2.0


def test_the_features_pull_on_both_maps_and_get_no_gradient(tiny_tasks: Tasks) -> None:
    tasks = {name: tiny_tasks[name] for name in ("depth", "semseg")}
    batch = random_batch(tasks, [["depth"], ["semseg"]])
    totals = []
    for weight in (0.0, 0.5, 1.0):
        method, student = made("mtpsl", tasks, regularisation=weight)
        terms = terms_at(method, batch, student)
        totals.append(sum(terms[f"cross_task/{name}"].total.item() for name in tasks))
    assert totals[2] - totals[1] == pytest.approx(totals[1] - totals[0], rel=1e-3)
    assert totals[1] > totals[0]
    # The prediction of depth is compared; what labels alone teach, its own given label, is not in this loss.
    gradient = torch.autograd.grad(terms["cross_task/depth"].total, student.heads["depth"].out.weight)[0]  # type: ignore[index,union-attr]
    assert gradient.abs().sum() > 0


def test_classes_are_sampled_with_the_gradient_of_their_probabilities(tiny_tasks: Tasks) -> None:
    method, _ = made("mtpsl", tiny_tasks)
    prepared = method.prepare(random_batch(tiny_tasks, [[]]), torch.Generator().manual_seed(1), StepOptions())
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5]).view(1, 4, 1, 1).expand(1, 4, 90, 90).requires_grad_()
    sample = method._sampled(prepared, "semseg", logits)
    assert set(sample.detach().round(decimals=5).unique().tolist()) == {0.0, 1.0}
    shares, expected = sample.detach().mean((0, 2, 3)).numpy(), np.exp([0.0, 1.0, -1.0, 0.5])
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.02)
    (gradient,) = torch.autograd.grad((sample * torch.arange(4).view(1, 4, 1, 1)).sum(), logits)
    assert gradient.abs().sum() > 0


def test_noise_belongs_to_an_image() -> None:
    whole = ImageNoise.draw(torch.Generator().manual_seed(2), BatchShard(), 5)
    for number in range(2):
        part = ImageNoise.draw(torch.Generator().manual_seed(2), BatchShard(number, 2, 5), len(range(number, 5, 2)))
        assert part.seeds == whole.seeds[number::2]
    maps = whole.normal(0, (2, 30, 40), torch.device("cpu"))
    assert torch.equal(maps, whole.normal(0, (2, 30, 40), torch.device("cpu")))
    assert not torch.equal(maps, whole.normal(1, (2, 30, 40), torch.device("cpu")))
    assert maps.std().item() == pytest.approx(1, abs=0.05)
    gumbel = whole.gumbel(0, (2, 30, 40), torch.device("cpu"))
    assert gumbel.mean().item() == pytest.approx(0.5772, abs=0.05)


# -- JTR ---------------------------------------------------------------------------------------------------------------
def test_the_stacks_differ_where_labels_are_valid_and_nowhere_else(tiny_tasks: Tasks) -> None:
    method, student = made("jtr", tiny_tasks)
    assert isinstance(method, Jtr)
    batch = random_batch(tiny_tasks, PRESENT)
    prepared = method.prepare(batch, torch.Generator().manual_seed(5), StepOptions())
    predicted, target = method._stacks(prepared, student(batch.image))
    assert predicted.requires_grad
    assert not target.requires_grad
    at = 0
    for name, task in tiny_tasks.items():
        own = slice(at, at + task.map_channels)
        at = own.stop
        labels = batch.labels[name]
        value, valid = resize_labels(task, labels, (16, 16))
        for place, row in enumerate(labels.rows.tolist()):
            given, here = task.label_map(value)[place], valid[place].expand(task.map_channels, -1, -1)
            torch.testing.assert_close(target[row, own][here], given[here])
            assert torch.equal(target[row, own][~here], predicted.detach()[row, own][~here])
        for row in labels.absent.tolist():
            assert torch.equal(target[row, own], predicted.detach()[row, own])
    assert at == predicted.shape[1]


def test_the_reconstruction_teaches_the_auto_encoder_alone_and_the_distance_the_student_too(tiny_tasks: Tasks) -> None:
    method, student = made("jtr", tiny_tasks)
    terms = terms_at(method, random_batch(tiny_tasks, PRESENT), student)
    assert (terms["joint_distance"].weight, terms["reconstruction"].weight) == (4.0, 2.0)
    weights = [student.heads["depth"].out.weight, method.joint.encoder[0][0].weight, method.joint.out.weight]  # type: ignore[index,union-attr]
    reached = {}
    for name in ("joint_distance", "reconstruction"):
        gradients = torch.autograd.grad(terms[name].total, weights, allow_unused=True, retain_graph=True)
        reached[name] = [gradient is not None and bool(gradient.any()) for gradient in gradients]
    assert reached == {"joint_distance": [True, True, False], "reconstruction": [False, True, True]}
    nothing = terms_at(method, random_batch(tiny_tasks, [[], []]), student)["joint_distance"]
    assert nothing.total.item() == pytest.approx(0, abs=1e-2)  # the stacks are the same


# -- adversarial -------------------------------------------------------------------------------------------------------
def test_student_and_discriminators_learn_from_opposite_losses(tiny_tasks: Tasks) -> None:
    method, student = made("adversarial", tiny_tasks)
    batch = random_batch(tiny_tasks, PRESENT)
    terms = terms_at(method, batch, student)
    own = student.heads["depth"].out.weight  # type: ignore[index,union-attr]
    judge = method.discriminators[list(tiny_tasks).index("depth")].layers[0].weight
    reached = {}
    for kind in ("discriminator_labels", "discriminator", "adversarial"):
        total = terms[f"{kind}/depth"].total
        gradients = torch.autograd.grad(total, [own, judge], allow_unused=True, retain_graph=True)
        reached[kind] = [gradient is not None and bool(gradient.any()) for gradient in gradients]
    assert reached == {
        "discriminator_labels": [False, True], "discriminator": [False, True], "adversarial": [True, False],
    }  # fmt: skip
    assert terms["discriminator_labels/depth"].count == batch.labels["depth"].valid.sum()
    assert terms["adversarial/depth"].count == 64 * 64 * 3
    # Written out: -log(1 - D) for the discriminator and -log D for the student, of the same predictions.
    with torch.no_grad():
        output = student(batch.image)["depth"].select(batch.labels["depth"].absent)
        maps = tiny_tasks["depth"].prediction_map(output.logits_at((64, 64)))
        d = method.discriminators[list(tiny_tasks).index("depth")](maps).double().sigmoid().numpy()
    assert terms["discriminator/depth"].total.item() == pytest.approx(-np.log(1 - d).sum(), rel=1e-4)
    assert terms["adversarial/depth"].total.item() == pytest.approx(-np.log(d).sum(), rel=1e-4)


# -- DiffusionMTL ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("level", ["feature", "prediction"])
def test_a_denoiser_that_knows_the_clean_map_is_undisturbed_by_noise(level: str, tiny_tasks: Tasks) -> None:
    network = build(f"diffusion_{level}", tiny_tasks).eval()
    assert isinstance(network, DiffusionNetwork)
    kept = np.cumprod(1 - np.array([1e-3, 1e-2]))
    np.testing.assert_allclose(kept_shares(), kept)
    if level == "prediction":
        return
    seen: list[Tensor] = []
    clean, noise = torch.randn(2, 16, 8, 8), torch.randn(2, 16, 8, 8)

    class Oracle(nn.Module):
        def forward(self, noisy: Tensor, condition: Tensor, step: int) -> Tensor:
            seen.append(noisy)
            return clean

    network.denoisers["depth"] = Oracle()
    _, feature = network._denoise("depth", clean, noise, clean)
    assert torch.equal(feature, clean)
    # What the second step gets is the clean map with the same noise, as much as there is after one step.
    for x, share in zip(seen, kept[::-1], strict=True):
        torch.testing.assert_close(
            x, float(share**0.5) * clean + float((1 - share) ** 0.5) * noise, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("level", ["feature", "prediction"])
def test_noise_is_added_in_training_alone_and_the_condition_has_no_gradient(level: str, tiny_tasks: Tasks) -> None:
    method, network = made(f"diffusion_{level}", tiny_tasks)
    batch = random_batch(tiny_tasks, PRESENT)
    with torch.no_grad():
        once, again = network(batch.image), network(batch.image)
    noisy = terms_at(method, batch, network)
    for name, task in tiny_tasks.items():
        assert torch.equal(once[name].logits, again[name].logits)
        assert noisy[f"preliminary/{name}"].weight == task.weight / 2
    other = method.prepare(batch, torch.Generator().manual_seed(6), StepOptions())
    quiet = by_name(method.terms(other, network))
    assert quiet["loss/depth"].total != noisy["loss/depth"].total
    assert torch.equal(quiet["preliminary/depth"].total, noisy["preliminary/depth"].total)
    # A loss of depth does not bend the prediction of classes that it is conditioned on.
    gradient = torch.autograd.grad(
        noisy["loss/depth"].total, network.heads["semseg"].out.weight, allow_unused=True  # type: ignore[index,union-attr]
    )  # fmt: skip
    assert gradient[0] is None


# -- task prototypes ---------------------------------------------------------------------------------------------------
def test_the_code_is_the_nearest_entry_of_the_book(tiny_tasks: Tasks) -> None:
    network = build("prototypes", tiny_tasks)
    assert isinstance(network, PrototypeNetwork)
    feature = torch.randn(2, network.codebook.shape[1], 4, 5)
    with torch.no_grad():
        code = network._nearest(feature)
    book = network.codebook.detach().numpy()
    points = feature.permute(0, 2, 3, 1).reshape(-1, book.shape[1]).numpy()
    nearest = ((points[:, None] - book[None]) ** 2).sum(-1).argmin(1)
    np.testing.assert_allclose(code.permute(0, 2, 3, 1).reshape(-1, book.shape[1]).numpy(), book[nearest], atol=1e-6)


def test_association_is_with_the_own_task_and_prediction_makes_no_image(tiny_tasks: Tasks) -> None:
    method, network = made("prototypes", tiny_tasks)
    batch = random_batch(tiny_tasks, PRESENT)
    terms = terms_at(method, batch, network)
    outputs = network(batch.image)
    for number, (name, labels) in enumerate(batch.labels.items()):
        logits = outputs[name].association[labels.rows].detach().double().numpy()  # type: ignore[attr-defined]
        assert logits.shape[1] == len(tiny_tasks)
        own = np.log(np.exp(logits).sum(1)) - logits[:, number]
        assert terms[f"association/{name}"].total.item() == pytest.approx(own.sum() * 16, rel=1e-4)
    assert all(term.total > 0 for name, term in terms.items() if name in ("enhancement", "commitment"))
    with torch.no_grad():
        assert all(output.image is None for output in network(batch.image).values())  # type: ignore[attr-defined]
