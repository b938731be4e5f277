"""Methods and discovery: given labels, discovered labels, padding, teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from method_fakes import PRESENT, Fixed, build, by_name, detach, eager
from properties import random_batch, terms_of
from tasktokens.data.sample import Batch, Labels
from tasktokens.data.soft_labels import SoftLabels
from tasktokens.discovery.pseudo_labels import discover_labels, enlarge, feature_weights, forward_views
from tasktokens.discovery.views import AS_IT_IS, second_view
from tasktokens.losses import masked_loss, mean
from tasktokens.methods import (
    Htt,
    HttMethod,
    Method,
    MtlMethod,
    StepOptions,
    StrongView,
    Supervised,
    Term,
    build_method,
)
from tasktokens.models import TaskOutput
from tasktokens.models.layers import upsample
from tasktokens.tasks import Task
from tasktokens.training.step import combine, means_of


def value(terms: list[Term]) -> Tensor:
    return combine(terms, Accelerator(cpu=True))[0]


def with_labels(batch: Batch, change: Callable[[Labels], Labels]) -> Batch:
    return replace(batch, labels={name: change(labels) for name, labels in batch.labels.items()})


def test_images_without_any_label_are_left_out_of_supervised_learning(tiny_tasks: dict[str, Task]) -> None:
    tasks = {name: tiny_tasks[name] for name in ("semseg", "depth")}
    network, method = build("mtl", tasks).eval(), Supervised(tasks, MtlMethod())
    batch = random_batch(tasks, [[], ["semseg"], [], ["depth"], ["depth", "semseg"]])
    seen: list[int] = []
    handle = network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    fewer = by_name(terms_of(method, batch, network, None))
    every = by_name(terms_of(method, replace(batch, labelled=None), network, None))
    handle.remove()
    assert seen == [3, 5]
    for name, term in every.items():
        torch.testing.assert_close(fewer[name].total, term.total)
        assert fewer[name].count == term.count
    nothing = terms_of(method, random_batch(tasks, [[], []]), network, None)
    assert all(term.total == 0 for term in nothing)


# -- stage 1 -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["htt", "mtl"])
def test_stage_1_computes_labelled_rows_only_with_the_gradients_of_all(kind: str, tiny_tasks: dict[str, Task]) -> None:
    network = build(kind, tiny_tasks).eval()
    batch = random_batch(tiny_tasks, PRESENT)
    method: Method = (
        Htt(tiny_tasks, HttMethod(confidence_loss=0)) if kind == "htt" else Supervised(tiny_tasks, MtlMethod())
    )
    seen: dict[str, int] = {}
    for name, head in network.heads.items():  # type: ignore[operator,union-attr]
        head.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, len(out.logits)))
    few = value(terms_of(method, batch, network, None))
    few_gradients = torch.autograd.grad(few, list(network.parameters()))
    assert seen == {"semseg": 2, "depth": 1, "normals": 1, "edge": 1, "saliency": 1}

    outputs = network(batch.image)
    whole = sum(
        task.weight
        * mean(*masked_loss(task, outputs[name].logits_at((64, 64))[labels.rows], labels.value, labels.valid))
        for name, task in tiny_tasks.items()
        for labels in [batch.labels[name]]
    )
    assert isinstance(whole, Tensor)
    torch.testing.assert_close(few, whole, rtol=1e-5, atol=1e-5)
    for few_one, one in zip(
        few_gradients, torch.autograd.grad(whole, list(network.parameters()), materialize_grads=True), strict=True
    ):
        torch.testing.assert_close(few_one, one, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", [HttMethod(), MtlMethod()], ids=["htt", "mtl"])
def test_a_missing_pair_costs_nothing_and_every_parameter_has_a_gradient(
    method: HttMethod | MtlMethod, tiny_tasks: dict[str, Task]
) -> None:
    network = build(method.name, tiny_tasks).train()
    batch = random_batch(tiny_tasks, [["depth"], ["depth"]])
    terms = by_name(terms_of(build_method(method, tiny_tasks), batch, network, None))
    value(list(terms.values())).backward()
    assert {name for name, term in terms.items() if term.total != 0} <= {"loss/depth", "confidence/depth"}
    assert all((term.count == 0) == (not name.endswith("/depth")) for name, term in terms.items())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    others = [p.grad for name, p in network.named_parameters() if name.startswith("heads.") and ".depth." not in name]
    assert all((gradient == 0).all() for gradient in others if gradient is not None)


def test_task_weights_scale_their_terms(tiny_tasks: dict[str, Task]) -> None:
    network = build("mtl", tiny_tasks).eval()
    heavy = {name: replace(task, weight=7.0) for name, task in tiny_tasks.items()}
    batch = random_batch(tiny_tasks, PRESENT)
    plain = value(terms_of(Supervised(tiny_tasks, MtlMethod()), batch, network, None))
    scaled = value(terms_of(Supervised(heavy, MtlMethod()), batch, network, None))
    assert scaled.item() == pytest.approx(7 * plain.item(), rel=1e-5)


def test_a_confidence_map_that_is_right_costs_less(tiny_tasks: dict[str, Task]) -> None:
    batch = random_batch(tiny_tasks, [list(tiny_tasks)])
    outputs = build("htt", tiny_tasks).eval()(batch.image)
    method = Htt(tiny_tasks, HttMethod())

    def cost(confidence: Callable[[Tensor], Tensor]) -> float:
        changed = {}
        for name, output in outputs.items():
            logits = output.logits_at((64, 64))
            right = tiny_tasks[name].correct(tiny_tasks[name].decode(logits), batch.labels[name].value).float()
            changed[name] = replace(output, logits=logits, confidence=confidence(right))
        terms = by_name(terms_of(method, batch, Fixed(changed), None))
        return sum(float(term.total) for name, term in terms.items() if name.startswith("confidence/"))

    assert (
        cost(lambda right: 20 * right - 10) < 2.0 < cost(lambda right: 0 * right) < cost(lambda right: 10 - 20 * right)
    )


def test_without_confidence_loss_there_is_no_such_term(tiny_tasks: dict[str, Task]) -> None:
    terms = terms_of(
        Htt(tiny_tasks, HttMethod(confidence_loss=0)),
        random_batch(tiny_tasks, PRESENT),
        build("htt", tiny_tasks).train(),
        None,
    )
    assert {term.name for term in terms} == {f"loss/{name}" for name in tiny_tasks}


# -- stage 2 -----------------------------------------------------------------------------------------------------------
def test_given_labels_neither_change_nor_enter_the_discovered_terms(tiny_tasks: dict[str, Task]) -> None:
    student, teacher = build("htt", tiny_tasks).eval(), build("htt", tiny_tasks, 1).eval()
    method = Htt(eager(tiny_tasks), HttMethod())
    batch = random_batch(tiny_tasks, PRESENT)
    copies = {name: labels.map(Tensor.clone) for name, labels in batch.labels.items()}
    terms = by_name(terms_of(method, batch, student, teacher))
    for name, labels in batch.labels.items():
        assert torch.equal(labels.value, copies[name].value)
        assert torch.equal(labels.valid, copies[name].valid)

    other = with_labels(
        batch, lambda labels: replace(labels, value=labels.value.flip(-1).flip(-2), valid=labels.valid.flip(-1))
    )
    changed = by_name(terms_of(method, other, student, teacher))
    assert any(changed[f"loss/{name}"].total != terms[f"loss/{name}"].total for name in tiny_tasks)
    for name, term in terms.items():
        if name.startswith(("discovered", "feature")):
            assert torch.equal(term.total, changed[name].total), name
            assert torch.equal(term.count, changed[name].count), name


def test_predictions_of_the_teacher_on_labelled_images_are_not_used(tiny_tasks: dict[str, Task]) -> None:
    student = build("htt", tiny_tasks).eval()
    batch = random_batch(tiny_tasks, PRESENT)
    taught = {name: detach(output) for name, output in build("htt", tiny_tasks, 1).eval()(batch.image).items()}
    spoilt = {
        name: replace(output, logits=output.logits.index_fill(0, batch.labels[name].rows, 1e4))
        for name, output in taught.items()
    }
    method = Htt(eager(tiny_tasks), HttMethod())
    plain, other = (by_name(terms_of(method, batch, student, Fixed(outputs))) for outputs in (taught, spoilt))
    for name in plain:
        assert torch.equal(plain[name].total, other[name].total), name
    unlabelled = {name: 64 * 64 * (4 - len(batch.labels[name].rows)) for name in tiny_tasks}
    for name, count in unlabelled.items():
        assert plain[f"discovered_loss/{name}"].count == count


def test_padding_is_neither_discovered_nor_distilled(tiny_tasks: dict[str, Task]) -> None:
    """Defect 6 of the release: what the teacher says about padding has no influence."""
    student = build("htt", tiny_tasks).eval()
    batch = random_batch(tiny_tasks, [[], ["depth"]])
    pixels = batch.pixels.clone()
    pixels[..., 32:] = False
    batch = replace(batch, pixels=pixels)
    taught = {name: detach(output) for name, output in build("htt", tiny_tasks, 1).eval()(batch.image).items()}
    assert taught["depth"].logits.shape[-1] == 16

    def spoil(x: Tensor | None) -> Tensor:
        assert x is not None
        return torch.cat([x[..., :8], torch.full_like(x[..., 8:], 77.0)], dim=-1)

    spoilt = {
        name: replace(o, logits=spoil(o.logits), feature=spoil(o.feature), confidence=spoil(o.confidence))
        for name, o in taught.items()
    }
    method = Htt(eager(tiny_tasks), HttMethod(teacher="live", views=[AS_IT_IS], feature_level=0.1, token_level=1.0))
    plain, other = (by_name(terms_of(method, batch, student, Fixed(outputs))) for outputs in (taught, spoilt))
    for name in plain:
        assert torch.equal(plain[name].total, other[name].total), name
    assert plain["discovered/semseg"].count == 2 * 16 * 8  # at the heads' size
    assert plain["discovered/depth"].count == 16 * 8
    assert plain["discovered_loss/semseg"].count == 2 * 64 * 32  # pixels that its positions stand for
    assert plain["feature/semseg"].count == 2 * 64 * 32


@pytest.mark.parametrize("confidence", ["ours", "paper"])
def test_the_teacher_gets_no_gradient_and_the_student_does(confidence: Any, tiny_tasks: dict[str, Task]) -> None:
    student, teacher = build("htt", tiny_tasks).train(), build("htt", tiny_tasks, 1).eval()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    terms = terms_of(
        Htt(eager(tiny_tasks), HttMethod(confidence=confidence)), random_batch(tiny_tasks, PRESENT), student, teacher
    )
    value(terms).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize("confidence", ["ours", "paper"])
def test_a_threshold_of_one_discovers_nothing(confidence: Any, tiny_tasks: dict[str, Task]) -> None:
    tasks = {name: replace(task, threshold=1.0) for name, task in tiny_tasks.items()}
    student, teacher = build("htt", tiny_tasks).eval(), build("htt", tiny_tasks, 1).eval()
    terms = by_name(
        terms_of(Htt(tasks, HttMethod(confidence=confidence)), random_batch(tiny_tasks, PRESENT), student, teacher)
    )
    for name in tasks:
        assert terms[f"discovered_loss/{name}"].total == 0
        assert terms[f"discovered/{name}"].total == 0
        assert terms[f"discovered_loss/{name}"].count > 0


def test_each_level_has_its_weight_and_zero_turns_it_off(tiny_tasks: dict[str, Task]) -> None:
    student, teacher = build("htt", tiny_tasks).eval(), build("htt", tiny_tasks, 1).eval()
    batch = random_batch(tiny_tasks, PRESENT)

    def weights(**levels: float) -> dict[str, float]:
        terms = terms_of(Htt(tiny_tasks, HttMethod(teacher="live", **levels)), batch, student, teacher)  # type: ignore[arg-type]
        return {term.name: term.weight for term in terms}

    off = weights(prediction_level=0, feature_level=0)
    assert {name for name, weight in off.items() if weight} == {
        f"{kind}/{t}" for kind in ("loss", "confidence") for t in tiny_tasks
    }
    some = weights(prediction_level=0.5, feature_level=2)
    assert {some[f"discovered_loss/{t}"] for t in tiny_tasks} == {0.5}
    assert {some[f"feature/{t}"] for t in tiny_tasks} == {2.0}
    assert {some[f"discovered/{t}"] for t in tiny_tasks} == {0.0}


def test_tokens_that_were_discovered_before_are_compared_by_their_angle(tiny_tasks: dict[str, Task]) -> None:
    """Truth by NumPy; an image whose labels could not be discovered counts nowhere."""
    batch, student = random_batch(tiny_tasks, PRESENT), build("htt", tiny_tasks).eval()
    outputs = {name: detach(output) for name, output in student(batch.image).items()}
    rng, soft = np.random.default_rng(0), {}
    for name, task in tiny_tasks.items():
        rows = batch.labels[name].absent[1:]
        width = outputs[name].token.shape[1]  # type: ignore[union-attr]
        logits = torch.zeros(len(rows), task.num_tokens, 16, 16, dtype=torch.float16)
        soft[name] = SoftLabels(rows, logits, torch.from_numpy(rng.normal(size=(len(rows), width)).astype(np.float32)))
    method = Htt(tiny_tasks, HttMethod(token_level=0.3))
    options = StepOptions(discovered=True)
    prepared = method.prepare(replace(batch, discovered=soft), torch.Generator().manual_seed(0), options)
    terms = by_name(method.terms(prepared, Fixed(outputs)))
    counts = method.counts(prepared)
    for name, task in tiny_tasks.items():
        own, taught = outputs[name].token[soft[name].rows].numpy(), soft[name].token.numpy()  # type: ignore[index,union-attr]
        cosine = (own * taught).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(taught, axis=1)
        term = terms[f"token/{name}"]
        assert term.total.item() == pytest.approx((1 - cosine).sum(), abs=1e-4)
        assert term.count == counts[f"token/{name}"] == len(taught)
        assert term.weight == pytest.approx(0.3 * task.weight)


def test_discovered_labels_are_compared_at_the_images_size_as_published(tiny_tasks: dict[str, Task]) -> None:
    student, teacher = build("htt", tiny_tasks).eval(), build("htt", tiny_tasks, 1).eval()
    batch, tasks = random_batch(tiny_tasks, PRESENT), eager(tiny_tasks)
    settings = HttMethod(teacher="live", views=[AS_IT_IS], compared_at="image", targets="value")
    strong = StrongView(photometric=0, grey=0, blur=0)
    terms = by_name(terms_of(Htt(tasks, settings.model_copy(update={"strong": strong})), batch, student, teacher))
    absent = batch.labels["semseg"].absent

    def enlarged(network: Any) -> Tensor:
        return F.interpolate(network(batch.image)["semseg"].logits[absent], (64, 64), mode="bilinear")

    expected = F.cross_entropy(enlarged(student), enlarged(teacher).argmax(1), reduction="sum")
    torch.testing.assert_close(terms["discovered_loss/semseg"].total, expected, rtol=1e-4, atol=1e-3)
    assert terms["discovered_loss/semseg"].count == len(absent) * 64 * 64


@pytest.mark.parametrize("weighted", [True, False])
def test_feature_distillation_has_the_tasks_weight_or_as_published_not(
    weighted: bool, tiny_tasks: dict[str, Task]
) -> None:
    student, teacher = build("htt", tiny_tasks).eval(), build("htt", tiny_tasks, 1).eval()
    tasks = tiny_tasks | {"depth": replace(tiny_tasks["depth"], weight=0.6)}
    method = Htt(tasks, HttMethod(teacher="live", feature_level=0.5, feature_task_weight=weighted))
    terms = by_name(terms_of(method, random_batch(tasks, PRESENT), student, teacher))
    assert terms["feature/depth"].weight == pytest.approx(0.3 if weighted else 0.5)


def test_discovered_labels_of_a_task_have_a_weight_of_their_own(tiny_tasks: dict[str, Task]) -> None:
    student, teacher = build("htt", tiny_tasks).eval(), build("htt", tiny_tasks, 1).eval()
    batch = random_batch(tiny_tasks, PRESENT)

    def weights(tasks: dict[str, Task]) -> dict[str, float]:
        return {term.name: term.weight for term in terms_of(Htt(tasks, HttMethod()), batch, student, teacher)}

    usual = weights(tiny_tasks)
    heavier = weights(tiny_tasks | {"depth": replace(tiny_tasks["depth"], discovered_weight=3.0)})
    assert heavier == usual | {"discovered_loss/depth": 3 * usual["discovered_loss/depth"]}
    assert usual["discovered_loss/depth"] > 0


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(
    "present", [PRESENT, [[], []], [["semseg", "depth", "normals", "edge", "saliency"]]], ids=["some", "none", "all"]
)
@pytest.mark.parametrize("stride", [1, 3])
def test_duplicating_a_batch_does_not_change_the_loss(
    stage: int, present: list[list[str]], stride: int, tiny_tasks: dict[str, Task]
) -> None:
    student = build("htt", tiny_tasks).eval()
    teacher = build("htt", tiny_tasks, 1).eval() if stage == 2 else None
    plain = StrongView(photometric=0, grey=0, blur=0)  # an image and its copy would be changed in different ways
    method = Htt(eager(tiny_tasks), HttMethod(teacher="live", strong=plain, token_level=1.0))
    batch = random_batch(tiny_tasks, present)
    size = len(batch.ids)
    twice = Batch(
        batch.ids * 2, batch.image.repeat(2, 1, 1, 1), batch.pixels.repeat(2, 1, 1, 1),
        {
            name: Labels(
                torch.cat([x.rows, x.rows + size]), torch.cat([x.absent, x.absent + size]),
                x.value.repeat(2, 1, 1, 1), x.valid.repeat(2, 1, 1, 1),
            )
            for name, x in batch.labels.items()
        },
    )  # fmt: skip
    one = value(terms_of(method, batch, student, teacher, stride))
    two = value(terms_of(method, twice, student, teacher, stride))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    assert torch.isfinite(one)


def test_a_term_is_its_sum_over_its_count_and_weight_zero_is_only_reported() -> None:
    terms = [
        Term("a", 2.0, torch.tensor(6.0, requires_grad=True), torch.tensor(3.0)),
        Term("b", 0.0, torch.tensor(5.0), torch.tensor(1.0)),
        Term("c", 1.0, torch.tensor(0.0), torch.tensor(0.0)),
    ]  # fmt: skip
    loss, summed = combine(terms, Accelerator(cpu=True))
    means = means_of(terms, summed)
    assert loss.item() == 4.0
    assert {name: mean.item() for name, mean in means.items()} == {"a": 2.0, "b": 5.0, "c": 0.0}


def test_the_stages_are_those_of_the_settings(tiny_tasks: dict[str, Task]) -> None:
    first, second = Htt(tiny_tasks, HttMethod(stage1_steps=3, stage2_steps=5, student="teacher")).stages()
    assert (first.steps, first.teacher, first.discovered) == (3, False, False)
    assert (second.steps, second.teacher, second.discovered, second.student) == (5, False, True, "teacher")
    _, live = Htt(tiny_tasks, HttMethod(stage1_steps=3, stage2_steps=5, teacher="live")).stages()
    assert (live.teacher, live.discovered) == (True, False)
    assert len(Htt(tiny_tasks, HttMethod(stage2_steps=0)).stages()) == 1
    assert len(Htt(tiny_tasks, HttMethod(stage2_steps=0, rounds=3)).stages()) == 1
    assert len(Htt(tiny_tasks, HttMethod(schedule="online", rounds=3)).stages()) == 1
    whole = Htt(tiny_tasks, HttMethod(stage1_steps=3, stage2_steps=5, student="teacher", rounds=3))
    assert whole.steps == 18
    _, *students = whole.stages()
    assert [(each.steps, each.discovered, each.student) for each in students] == [(5, True, "teacher")] * 3
    assert len({each.name for each in students}) == 3  # by which the log tells them apart
    assert [stage.steps for stage in Supervised(tiny_tasks, MtlMethod(steps=9)).stages()] == [9]


def test_the_student_sees_other_colours_and_the_teacher_does_not(tiny_tasks: dict[str, Task]) -> None:
    student, teacher = build("htt", tiny_tasks).eval(), build("htt", tiny_tasks, 1).eval()
    seen: dict[str, list[Tensor]] = {"student": [], "teacher": []}
    student.backbone.register_forward_hook(lambda _m, inputs, _o: seen["student"].append(inputs[0]))  # type: ignore[operator,union-attr]
    teacher.backbone.register_forward_hook(lambda _m, inputs, _o: seen["teacher"].append(inputs[0]))  # type: ignore[operator,union-attr]
    batch = random_batch(tiny_tasks, PRESENT)
    terms_of(
        Htt(tiny_tasks, HttMethod(teacher="live", views=list(second_view(1)))), batch, student, teacher, photometric=0.5
    )
    straight, mirrored = seen["teacher"]
    assert torch.equal(straight, batch.image)
    assert torch.equal(mirrored, batch.image.flip(-1))
    assert len(seen["student"]) == 1
    assert not torch.equal(seen["student"][0], batch.image)


# -- discovery ---------------------------------------------------------------------------------------------------------
def test_the_mirror_image_is_enlarged_on_request(tiny_tasks: dict[str, Task]) -> None:
    """What the teacher says of it comes back at the size of what it says of the image, and both count alike."""
    teacher, image = build("htt", tiny_tasks).eval(), random_batch(tiny_tasks, PRESENT).image
    larger = enlarge(image.flip(-1), 1.6)
    assert image.shape[-2:] == (64, 64)
    assert larger.shape[-2:] == (96, 96)  # 102 is nearer to 96 than to 128
    assert larger.dtype == torch.uint8
    taught = forward_views(tiny_tasks, teacher, image, second_view(1.6))
    with torch.no_grad():
        straight, mirrored = teacher(image), teacher(larger)
    for name, task in tiny_tasks.items():
        back = task.zoom_logits(task.flip_logits(mirrored[name].logits), 1.5)
        other = upsample(back, straight[name].logits.shape[-2:])
        torch.testing.assert_close(taught[name].logits, (straight[name].logits + other) / 2)
        for part in ("feature", "confidence", "token"):
            assert getattr(taught[name], part).shape == getattr(straight[name], part).shape


def test_an_image_that_is_not_enlarged_is_left_as_it_is(tiny_tasks: dict[str, Task]) -> None:
    image = random_batch(tiny_tasks, PRESENT).image[..., :50, :]  # no multiple of 32
    assert enlarge(image, 1.0) is image
    flat = torch.full_like(image, 77)
    assert torch.equal(enlarge(flat, 1.3).unique(), torch.tensor([77], dtype=torch.uint8))


def test_one_view_is_what_the_teacher_says(tiny_tasks: dict[str, Task]) -> None:
    teacher, image = build("htt", tiny_tasks).eval(), random_batch(tiny_tasks, PRESENT).image
    taught = forward_views(tiny_tasks, teacher, image)
    for name, output in teacher(image).items():
        torch.testing.assert_close(taught[name].logits, output.logits.detach())
        assert not taught[name].logits.requires_grad


@pytest.mark.parametrize("kind", ["htt", "mtl"])
def test_two_views_teach_a_mirrored_image_the_mirrored_lesson(kind: str, tiny_tasks: dict[str, Task]) -> None:
    teacher, image = build(kind, tiny_tasks).eval(), random_batch(tiny_tasks, PRESENT).image
    straight, mirrored = (
        forward_views(tiny_tasks, teacher, image, second_view()),
        forward_views(tiny_tasks, teacher, image.flip(-1), second_view()),
    )
    for name, task in tiny_tasks.items():
        a, b = straight[name], mirrored[name]
        torch.testing.assert_close(task.flip_logits(b.logits), a.logits, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(b.feature.flip(-1), a.feature, atol=1e-5, rtol=1e-4)
        assert (a.confidence is None) == (kind == "mtl")
        if a.confidence is not None and b.confidence is not None:
            torch.testing.assert_close(b.confidence.flip(-1), a.confidence, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(a.logits, teacher(image)[name].logits)


def test_only_pixels_over_the_threshold_and_no_padding_are_discovered(tiny_tasks: dict[str, Task]) -> None:
    for name, task in tiny_tasks.items():
        for rule, confidence in (("ours", task.confidence), ("paper", task.paper_confidence)):
            logits = torch.randn(2, task.num_tokens, 8, 9, generator=torch.Generator().manual_seed(1)) * 4
            pixels = torch.rand(2, 1, 8, 9, generator=torch.Generator().manual_seed(2)) > 0.3
            middle = replace(task, threshold=confidence(logits).median().item())
            found = discover_labels(middle, logits, pixels, rule)
            assert torch.equal(found.valid, (confidence(logits) > middle.threshold) & pixels), name
            assert torch.equal(found.value, task.decode(logits))
            assert found.valid.any()
            assert not found.valid.all()


def test_features_are_weighted_by_one_where_labelled_by_the_confidence_elsewhere_by_zero_on_padding() -> None:
    confidence = torch.randn(3, 1, 4, 6)
    pixels = torch.ones(3, 1, 16, 24, dtype=torch.bool)
    pixels[:, :, :, 12:] = False
    teacher = TaskOutput(torch.zeros(3, 2, 4, 6), torch.zeros(3, 5, 4, 6), confidence)
    weights = feature_weights(teacher, torch.tensor([1]), pixels)
    assert (weights[..., 3:] == 0).all()
    assert (weights[1, ..., :3] == 1).all()
    torch.testing.assert_close(weights[[0, 2]][..., :3], confidence[[0, 2]][..., :3].sigmoid())
    plain = feature_weights(replace(teacher, confidence=None), torch.tensor([1]), pixels)
    assert torch.equal(plain, (weights > 0).float())
