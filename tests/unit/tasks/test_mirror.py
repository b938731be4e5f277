"""Left and right: which names are pairs, what the setting takes, and that labels and logits are mirrored alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasktokens.data.sample import Label, Sample
from tasktokens.data.transforms import flip
from tasktokens.errors import ConfigError
from tasktokens.tasks import Task, build_task
from tasktokens.tasks.mirror import flow, mirrored_pairs

PARTS = ["none", "left arm", "right arm", "torso", "leg-r", "leg-l"]
PAIRS = [["left arm", "right arm"], ["leg-l", "leg-r"]]
SWAPPED = np.array([0, 2, 1, 3, 5, 4])
COLOURS = {name: [20 * number, 0, 250] for number, name in enumerate(PARTS)}
SPECS: dict[str, dict[str, Any]] = {
    "names": {"kind": "classes", "classes": PARTS, "mirror": PAIRS},
    "numbers": {"kind": "classes", "classes": PARTS, "mirror": [[1, 2], [5, 4]]},
    "colours": {"kind": "classes", "colours": COLOURS, "mirror": PAIRS},
    "own ids": {"kind": "classes", "classes": PARTS, "ids": {9: 0, 7: 1, 5: 2, 3: 3, 2: 4, 1: 5}, "mirror": PAIRS},
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def parts(**changes: Any) -> Task:
    return build_task("parts", {"kind": "classes", "classes": PARTS, **changes})


# -- names -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "pair",
    [
        ("left arm", "right arm"), ("left-arm", "right-arm"), ("left_arm", "right_arm"), ("Left Arm", "Right Arm"),
        ("LEFT_ARM", "RIGHT_ARM"), ("arm left", "arm right"), ("arm (left)", "arm (right)"),
        ("arm, left", "arm, right"),
        ("upper-left-arm", "upper-right-arm"), ("upperLeftArm", "upperRightArm"), ("leftArm", "rightArm"),
        ("leftarm", "rightarm"), ("armleft", "armright"), ("arm_l", "arm_r"), ("L_arm", "R_arm"), ("L-Arm", "R-Arm"),
        ("l arm", "r arm"), ("arm.L", "arm.R"), ("armL", "armR"), ("LArm", "RArm"), ("left", "right"), ("L", "R"),
        ("lh-bankssts", "rh-bankssts"), ("L1", "R1"), ("left lane, left edge", "right lane, right edge"),
        ("front left wheel 2", "front right wheel 2"), ("arm_links", "arm_rechts"),
        ("main gauche", "main droite"),
        ("lhand", "rhand"), ("LHAND", "RHAND"), ("LHand", "RHand"), ("l_hand", "r_hand"), ("hand.L", "hand.R"),
        ("hand.L.001", "hand.R.001"), ("handl", "handr"), ("hand_l", "hand_r"), ("hand (l)", "hand (r)"),
        ("Hand-L", "Hand-R"), ("lefthand", "righthand"), ("left hand", "right hand"), ("HandLeft", "HandRight"),
        ("leye", "reye"), ("lear", "rear"), ("lebrow", "rebrow"), ("luarm", "ruarm"), ("llarm", "rlarm"),
        ("lfuleg", "rfuleg"), ("lbho", "rbho"), ("lwing", "rwing"), ("person lfoot", "person rfoot"),
        ("rear left wheel", "rear right wheel"), ("Lt kidney", "Rt kidney"), ("Lt. lung", "Rt. lung"),
        ("ctx-lh-cuneus", "ctx-rh-cuneus"), ("Left-Hippocampus", "Right-Hippocampus"), ("port_wing", "starboard_wing"),
        ("linker Arm", "rechter Arm"), ("linke_hand", "rechte_hand"), ("bras gauche", "bras droit"),
        ("mano izquierda", "mano derecha"), ("ojo izquierdo", "ojo derecho"), ("braço esquerdo", "braço direito"),
        ("mano sinistra", "mano destra"), ("левая рука", "правая рука"),
        ("left upper arm 2", "right upper arm 2"), ("1_left_shoe", "1_right_shoe"), ("LEFT ARM", "RIGHT ARM"),
        ("左腕", "右腕"), ("left_arm", "Right-Arm"), ("left 2 l tank", "right 2 l tank"),
    ],
)  # fmt: skip
def test_names_that_differ_by_left_and_right_only_are_a_pair(pair: tuple[str, str]) -> None:
    for names in (["none", *pair, "torso"], [pair[1], "none", pair[0]]):
        assert mirrored_pairs(names) == [pair]
    line = yaml.safe_load(f"mirror: {flow([pair])}")
    assert line == {"mirror": [list(pair)]}, "what is proposed can be pasted"


@pytest.mark.parametrize(
    "names",
    [
        ["bright", "light"], ["left arm", "right leg"], ["left arm", "arm"], ["car", "cal"], ["upright", "torso"],
        ["lamp", "ramp"], ["lock", "rock"], ["lice", "rice"], ["lake", "rake"], ["lead", "read"], ["lash", "rash"],
        ["light", "right"], ["lip", "rip"], ["rear", "front"], ["u_lip", "l_lip"], ["row", "low"], ["lent", "rent"],
        ["port", "airport"],
        ["road", "load"], ["rung", "lung"], ["left arm", "left_arm", "right arm"], [], ["left"], ["class_1", "class_2"],
    ],
    ids=str,
)  # fmt: skip
def test_other_names_are_no_pair(names: list[str]) -> None:
    assert mirrored_pairs(names) == []


def test_each_of_several_pairs_is_found_once() -> None:
    assert [list(pair) for pair in mirrored_pairs(PARTS)] == PAIRS


@given(st.lists(st.text(max_size=12), unique=True, max_size=8))
def test_any_names_give_pairs_of_distinct_names(names: list[str]) -> None:
    found = [name for pair in mirrored_pairs(names) for name in pair]
    assert len(found) == len(set(found))
    assert set(found) <= set(names)


# -- the setting -------------------------------------------------------------------------------------------------------
@every_spec
def test_a_task_keeps_its_pairs(spec: dict[str, Any]) -> None:
    task = build_task("parts", spec)
    assert task.spec()["mirror"] == PAIRS
    assert build_task("parts", yaml.safe_load(yaml.safe_dump(task.spec()))).spec() == task.spec()


def test_a_task_without_pairs_says_nothing_of_them() -> None:
    assert "mirror" not in parts().spec()
    assert parts(mirror=None) == parts(mirror=[]) == parts()


@pytest.mark.parametrize(
    ("mirror", "words"),
    [
        ([["left arn", "right arm"]], ["'left arn'", "did you mean 'left arm'?"]),
        ([["left arm", "tail"]], ["'mirror'", "'tail'", "not in classes"]),
        ([[1, 6]], ["0 to 5", "found 6"]),
        ([[-1, 2]], ["0 to 5", "found -1"]),
        ([["left arm", "left arm"]], ["'left arm' 2 times"]),
        ([[1, 2], ["left arm", "torso"]], ["'left arm' 2 times"]),
        (["left arm", "right arm"], ["list of pairs", "[[left arm, right arm]]"]),
        ([[1, 2, 3]], ["list of pairs"]),
        ({"left arm": "right arm"}, ["list of pairs"]),
        ("left arm, right arm", ["list of pairs"]),
        (True, ["list of pairs"]),
        ([[1, None]], ["must be text", "None"]),
        ([[1.5, 2]], ["'1.5'", "not in classes"]),
        ([[True, 2]], ["'true'", "not in classes"]),
    ],
    ids=str,
)
def test_a_wrong_pair_is_refused_in_one_sentence(mirror: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parts(mirror=mirror)
    for word in ("'parts'", *words):
        assert word in str(error.value)


def test_tasks_of_other_pairs_are_not_one_task() -> None:
    """Joined data sets have one task of a name, which would drop the pairs of the other."""
    assert not parts().predicts_like(parts(mirror=PAIRS))


# -- labels and logits -------------------------------------------------------------------------------------------------
@every_spec
def test_a_mirrored_label_has_its_classes_swapped(spec: dict[str, Any]) -> None:
    task = build_task("parts", spec)
    rng = np.random.default_rng(0)
    ids, valid = rng.integers(0, 6, (9, 14)).astype(np.uint8), rng.random((9, 14)) > 0.3
    image = torch.from_numpy(rng.integers(0, 256, (3, 9, 14), dtype=np.uint8))
    label = Label(torch.from_numpy(ids)[None], torch.from_numpy(valid)[None])
    sample = Sample("a", image, torch.ones(1, 9, 14, dtype=torch.bool), {"parts": label})
    once = flip(sample, {"parts": task})
    found = once.labels["parts"]
    assert found.value.dtype == torch.uint8
    np.testing.assert_array_equal(found.value[0].numpy(), SWAPPED[ids[:, ::-1]])
    np.testing.assert_array_equal(found.valid[0].numpy(), valid[:, ::-1])
    twice = flip(once, {"parts": task})
    assert torch.equal(twice.labels["parts"].value, label.value)
    assert torch.equal(twice.image, image)


@every_spec
def test_logits_are_mirrored_as_labels_are(spec: dict[str, Any]) -> None:
    task = build_task("parts", spec)
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, 6, (2, 1, 5, 8)).astype(np.uint8))
    one_hot = torch.nn.functional.one_hot(ids[:, 0].long(), 6).movedim(-1, 1).float()
    assert torch.equal(task.decode(task.flip_logits(one_hot)), torch.stack([task.flip(each) for each in ids]))
    logits = torch.randn(2, 6, 5, 8)
    assert torch.equal(task.flip_logits(task.flip_logits(logits)), logits)


def test_a_written_label_of_a_mirrored_image_is_read_back(tmp_path: Path) -> None:
    task = build_task("parts", SPECS["own ids"])
    ids = torch.arange(6, dtype=torch.uint8).view(1, 2, 3)
    task.write(tmp_path / "a.png", task.flip(ids).numpy())
    assert torch.equal(task.flip(torch.from_numpy(task.read(tmp_path / "a.png")[0])), ids)


def test_without_pairs_classes_only_move() -> None:
    ids, logits = torch.arange(6, dtype=torch.uint8).view(1, 2, 3), torch.randn(1, 6, 2, 3)
    assert torch.equal(parts().flip(ids), ids.flip(-1))
    assert torch.equal(parts().flip_logits(logits), logits.flip(-1))


# -- what a data set would teach ---------------------------------------------------------------------------------------
def test_unpaired_classes_are_named_with_the_whole_line_to_add() -> None:
    (found,) = parts(mirror=[["none", "torso"]]).mirror_suspicions()
    line = next(text for text in found.message.split("  ") if text.startswith("mirror:"))
    again = parts(**yaml.safe_load(line))
    assert again.mirror_suspicions() == []
    assert again.spec()["mirror"] == [["none", "torso"], *PAIRS]
    assert (found.severity, found.code) == ("warning", "left-right-unpaired")


def test_a_pair_of_which_one_class_is_never_seen_is_a_warning() -> None:
    task = parts(mirror=PAIRS)
    ids = np.array([[[0, 1, 3, 4, 5]]], np.uint8)
    found = task.summarise(task.examine(ids, np.ones((1, 5), bool))).suspicions
    (lone,) = [each for each in found if each.code == "mirror-class-never-seen"]
    assert "'left arm' is in the labels and 'right arm' is in none" in lone.message
