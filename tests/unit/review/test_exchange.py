"""Labels go to an annotation tool and come back: what is accepted, corrected, rejected, and what is refused."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import run_cli
from fakes.discovered import snapshot, sources, stored, write_discovered
from tasktokens.datasets.formats import FORMATS
from tasktokens.errors import DataError, RunExistsError, TaskTokensError
from tasktokens.review.decisions import open_decisions
from tasktokens.review.exporting import export_labels
from tasktokens.review.importing import import_labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_discovered(tmp_path / "found")


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of a zip in which each file is changed, or left out."""
    out = path.with_name(f"changed-{path.name}")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return out


def exported(folder: Path, format: str, **options: object) -> Path:
    task = None if format == "maps" else "semseg"
    return export_labels(folder, format, folder.parent / f"{format}.zip", task=task, quiet=True, **options).path  # type: ignore[arg-type]


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "label_studio"])
def test_labels_that_come_back_as_they_were_are_accepted(folder: Path, format: str) -> None:
    before = snapshot(folder)
    found = import_labels(folder, exported(folder, format), quiet=True)
    assert found.format == format
    assert {each.outcome for each in found.labels} == {"accepted"}
    assert len(found.labels) == 4
    after = snapshot(folder)
    assert {name for name in before if before[name] != after[name]} == {"provenance.csv"}
    kept = {key: source for key, source in sources(folder).items() if key[1] == "depth" or key[0] < "room/2"}
    assert {source for (_, task), source in sources(folder).items() if task == "semseg"} == {"given", "accepted"}
    assert set(kept.values()) == {"given", "discovered"}


def test_predictions_of_label_studio_that_nobody_submitted_stay_open(folder: Path) -> None:
    before = snapshot(folder)
    found = import_labels(folder, exported(folder, "label_studio"), quiet=True)
    assert {each.outcome for each in found.labels} == {"open"}
    assert snapshot(folder) == before
    assert not (folder / ".review").exists()


def test_annotations_of_label_studio_count(folder: Path) -> None:
    def submit(name: str, content: bytes) -> bytes:
        if name != "tasks.json":
            return content
        tasks = json.loads(content)
        for number, task in enumerate(tasks):
            task["annotations"] = [{"result": task["predictions"][0]["result"]}]
            if number == 1:
                choice = {"type": "choices", "from_name": "decision", "value": {"choices": ["rejected"]}}
                task["annotations"][0]["result"] = [*task["annotations"][0]["result"], choice]
        tasks[2]["annotations"][0]["was_cancelled"] = True
        return json.dumps(tasks).encode()

    found = import_labels(folder, rewrite(exported(folder, "label_studio"), submit), quiet=True)
    assert [each.outcome for each in found.labels] == ["accepted", "rejected", "open", "accepted"]


def test_a_corrected_mask_changes_these_pixels_alone(folder: Path) -> None:
    archive = exported(folder, "cityscapes_png")
    id = "room/5"
    old = stored(folder, "semseg", id)
    new = old.copy()
    new[5:9, 10:20] = 1
    new[20, :7] = 255

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith(f"{id}_gtFine_labelIds.png"):
            return content
        buffer = io.BytesIO()
        Image.fromarray(new).save(buffer, "PNG")
        return buffer.getvalue()

    before = snapshot(folder)
    found = import_labels(folder, rewrite(archive, change), quiet=True)
    corrected = [each for each in found.labels if each.outcome == "corrected"]
    assert [(each.id, each.changed, each.pixels) for each in corrected] == [(id, int((old != new).sum()), old.size)]
    assert f"corrected ({int((old != new).sum())} of {old.size} pixels" in found.lines()[0]
    assert (stored(folder, "semseg", id) == new).all()
    assert sources(folder)[id, "semseg"] == "corrected"
    after = snapshot(folder)
    assert {name for name in before if before[name] != after[name]} == {f"semseg/{id}.png", "provenance.csv"}
    with open_decisions(folder) as decisions:  # the whole import is taken back at once
        assert len(decisions.undo()) == 4
        assert decisions.undo() == ()
    assert snapshot(folder) == before


def test_tags_of_cvat_accept_and_reject(folder: Path) -> None:
    def tag(name: str, content: bytes) -> bytes:
        if name != "annotations.xml":
            return content
        return content.replace(b"</image>", b'<tag label="rejected" source="manual" /></image>', 1)

    found = import_labels(folder, rewrite(exported(folder, "cvat"), tag), quiet=True)
    assert [each.outcome for each in found.labels] == ["rejected", "accepted", "accepted", "accepted"]
    assert sources(folder)[found.labels[0].id, "semseg"] == "rejected"


def test_images_of_cvat_without_shapes_were_not_looked_at(folder: Path) -> None:
    def clear(name: str, content: bytes) -> bytes:
        return (
            re.sub(rb"(<image [^>]*>)(?:<mask.*?</mask>)*", rb"\1", content) if name == "annotations.xml" else content
        )

    before = snapshot(folder)
    found = import_labels(folder, rewrite(exported(folder, "cvat"), clear), quiet=True)
    assert {each.outcome for each in found.labels} == {"open"}
    assert snapshot(folder) == before


def test_the_first_are_the_most_doubtful(folder: Path) -> None:
    with zipfile.ZipFile(exported(folder, "coco", top=2)) as file:
        images = json.loads(file.read("annotations.json"))["images"]
    assert [image["file_name"] for image in images] == ["room/5.png", "room/4.png"]
    (folder / "review.csv").write_text("id,task,reason\nroom/2,semseg,rare\n")
    with zipfile.ZipFile(exported(folder, "coco", top=2, overwrite=True)) as file:
        images = json.loads(file.read("annotations.json"))["images"]
    assert [image["file_name"] for image in images] == ["room/2.png", "room/5.png"]


class TestGivenLabels:
    def corrected(self, folder: Path) -> Path:
        archive = exported(folder, "voc", given=True)
        return rewrite(archive, lambda name, content: self.draw(content) if name.endswith("room/0.png") and
                       name.startswith("SegmentationClass") else content)  # fmt: skip

    def draw(self, content: bytes) -> bytes:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            image.putpixel((9, 9), 2 - min(2, image.getpixel((9, 9))) or 1)
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
        return buffer.getvalue()

    def test_are_refused_when_they_changed(self, folder: Path) -> None:
        archive, before = self.corrected(folder), snapshot(folder)
        with pytest.raises(DataError, match=r"room/0.*--given keep"):
            import_labels(folder, archive, quiet=True)
        assert snapshot(folder) == before

    def test_are_kept_byte_for_byte(self, folder: Path) -> None:
        archive, before = self.corrected(folder), snapshot(folder)
        found = import_labels(folder, archive, given="keep", quiet=True)
        assert found.kept_given == ("room/0",)
        after = snapshot(folder)
        assert {name for name in before if before[name] != after[name]} == {"provenance.csv"}

    def test_are_replaced_when_the_person_says_so(self, folder: Path) -> None:
        archive, before = self.corrected(folder), snapshot(folder)
        import_labels(folder, archive, given="replace", quiet=True)
        after = snapshot(folder)
        assert {name for name in before if before[name] != after[name]} == {"provenance.csv", "semseg/room/0.png"}
        assert sources(folder)["room/0", "semseg"] == "given"


class TestMaps:
    """Depth and the like: accept, reject, or mask."""

    def decide(self, folder: Path, words: dict[str, str], **masks: np.ndarray) -> Path:
        def change(name: str, content: bytes) -> bytes:
            if name == "decisions.csv":
                lines = content.decode().splitlines()
                rows = [line.split(",") for line in lines[1:]]
                for row in rows:
                    row[2] = words.get(f"{row[1]}/{row[0]}", "")
                return "\n".join([lines[0], *(",".join(row) for row in rows)]).encode()
            for id, mask in masks.items():
                if name == f"mask/depth/room/{id[1:]}.png":
                    buffer = io.BytesIO()
                    Image.fromarray(mask).save(buffer, "PNG")
                    return buffer.getvalue()
            return content

        return rewrite(exported(folder, "maps"), change)

    def test_every_task_is_exported_with_previews(self, folder: Path) -> None:
        with zipfile.ZipFile(exported(folder, "maps")) as file:
            names = file.namelist()
            assert file.read("depth/room/3.png") == (folder / "depth/room/3.png").read_bytes()
        assert {"semseg/room/3.png", "preview/depth/room/3.jpg", "mask/semseg/room/3.png"} <= set(names)

    def test_accept_reject_and_mask(self, folder: Path) -> None:
        keep = np.full((24, 36), 255, np.uint8)
        keep[4:8] = 0
        old = stored(folder, "depth", "room/4")
        archive = self.decide(
            folder, {"depth/room/2": "accept", "depth/room/3": "reject", "depth/room/4": "mask"}, _4=keep
        )
        found = import_labels(folder, archive, quiet=True)
        by_task = sources(folder)
        assert [by_task[f"room/{n}", "depth"] for n in range(6)] == [
            "given", "given", "accepted", "rejected", "corrected", "discovered",
        ]  # fmt: skip
        assert (stored(folder, "depth", "room/4") == np.where(keep > 0, old, 0)).all()
        assert found.lines()[0].startswith("depth: 1 accepted, 1 corrected (144 of 864 pixels")

    def test_values_cannot_be_repainted(self, folder: Path) -> None:
        def change(name: str, content: bytes) -> bytes:
            if name != "depth/room/3.png":
                return content
            buffer = io.BytesIO()
            Image.fromarray((stored(folder, "depth", "room/3") // 256).astype(np.uint8)).save(buffer, "PNG")
            return buffer.getvalue()

        before = snapshot(folder)
        with pytest.raises(DataError, match="not repainted"):
            import_labels(folder, rewrite(exported(folder, "maps"), change), quiet=True)
        assert snapshot(folder) == before

    @pytest.mark.parametrize(
        ("mask", "expected"),
        [(np.full((9, 9), 255, np.uint8), "make them equal"), (np.full((24, 36), 77, np.uint8), "without smoothing")],
    )
    def test_wrong_masks_are_refused(self, folder: Path, mask: np.ndarray, expected: str) -> None:
        before = snapshot(folder)
        with pytest.raises(DataError, match=expected):
            import_labels(folder, self.decide(folder, {"depth/room/4": "mask"}, _4=mask), quiet=True)
        assert snapshot(folder) == before


# -- refused -----------------------------------------------------------------------------------------------------------
def _text(old: bytes, new: bytes) -> Callable[[Path], Path]:
    return lambda path: rewrite(path, lambda _, content: content.replace(old, new))


def _truncated(path: Path) -> Path:
    out = path.with_name("cut.zip")
    out.write_bytes(path.read_bytes()[:-200])
    return out


def _damaged(path: Path) -> Path:
    """A zip whose list is whole, while a member is not."""
    content = bytearray(path.read_bytes())
    place = content.index(b"annotations.xml") + 60
    content[place : place + 400] = b"\x55" * 400
    out = path.with_name("damaged.zip")
    out.write_bytes(bytes(content))
    return out


def _with_member(name: str, content: bytes = b"x") -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        out = path.with_name("more.zip")
        shutil.copy(path, out)
        with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, content)
        return out

    return make


def _bomb(path: Path) -> Path:
    out = path.with_name("bomb.zip")
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("annotations.xml", "w", force_zip64=True) as member,
    ):
        for _ in range(600):
            member.write(bytes(2**20))
    return out


def _xml(text: bytes) -> Callable[[Path], Path]:
    return lambda path: rewrite(path, lambda name, content: text if name == "annotations.xml" else content)


_LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>
<annotations><image id="0" name="&b;" width="36" height="24"/></annotations>"""
_OUTSIDE = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/hostname">]>
<annotations><image id="0" name="&a;" width="36" height="24"/></annotations>"""

WRONG = {
    "another image": (_text(b'name="room/5', b'name="hall/5'), "does not have"),
    "another class": (_text(b'label="wall"', b'label="roof"'), "class 'roof'"),
    "another size": (_text(b'width="36" height="24"', b'width="30" height="24"'), "pixels, its image"),
    "a mask outside": (_text(b'left="0"', b'left="30"'), "damaged"),
    "run lengths that do not add up": (_text(b'rle="', b'rle="1, '), "damaged"),
    "text for run lengths": (_text(b'rle="', b'rle="x'), "damaged"),
    "one image twice": (_text(b'name="room/5', b'name="room/4'), "twice"),
    "a shape without pixels": (_text(b"</image>", b'<polyline label="wall" points="1,1;2,2"/></image>'), "no pixels"),
    "a given label that was not exported": (_text(b'name="room/5', b'name="room/0'), "given labels came back changed"),
    "truncated": (_truncated, "no whole zip"),
    "damaged": (_damaged, ""),
    "a path that leads out": (_with_member("../../evil.txt"), "leads out"),
    "an absolute path": (_with_member("/etc/evil.txt"), "leads out"),
    "a bomb": (_bomb, "inflate"),
    "entities": (_xml(_LAUGHS), "document type"),
    "a file of the machine": (_xml(_OUTSIDE), "document type"),
    "half an XML": (_xml(b"<annotations><image id='0'"), "no whole XML"),
    "no annotations": (_xml(b"<annotations></annotations>"), "no annotation of any image"),
    "something else": (_xml(b"<html></html>"), "no format that is known"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_files_are_refused_and_change_nothing(
    what: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, expected = WRONG[what]
    archive = make(exported(folder, "cvat"))
    before = snapshot(folder)
    code, _, errors = run_cli(capsys, "review", "import", folder, archive, "-q")
    assert code == 2, errors
    assert expected in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert snapshot(folder) == before
    assert not (folder / ".review").exists()
    assert not list(folder.parent.rglob("evil*"))


@pytest.mark.parametrize("format", list(FORMATS))
def test_random_damage_is_refused_or_changes_no_file_in_half(format: str, folder: Path) -> None:
    rng = np.random.default_rng(0)
    archive = exported(folder, format, images=False)
    names = [name for name in zipfile.ZipFile(archive).namelist() if not name.startswith("images")]
    for trial in range(12):
        chosen = names[rng.integers(len(names))]

        def damage(name: str, content: bytes, chosen: str = chosen, trial: int = trial) -> bytes:
            if name != chosen:
                return content
            if trial % 2:
                return content[: rng.integers(len(content) + 1)]
            changed = bytearray(content)
            for place in rng.integers(0, max(1, len(changed)), 4):
                changed[place] = rng.integers(256)
            return bytes(changed)

        before = snapshot(folder)
        try:
            import_labels(folder, rewrite(archive, damage), format, quiet=True)
        except TaskTokensError:
            assert snapshot(folder) == before
        else:
            with open_decisions(folder) as decisions:
                decisions.undo()
            assert {n: c for n, c in snapshot(folder).items() if n != "provenance.csv"} == {
                n: c for n, c in before.items() if n != "provenance.csv"
            }


def test_the_command_line_says_what_happened(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zip = folder.parent / "annotations.zip"
    code, out, errors = run_cli(capsys, "review", "export", folder, "--format", "cvat", "--out", zip, "--top", 2, "-q")
    assert (code, errors) == (0, "")
    assert "2 labels of 2 images" in out
    code, out, _ = run_cli(capsys, "review", "import", folder, zip, "-q")
    assert (code, out) == (0, "semseg: 2 accepted, 0 corrected, 0 rejected\n")
    code, out, _ = run_cli(capsys, "review", folder)
    assert code == 0
    assert len(out.splitlines()) == 4  # images
    code, _, errors = run_cli(capsys, "review", "export", folder, "--format", "cvat", "--out", zip)
    assert (code, "--overwrite" in errors) == (2, True)
    code, _, errors = run_cli(capsys, "review", "export", folder, "--format", "cvta", "--out", zip, "--overwrite")
    assert (code, "did you mean 'cvat'" in errors) == (2, True)
    code, out, _ = run_cli(capsys, "review", "undo", folder)
    assert (code, out) == (0, "2 labels are as they were before\n")
    assert "accepted" not in sources(folder).values()


def test_two_do_not_review_at_a_time(folder: Path) -> None:
    archive = exported(folder, "coco")
    with open_decisions(folder), pytest.raises(RunExistsError, match="another process"):
        import_labels(folder, archive, quiet=True)


def test_images_that_tools_would_turn_are_refused(folder: Path) -> None:
    path = folder / "images/room/5.png"
    with Image.open(path) as image:
        tags = image.getexif()
        tags[274] = 6
        image.save(path, exif=tags)
    with pytest.raises(DataError, match=r"room/5\.png has an EXIF orientation"):
        exported(folder, "cvat")
    assert not list(folder.parent.glob("*.zip"))


def test_nothing_to_review_is_said(folder: Path) -> None:
    import_labels(folder, exported(folder, "coco"), quiet=True)
    with pytest.raises(DataError, match="waits for review"):
        export_labels(folder, "coco", folder.parent / "again.zip", quiet=True)
