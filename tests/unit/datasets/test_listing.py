"""Which files a folder has: linked folders, hidden files, Unicode forms, long and blank names; in every verb."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import run_cli, write_folder
from tasktokens.datasets.files_by_id import list_files
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.index import DatasetIndex
from tasktokens.datasets.prepare import prepare, source_settings, verify
from tasktokens.errors import DataError
from tasktokens.inference.discover import discover
from tasktokens.inference.explain import explain
from tasktokens.inference.image_listing import find_images
from tasktokens.inference.predict import predict
from tasktokens.inspection.check import check
from tasktokens.inspection.init import init
from tasktokens.training.trainer import train
from tasktokens.utils import listing
from tasktokens.utils.file_kinds import IMAGE_ENDINGS

TASKS = ("semseg", "depth", "normals", "edge", "saliency")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a right there, and names may not end in a blank")


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 20, 3), value, np.uint8)).save(path)


def found(folder: Path) -> list[str]:
    return sorted(list_files(folder, IMAGE_ENDINGS))


# -- links -------------------------------------------------------------------------------------------------------------
def link_scene(root: Path, elsewhere: Path) -> set[str]:
    """Move the last images of a folder and their labels to another disk, and link them as ``scene``."""
    names = ("im06.png", "im07.png")
    for kind in ("images", *TASKS):
        (elsewhere / kind).mkdir(parents=True)
        for name in names:
            (root / kind / name).rename(elsewhere / kind / name)
        (root / kind / "scene").symlink_to(elsewhere / kind, target_is_directory=True)
    (root / "test.txt").write_text("scene/im06\nscene/im07\n")
    return {f"im{i:02d}" for i in range(6)} | {"scene/im06", "scene/im07"}


def link_all(root: Path, elsewhere: Path) -> set[str]:
    """The folders themselves are links."""
    for kind in ("images", *TASKS):
        elsewhere.mkdir(exist_ok=True)
        (root / kind).rename(elsewhere / kind)
        (root / kind).symlink_to(elsewhere / kind, target_is_directory=True)
    return {f"im{i:02d}" for i in range(8)}


def link_files(root: Path, elsewhere: Path) -> set[str]:
    elsewhere.mkdir()
    for kind in ("images", *TASKS):
        (root / kind / "im03.png").rename(elsewhere / f"{kind}.png")
        (root / kind / "im03.png").symlink_to(elsewhere / f"{kind}.png")
    return {f"im{i:02d}" for i in range(8)}


def link_loops(root: Path, elsewhere: Path) -> set[str]:
    """Links to the folder itself, to the one above, and two that point at each other."""
    for kind in ("images", *TASKS):
        (root / kind / "again").symlink_to(root / kind, target_is_directory=True)
        (root / kind / "up").symlink_to(root / kind / ".." / kind, target_is_directory=True)
    return {f"im{i:02d}" for i in range(8)}


LINKS: dict[str, Callable[[Path, Path], set[str]]] = {
    "none": lambda root, elsewhere: {f"im{i:02d}" for i in range(8)},
    "folders in a folder": link_scene,
    "the folders": link_all,
    "files": link_files,
    "loops": link_loops,
}


@pytest.mark.parametrize("links", LINKS)
def test_every_verb_sees_the_same_files_behind_links(
    links: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folder(tmp_path / "data")
    ids = LINKS[links](root, tmp_path / "disk2")
    for kind in ("images", *TASKS):  # what a viewer, macOS and notebooks leave behind
        (root / kind / "._im00.png").write_bytes(b"\0\5\x16\7")
        shutil.copytree(root / kind, root / kind / ".ipynb_checkpoints", ignore=lambda *_: ["again", "up", "scene"])
    opened: DatasetIndex = open_folder(root)  # what train and discover open
    assert set(opened.images) == ids
    assert all(set(labels) == ids for labels in opened.labels.values())
    report = check(root, workers=1)
    found = {finding.code for finding in report.findings} - {"class-not-in-split"}  # the small folder is what it is
    assert (report.examined, found) == (8, set())
    assert set(find_images([root / "images"])) == ids  # predict and explain
    assert set(find_images([f"{root}/images/**/*.png"])) == ids
    out = prepare(source_settings({"kind": "folder", "root": root}), tmp_path / "out", workers=1, quiet=True)
    (out / "images" / "._im00.png").write_bytes(b"\0")
    assert verify(out, quiet=True) == []
    prepared = open_folder(out)
    assert set(prepared.images) == ids
    for id in ids:
        assert np.array_equal(prepared.images[id].read(), opened.images[id].read())
    (root / "dataset.yaml").unlink()
    assert init(root).count == 8
    capsys.readouterr()


def test_folders_that_share_the_labels_of_one_scene_have_them_each(tmp_path: Path) -> None:
    """The same view by day and by night: the labels of one are a link to those of the other."""
    for part in ("day", "night"):
        picture(tmp_path / "images" / part / "a.png")
    picture(tmp_path / "semseg" / "day" / "a.png")
    (tmp_path / "semseg" / "night").symlink_to("day", target_is_directory=True)
    assert found(tmp_path / "semseg") == found(tmp_path / "images") == ["day/a", "night/a"]


def test_folders_that_point_at_each_other_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for a in "ab":
        picture(tmp_path / a / "x.png")
        (tmp_path / a / "other").symlink_to(tmp_path / ("a" if a == "b" else "b"), target_is_directory=True)
    assert found(tmp_path) == ["a/other/x", "a/x", "b/other/x", "b/x"]
    for a in range(8):
        for b in range(8):
            (tmp_path / f"n{a}").mkdir(exist_ok=True)
            (tmp_path / f"n{a}" / f"to{b}").symlink_to(tmp_path / f"n{b}", target_is_directory=True)
    monkeypatch.setattr(listing, "MOST_REVISITS", 500)
    with pytest.raises(DataError, match="lead to the same folders again and again"):
        found(tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    before = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return before(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot list the folder .*locked .Permission denied"):
        found(tmp_path)


def test_a_file_that_is_named_itself_is_taken_though_it_is_hidden(tmp_path: Path) -> None:
    picture(tmp_path / ".a.png")
    assert list(find_images([tmp_path / ".a.png"])) == [".a"]
    with pytest.raises(DataError, match="no images in folder"):
        find_images([tmp_path])


# -- names -------------------------------------------------------------------------------------------------------------
NAMES = ["Küche", "été", "한국", "ｶﾞ", "ở", "A.v2", "x y"]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")], ids="-".join)
@pytest.mark.parametrize("name", NAMES)
def test_both_unicode_forms_are_one_name_for_images_labels_lists_and_tables(
    name: str, forms: tuple[str, str], tmp_path: Path
) -> None:
    image, other = (unicodedata.normalize(form, f"{name}/{name}") for form in forms)
    picture(tmp_path / "images" / f"{image}.png")
    Image.fromarray(np.ones((20, 20), np.uint8)).convert("L").save(_made(tmp_path / "semseg" / f"{other}.png"))
    (tmp_path / "train.txt").write_text(f"{other}\n", encoding="utf-8")
    (tmp_path / "mine.csv").write_text(f"id,semseg\n{other},1\n", encoding="utf-8")
    tasks = "tasks: {semseg: {kind: classes, classes: [a, b]}}\n"
    (tmp_path / "dataset.yaml").write_text(f"splits: {{train: train.txt}}\nlabels: {{one: mine.csv}}\n{tasks}")
    id = unicodedata.normalize("NFC", image)
    opened = open_folder(tmp_path)
    assert (list(opened.images), list(opened.labels["semseg"]), opened.splits["train"]) == ([id], [id], (id,))
    assert opened.published["one"] == {id: ("semseg",)}
    assert opened.images[id].read().shape == (20, 20, 3)
    (tmp_path / "files.csv").write_text(f"image,semseg\nimages/{other}.png,semseg/{image}.png\n", encoding="utf-8")
    (tmp_path / "dataset.yaml").write_text(f"manifest: files.csv\n{tasks}")
    opened = open_folder(tmp_path)
    assert list(opened.labels["semseg"]) == [f"images/{id}"]
    assert opened.labels["semseg"][f"images/{id}"].read()[0].mean() == 1
    assert [list(find_images([tmp_path / "images"]))] == [[id]]


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_two_images_whose_names_differ_in_form_only_are_refused(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        picture(tmp_path / f"{unicodedata.normalize(form, 'é')}.png")
    with pytest.raises(DataError, match=r"have the same id 'é' .their names differ in their Unicode form only"):
        found(tmp_path)
    with pytest.raises(DataError, match="would both be written as 'é'"):
        find_images([tmp_path])


@pytest.mark.parametrize("id", ["x ", " x", "a /b ", "n" * 245, "ü" * 122, "x\u3000"], ids=lambda id: repr(id[:6]))
def test_odd_names_are_written_so_that_they_can_be_read_back(
    id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    for folder in ("images", "semseg"):
        for number, name in enumerate((id, "other")):
            shade = np.full((20, 24, 3) if folder == "images" else (20, 24), number + 1, np.uint8)
            shade[:5] = 0
            Image.fromarray(shade).save(_made(root / folder / f"{name}.png"))
    (root / "train.txt").write_text(f"{id}\n", encoding="utf-8")
    (root / "mine.csv").write_text(f"id,semseg\n{id},1\n", encoding="utf-8")
    (root / "dataset.yaml").write_text(
        "splits: {train: train.txt}\nlabels: {one: mine.csv}\ntasks: {semseg: {kind: classes, classes: [a, b, c]}}\n"
    )
    for _ in range(2):  # the second time from what the first wrote
        words = ("--data", "folder", "--root", root, "--out", tmp_path / "out", "--workers", 1, "--quiet")
        code, _, error = run_cli(capsys, "prepare", *words)
        assert code == 0, error
        opened = open_folder(tmp_path / "out")
        assert opened.splits["train"] == (id,)
        assert opened.published["one"] == {id: ("semseg",)}
        assert opened.images[id].read().max() == 1
        assert opened.labels["semseg"][id].read()[0].max() == 1
        if root == tmp_path / "data":
            shutil.move(tmp_path / "out", tmp_path / "first")
            root = tmp_path / "first"


def test_a_list_names_the_image_that_may_be_meant(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "s1" / "0007.png")
    (tmp_path / "dataset.yaml").write_text("splits: {train: t.txt}\ntasks: {depth: {kind: depth}}\n")
    for line in ("s1/7", "7", "0007", "S1/0007", "s1\\7", "s1/007 "):
        (tmp_path / "t.txt").write_text(line)
        with pytest.raises(DataError, match=r"t\.txt lists '.*1 such.*did you mean 's1/0007'"):
            open_folder(tmp_path)
    for line in ("s1/0007", "s1/0007.png", "s1\\0007", " s1/0007\t", "\ufeffs1/0007"):
        (tmp_path / "t.txt").write_text(line, encoding="utf-8")
        assert open_folder(tmp_path).splits["train"] == ("s1/0007",)


@pytest.mark.slow
def test_training_discovery_prediction_and_explanation_see_linked_images(
    tmp_path: Path, make_config: Callable[..., Any]
) -> None:
    root = write_folder(tmp_path / "data")
    ids = link_scene(root, tmp_path / "disk2")
    (root / "images" / "._im00.png").write_bytes(b"\0")
    (root / "train.txt").write_text("".join(f"{id}\n" for id in sorted(ids)[:-1]))
    (root / "test.txt").write_text("scene/im07\n")
    run = train(make_config(root, tmp_path / "run", method={"name": "mtl", "steps": 1}), quiet=True)
    found = open_folder(discover(run, tmp_path / "found", quiet=True, views=1).folder)
    assert set(found.images) == ids
    both = {task: {*labels, *found.discovered.get(task, ())} for task, labels in found.labels.items()}
    assert all(ids == set(found.images) for ids in both.values())
    pictures = predict(run, [root / "images"], tmp_path / "p", quiet=True)
    assert {path.relative_to(tmp_path / "p" / "pictures").with_suffix("").as_posix() for path in pictures} == ids
    drawn = explain(run, [root / "images" / "scene"], tmp_path / "e", quiet=True)
    assert [path.name for path in drawn] == ["im06.png", "im07.png"]


def test_a_name_with_an_invisible_mark_is_refused_by_name(own_folder: Path) -> None:
    (own_folder / "images" / "im00.png").rename(own_folder / "images" / "\ufeffim00.png")
    with pytest.raises(DataError, match=r"ufeffim00\.png' holds U\+FEFF, .* rename the file"):
        open_folder(own_folder)


@pytest.mark.parametrize("target", ["..", "../..", "."])
def test_a_link_in_the_images_to_a_folder_above_lists_no_label_as_image(target: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    (root / "images" / "up").symlink_to(target, target_is_directory=True)
    whole = set(list_files(root / "images", IMAGE_ENDINGS))
    assert whole == {f"im{number:02d}" for number in range(8)}
    assert {path.parent.name for path in find_images([str(root / "images")]).values()} == {"images"}
    (root / "dataset.yaml").unlink()
    assert init(root).count == 8
    linked = tmp_path / "linked"  # by its own path it lies elsewhere
    linked.mkdir()
    (linked / "images").symlink_to(root / "images", target_is_directory=True)
    assert set(list_files(linked / "images", IMAGE_ENDINGS)) == whole


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_folders_of_systems_and_links_to_themselves_hold_no_images(own_folder: Path) -> None:
    before = list(open_folder(own_folder).images)
    for name in ("@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "deep/@eaDir"):
        (own_folder / "images" / name).mkdir(parents=True)
        shutil.copy(own_folder / "images" / "im00.png", own_folder / "images" / name / "thumbnail.png")
    (own_folder / "images" / "self").symlink_to("self")
    assert list(open_folder(own_folder).images) == before
    assert list(find_images(own_folder / "images")) == before
    (own_folder / "images" / "self.png").symlink_to("self.png")  # what has the ending of a picture is named
    (finding,) = [
        each
        for each in check({"data": {"kind": "folder", "root": str(own_folder)}}).findings
        if each.code == "unreadable"
    ]
    assert finding.path == str(own_folder / "images" / "self.png")
