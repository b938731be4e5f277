"""PASCAL-Context in the layout of ATRC, against the files read independently; mistakes in them; genuine parts."""

from __future__ import annotations

import json
import os
import pickle
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from fakes import pascal_context as fake
from tasktokens.config import parse_config
from tasktokens.data.dataset import load_sample
from tasktokens.datasets.open import open_data
from tasktokens.datasets.pascal_context.dataset import open_pascal_context, pascal_tasks
from tasktokens.datasets.pascal_context.labels import NORMALS_CLASSES, PARTS_7, read_edges, read_parts
from tasktokens.errors import DataError, LabelError

# The published merging of the 24 parts of a person, part by part.
PUBLISHED_PARTS = {
    "hair": 1, "head": 1, "lear": 1, "lebrow": 1, "leye": 1, "mouth": 1, "nose": 1, "rear": 1, "rebrow": 1, "reye": 1,
    "neck": 2, "torso": 2, "luarm": 3, "ruarm": 3, "lhand": 4, "llarm": 4, "rhand": 4, "rlarm": 4,
    "luleg": 5, "ruleg": 5, "lfoot": 6, "llleg": 6, "rfoot": 6, "rlleg": 6,
}  # fmt: skip
WITH_PERSON, WITHOUT = "2008_000000", "2008_000001"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake.write(tmp_path_factory.mktemp("pascal"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A small copy that a test may change."""
    return fake.write(tmp_path / "pascal", (("2008_000000", "2008_000001"), ("2010_000000",)))


def png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def half(path: Path) -> bytes:
    stored = path.read_bytes()
    return stored[: len(stored) // 2]


# -- what is listed ----------------------------------------------------------------------------------------------------
def test_the_tasks_are_those_of_the_published_tables() -> None:
    tasks = pascal_tasks()
    assert list(tasks) == ["semseg", "human_parts", "saliency", "normals", "edge"]
    assert [task.name for task in tasks.values()] == list(tasks)
    assert len(tasks["semseg"].class_names() or ()) == 21
    assert tasks["human_parts"].class_names() == PARTS_7


def test_splits_are_those_of_the_lists(root: Path) -> None:
    collection = open_pascal_context(root)
    for name in ("train", "val"):
        assert "\n".join(collection.split(name)) + "\n" == (root / "ImageSets" / "Context" / f"{name}.txt").read_text()
    assert collection.split("test") == collection.split("val")
    for id, image in collection.images.items():
        with Image.open(root / "JPEGImages" / f"{id}.jpg") as picture:
            assert np.array_equal(image.read(), np.asarray(picture))


def test_labels_without_a_file_are_absent(own: Path) -> None:
    (own / "sal_distill" / f"{WITH_PERSON}.png").unlink()
    (own / "human_parts" / f"{WITH_PERSON}.mat").unlink()
    (own / "normals_distill" / f"{WITHOUT}.png").unlink()
    (own / "pascal-context" / "trainval" / f"{WITH_PERSON}.mat").unlink()
    labels = open_pascal_context(own).labels
    assert set(labels["semseg"]) == {WITH_PERSON, WITHOUT, "2010_000000"}
    assert set(labels["saliency"]) == {WITHOUT, "2010_000000"}
    assert set(labels["human_parts"]) == {"2010_000000"}
    assert set(labels["edge"]) == {WITHOUT, "2010_000000"}
    assert set(labels["normals"]) == {"2010_000000"}, "a label of normals needs the LabelMap too"


def test_pictures_without_a_person_have_no_label_of_parts(root: Path) -> None:
    labels = open_pascal_context(root).labels["human_parts"]
    assert set(labels) == {*(f"2008_{i:06}" for i in range(0, 10, 2)), "2010_000000"}


def test_without_the_lists_of_objects_a_picture_without_a_person_is_all_void(own: Path) -> None:
    for path in (own / "ImageSets" / "Parts").iterdir():
        path.unlink()
    labels = open_pascal_context(own).labels["human_parts"]
    assert set(labels) == {WITH_PERSON, WITHOUT, "2010_000000"}
    assert labels[WITH_PERSON].read()[1].all()
    assert not labels[WITHOUT].read()[1].any()


# -- values ------------------------------------------------------------------------------------------------------------
def test_classes_are_those_of_voc_and_else_those_of_context(own: Path) -> None:
    labels = open_pascal_context(own).labels["semseg"]
    sources = {WITH_PERSON: "VOC12", WITHOUT: "pascal-context"}
    for id, source in sources.items():
        stored = png(own / "semseg" / source / f"{id}.png")
        value, valid = labels[id].read()
        assert np.array_equal(valid, stored != 255)
        assert np.array_equal(value[0][valid], stored[valid])
    Image.fromarray(np.full((20, 24), 20, np.uint8)).save(own / "semseg" / "VOC12" / f"{WITHOUT}.png")
    assert (open_pascal_context(own).labels["semseg"][WITHOUT].read()[0] == 20).all(), "VOC comes first"


def test_parts_are_merged_as_published(own: Path) -> None:
    for id, file in open_pascal_context(own).labels["human_parts"].items():
        # By position, as the published code reads them: (class, class_ind, mask, parts) and (part_name, mask).
        objects = loadmat(own / "human_parts" / f"{id}.mat")["anno"][0][0][1][0]
        expected = np.zeros((20, 24), int)
        for thing in objects:
            for part in thing[3][0] if int(thing[1][0][0]) == 15 else ():
                expected[part[1].astype(bool)] = PUBLISHED_PARTS[str(part[0][0])]
        value, valid = file.read()
        assert valid.all()
        assert np.array_equal(value[0], expected)
        assert set(np.unique(value)) == {0, 1, 2, 3, 6}


@pytest.mark.parametrize("name", PUBLISHED_PARTS)
def test_each_part_has_its_published_class(tmp_path: Path, name: str) -> None:
    values = fake.anno(20, 24, person=True)
    values["objects"][0, 1]["parts"][0, 0]["part_name"] = name
    values["objects"][0, 1]["parts"] = values["objects"][0, 1]["parts"][:, :1]  # one alone is no array in scipy
    values["objects"] = values["objects"][:, 1:]
    savemat(tmp_path / "one.mat", {"anno": values})
    value, valid = read_parts(tmp_path / "one.mat")
    assert valid.all()
    assert set(np.unique(value)) == {0, PUBLISHED_PARTS[name]}


def test_of_overlapping_parts_the_last_counts(tmp_path: Path) -> None:
    values = fake.anno(20, 24, person=True)
    for part in values["objects"][0, 1]["parts"][0]:
        part["mask"] = np.ones((20, 24), np.uint8)
    savemat(tmp_path / "all.mat", {"anno": values})
    last = list(fake.PARTS)[-1]
    assert (read_parts(tmp_path / "all.mat")[0] == PUBLISHED_PARTS[last]).all()


def test_people_without_annotated_parts_make_no_label(tmp_path: Path) -> None:
    savemat(tmp_path / "none.mat", {"anno": fake.anno(20, 24, person=True, annotated=False)})
    value, valid = read_parts(tmp_path / "none.mat")
    assert value.shape == (1, 20, 24)
    assert not valid.any()


def test_saliency_is_above_127(root: Path) -> None:
    for id, file in open_pascal_context(root).labels["saliency"].items():
        value, valid = file.read()
        assert valid.all()
        assert np.array_equal(value[0], png(root / "sal_distill" / f"{id}.png") > 127)
        assert 0 < value.mean() < 1


def test_normals_face_the_camera_and_the_floor_points_up(root: Path) -> None:
    for id, file in open_pascal_context(root).labels["normals"].items():
        value, valid = file.read()
        stored = png(root / "normals_distill" / f"{id}.png").astype(np.float64) * 2 / 255 - 1
        stored /= np.linalg.norm(stored, axis=-1, keepdims=True)
        classes = loadmat(root / "pascal-context" / "trainval" / f"{id}.mat")["LabelMap"]
        assert np.array_equal(valid, classes != fake.GRASS), "NYU Depth knows no grass"
        # x right is minus left, y down is minus up, z forward is minus towards the camera.
        np.testing.assert_allclose(np.moveaxis(value, 0, -1)[valid], -stored[valid], atol=1e-5)
        np.testing.assert_allclose(value[:, -1, 0], [0, -1, 0], atol=0.02)
        np.testing.assert_allclose(np.linalg.norm(value, axis=0), 1, atol=1e-5)


def test_the_classes_with_normals_are_those_that_both_data_sets_name() -> None:
    # Spot checks by name in the published lists of 459 and 894 classes.
    known = {"floor": 158, "wall": 440, "person": 284, "chair": 72, "table": 397, "dog": 113, "tvmonitor": 427}
    unknown = {"grass": 187, "sky": 360, "tree": 420, "road": 324, "bus": 45, "horse": 207, "motorbike": 258,
               "sheep": 347, "unknown": 431, "window blinds": 455}  # fmt: skip
    assert set(known.values()) <= set(NORMALS_CLASSES)
    assert not set(unknown.values()) & set(NORMALS_CLASSES)
    assert len(set(NORMALS_CLASSES)) == len(NORMALS_CLASSES) == 170


def test_edges_are_where_the_label_map_changes(root: Path) -> None:
    for id, file in open_pascal_context(root).labels["edge"].items():
        classes = loadmat(root / "pascal-context" / "trainval" / f"{id}.mat")["LabelMap"]
        height, width = classes.shape
        expected = np.array([
            [any(classes[y, x] != classes[v, u] for v, u in ((y + 1, x), (y, x + 1)) if v < height and u < width)
             for x in range(width)] for y in range(height)
        ])  # fmt: skip
        value, valid = file.read()
        assert valid.all()
        assert value.dtype == np.float32
        assert np.array_equal(value[0], expected)


def test_one_boundary_is_one_line(tmp_path: Path) -> None:
    classes = np.full((12, 16), 7, np.uint16)
    classes[:, 9:] = 459
    savemat(tmp_path / "map.mat", {"LabelMap": classes})
    value = read_edges(tmp_path / "map.mat")[0][0]
    assert value.sum() == 12
    assert value[:, 8].all()


# -- published splits --------------------------------------------------------------------------------------------------
def test_published_splits_are_by_name_and_show_no_parts_where_nobody_is(tmp_path: Path) -> None:
    text = (files("tasktokens") / "assets" / "splits" / "pascal_context_one_label.csv").read_text()
    rows = [line.split(",") for line in text.split()[1:]]
    shown = {row[0]: row[1:].index("1") for row in rows}
    (tmp_path / "JPEGImages").mkdir()
    for id in [*shown, "2010_000001"]:
        (tmp_path / "JPEGImages" / f"{id}.jpg").touch()
    for folder in ("Context", "Parts"):
        (tmp_path / "ImageSets" / folder).mkdir(parents=True)
    # Another order than that of the release.
    (tmp_path / "ImageSets" / "Context" / "train.txt").write_text("\n".join(sorted(shown, reverse=True)))
    (tmp_path / "ImageSets" / "Context" / "val.txt").write_text("2010_000001")
    tasks = list(pascal_tasks())
    published = open_pascal_context(tmp_path).published
    assert list(published) == ["one", "random"]
    assert published["one"] == {id: (tasks[at],) for id, at in shown.items()}

    people = {id: [15] if i % 3 == 0 else [] for i, id in enumerate(shown)}
    (tmp_path / "ImageSets" / "Parts" / "train.txt").write_text(json.dumps(people))
    seen = open_pascal_context(tmp_path).published["one"]
    alone = {id for id, at in shown.items() if tasks[at] == "human_parts" and not people[id]}
    assert alone
    assert seen == {id: () if id in alone else (tasks[at],) for id, at in shown.items()}


def test_a_part_of_the_data_has_no_published_split(root: Path) -> None:
    assert open_pascal_context(root).published == {}


# -- mistakes ----------------------------------------------------------------------------------------------------------
def test_a_folder_without_the_layout_is_told_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "VOC2012").mkdir()
    with pytest.raises(DataError, match=r"no known layout of PASCAL-Context.*ATRC:.*found VOC2012"):
        open_pascal_context(tmp_path)
    with pytest.raises(DataError, match=r"does not exist"):
        open_pascal_context(tmp_path / "nowhere")
    fake.write(tmp_path / "data", (("a",), ("b",)))
    with pytest.raises(DataError, match=r"data has one: give that folder"):
        open_pascal_context(tmp_path)


@pytest.mark.parametrize("name", ["train", "val"])
def test_a_missing_or_empty_list_is_named(own: Path, name: str) -> None:
    path = own / "ImageSets" / "Context" / f"{name}.txt"
    path.write_text("\n")
    with pytest.raises(DataError, match=rf"{name}\.txt of images is empty"):
        open_pascal_context(own)
    path.unlink()
    with pytest.raises(DataError, match=rf"{name}\.txt of images"):
        open_pascal_context(own)


def test_a_listed_image_that_is_missing_is_named(own: Path) -> None:
    (own / "JPEGImages" / f"{WITHOUT}.jpg").unlink()
    with pytest.raises(DataError, match=rf"train\.txt lists '{WITHOUT}' \(1 such\)"):
        open_pascal_context(own)


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"2008_000000": 15}', "2008_000000\n2008_000001"])
def test_a_broken_list_of_objects_is_named(own: Path, text: str) -> None:
    (own / "ImageSets" / "Parts" / "train.txt").write_text(text)
    with pytest.raises(DataError, match=r"Parts/train\.txt must be JSON"):
        open_pascal_context(own)


@pytest.mark.parametrize("broken", ["short", "text", "gone"])
def test_broken_files_name_themselves(own: Path, broken: str) -> None:
    collection = open_pascal_context(own)
    for path in own.rglob(f"{WITH_PERSON}.*"):
        if broken == "gone":
            path.unlink()
        else:
            path.write_bytes(half(path) if broken == "short" else b"not a picture, and no matrix either")
    with pytest.raises(DataError, match=rf"{WITH_PERSON}\.jpg"):
        collection.images[WITH_PERSON].read()
    for task in collection.tasks:
        with pytest.raises(LabelError, match=rf"{WITH_PERSON}\.(png|mat)"):
            collection.labels[task][WITH_PERSON].read()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"other": np.zeros((3, 3))}, r"holds no 'anno'"),
        ({"anno": np.zeros((3, 3))}, r"anno\.objects"),
        ({"anno": {"objects": np.zeros((0, 0))}}, r"anno\.objects"),
        ({"anno": {"objects": {"class_ind": 15.0, "parts": np.zeros((0, 0))}}}, r"anno\.objects"),
        (
            {"anno": {"objects": {"class_ind": 15.0, "mask": np.zeros((20, 24)), "parts":
             {"part_name": "tail", "mask": np.zeros((20, 24))}}}},
            r"part 'tail' of a person; known: hair, head",
        ),
        (
            {"anno": {"objects": {"class_ind": 15.0, "mask": np.zeros((20, 24)), "parts":
             {"part_name": "hair", "mask": np.ones((4, 5))}}}},
            r"anno\.objects",
        ),
    ],
)  # fmt: skip
def test_wrong_parts_files_are_explained(own: Path, values: dict[str, Any], message: str) -> None:
    savemat(own / "human_parts" / f"{WITH_PERSON}.mat", values)
    with pytest.raises(LabelError, match=rf"{WITH_PERSON}\.mat.*{message}"):
        open_pascal_context(own).labels["human_parts"][WITH_PERSON].read()


@pytest.mark.parametrize("values", [{"Labels": np.zeros((20, 24))}, {"LabelMap": "grass"}, {"LabelMap": [{"a": 1}]}])
def test_a_wrong_label_map_is_explained(own: Path, values: dict[str, Any]) -> None:
    savemat(own / "pascal-context" / "trainval" / f"{WITH_PERSON}.mat", values)
    labels = open_pascal_context(own).labels
    for task in ("edge", "normals"):
        with pytest.raises(LabelError, match=r"LabelMap"):
            labels[task][WITH_PERSON].read()


def test_wrong_values_in_pictures_are_explained(own: Path) -> None:
    labels = open_pascal_context(own).labels
    Image.fromarray(np.full((20, 24), 21, np.uint8)).save(own / "semseg" / "VOC12" / f"{WITH_PERSON}.png")
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(own / "sal_distill" / f"{WITH_PERSON}.png")
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(own / "normals_distill" / f"{WITH_PERSON}.png")
    for task, message in {"semseg": r"class id \[21\]", "saliency": "8-bit grey PNG", "normals": "3 channels"}.items():
        with pytest.raises(LabelError, match=message):
            labels[task][WITH_PERSON].read()
    Image.fromarray(fake.normals(10, 12)).save(own / "normals_distill" / f"{WITH_PERSON}.png")
    with pytest.raises(LabelError, match=r"12x10 pixels.*24x20.*same size"):
        labels["normals"][WITH_PERSON].read()


def test_normals_of_another_frame_are_refused(own: Path) -> None:
    path = own / "normals_distill" / f"{WITHOUT}.png"
    Image.fromarray(255 - png(path)).save(path)
    with pytest.raises(LabelError, match=r"only 0% of the normals.*face the camera"):
        open_pascal_context(own).labels["normals"][WITHOUT].read()


# -- use ---------------------------------------------------------------------------------------------------------------
def test_only_the_labels_shown_are_opened(own: Path) -> None:
    collection = open_pascal_context(own)
    for folder in ("human_parts", "sal_distill", "normals_distill", "pascal-context"):
        for path in (own / folder).rglob(f"{WITH_PERSON}.*"):
            path.write_bytes(b"hidden")
    assert list(load_sample(collection, WITH_PERSON, ("semseg",)).labels) == ["semseg"]


def test_what_is_listed_can_be_sent_to_other_processes(root: Path) -> None:
    collection = open_pascal_context(root)
    copy = pickle.loads(pickle.dumps(collection))
    for task, labels in collection.labels.items():
        for ours, theirs in zip(labels[WITH_PERSON].read(), copy.labels[task][WITH_PERSON].read(), strict=True):
            assert np.array_equal(ours, theirs)


def test_plain_label_files_are_what_the_task_reads(root: Path) -> None:
    collection = open_pascal_context(root)
    for task, labels in collection.labels.items():
        for file in labels.values():
            assert file.plain == (task == "semseg")


def test_a_run_opens_it_with_one_label_an_image(root: Path) -> None:
    data = open_data(parse_config({"data": {"kind": "pascal_context", "root": str(root), "labels": "one"}}))
    assert list(data.tasks) == list(pascal_tasks())
    assert all(len(shown) == 1 for shown in data.train.values())
    for id, (task,) in data.train.items():
        sample = load_sample(data.collection, id, (task,))
        assert sample.labels[task].value.shape[-2:] == sample.image.shape[-2:]


# -- genuine -----------------------------------------------------------------------------------------------------------
def test_genuine_parts_have_the_order_of_our_classes(tmp_path: Path) -> None:
    beside_the_repository = Path(__file__).resolve().parents[4] / "shared" / "data"
    samples = Path(os.environ.get("TASKTOKENS_SHARED_DATA", beside_the_repository)) / "pascal_samples"
    if not samples.is_dir():
        pytest.skip("genuine samples not found: set TASKTOKENS_SHARED_DATA to the folder with pascal_samples")
    task = pascal_tasks()["human_parts"]
    rows: dict[int, list[float]] = {}
    for path in sorted(samples.glob("*.png")):
        value, valid = task.read(path)
        with Image.open(path.with_suffix(".jpg")) as image:
            assert valid.shape == image.size[::-1]
        for part in range(1, 7):
            if (found := np.nonzero((value[0] == part) & valid)[0]).size:
                rows.setdefault(part, []).append(found.mean() / len(valid))
    middle = {PARTS_7[part]: np.mean(values) for part, values in rows.items()}
    assert middle["head"] < middle["torso"] < middle["upper leg"] < middle["lower leg"]
    assert middle["head"] < middle["upper arm"] < middle["lower arm"] < middle["lower leg"]
