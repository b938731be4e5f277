"""The EXIF orientation of images: stored pixels are read, labels on the shown picture are told, `--upright` turns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Array
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.index import exif_orientation, image_size, read_image
from tasktokens.datasets.prepare import prepare, source_settings
from tasktokens.errors import LabelError
from tasktokens.inference.image_files import readable
from tasktokens.inspection.check import check
from tasktokens.inspection.init import init
from tasktokens.tasks.files import read_array
from tasktokens.utils.orientation import turn_upright

TURNED = range(2, 9)
SIZES = [(24, 36), (30, 30)]
SPEC = "tasks: {semseg: {kind: classes, classes: [a, b, c, d]%s}}\n"


def shown(stored: Array, orientation: int) -> Array:
    """As EXIF 2.32 says it: which corner of the shown picture the stored row 0 and column 0 are; pixel by pixel."""
    height, width = stored.shape[:2]
    place = {
        1: lambda y, x: (y, x), 2: lambda y, x: (y, width - 1 - x), 3: lambda y, x: (height - 1 - y, width - 1 - x),
        4: lambda y, x: (height - 1 - y, x), 5: lambda y, x: (x, y), 6: lambda y, x: (x, height - 1 - y),
        7: lambda y, x: (width - 1 - x, height - 1 - y), 8: lambda y, x: (width - 1 - x, y),
    }[orientation]  # fmt: skip
    out = np.zeros((width, height) if orientation > 4 else (height, width), stored.dtype)
    out = np.zeros((*out.shape, *stored.shape[2:]), stored.dtype)
    for y in range(height):
        for x in range(width):
            out[place(y, x)] = stored[y, x]
    return out


def ids_of(size: tuple[int, int]) -> Array:
    """Four quarters of different classes: no turn leaves them as they are."""
    ids = np.zeros(size, np.uint8)
    ids[: size[0] // 2, size[1] // 3 :] = 1
    ids[size[0] // 2 :, : size[1] // 4] = 2
    ids[size[0] // 2 :, size[1] // 4 :] = 3
    return ids


def picture_of(ids: Array) -> Array:
    return np.stack([ids * 60, 255 - ids * 50, ids * 20 + 7], axis=-1).astype(np.uint8)


def save(path: Path, array: Array, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(np.ascontiguousarray(array)).save(path, exif=exif, **lossless)


def turned_folder(
    root: Path, orientation: int, size: tuple[int, int], drawn_on: str, more: str = ""
) -> tuple[Array, Array]:
    """An image with a tag and a label; returns the picture as it is shown and the label on it."""
    ids = ids_of(size)
    save(root / "images" / "a.png", picture_of(ids), orientation)
    save(root / "semseg" / "a.png", shown(ids, orientation) if drawn_on == "shown" else ids)
    (root / "dataset.yaml").write_text(SPEC % more)
    return shown(picture_of(ids), orientation), shown(ids, orientation)


@pytest.mark.parametrize("ending", [".png", ".tif", ".webp", ".jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_stored_pixels_are_read_and_turned_as_the_tag_says(orientation: int, ending: str, tmp_path: Path) -> None:
    stored = picture_of(ids_of((24, 36)))
    path = tmp_path / f"a{ending}"
    save(path, stored, orientation)
    assert exif_orientation(path) == orientation
    assert image_size(path) == (24, 36)
    image = read_image(path)
    exact = ending != ".jpg"
    assert np.abs(image.astype(int) - stored).max() <= (0 if exact else 120)
    assert np.abs(image.astype(int) - stored).mean() < (1e-9 if exact else 12)
    assert np.array_equal(turn_upright(image, orientation), shown(image, orientation))
    if exact:
        assert np.array_equal(read_array(path), stored)


@pytest.mark.parametrize("drawn_on", ["shown", "stored"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("orientation", TURNED)
def test_check_names_the_orientation_and_never_advises_to_resize(
    orientation: int, size: tuple[int, int], drawn_on: str, tmp_path: Path
) -> None:
    turned_folder(tmp_path, orientation, size, drawn_on)
    report = check(tmp_path, workers=1)
    found = [f for f in report.findings if f.code == "exif-orientation"]
    assert len(found) == 1
    assert f"EXIF orientation {orientation} (shown " in found[0].message
    # Told to lie on the stored pixels by its size: nothing is wrong with the label.
    sure = orientation > 4 and size[0] != size[1] and drawn_on == "stored"
    assert found[0].severity == ("warning" if sure else "error")
    assert ("--upright" in found[0].message) == (not sure), "it would refuse such a label"
    assert not any(word in f.message for f in report.findings for word in ("resize", "nearest", "crop"))


@pytest.mark.parametrize("orientation", TURNED)
def test_an_image_without_labels_and_a_label_with_a_tag_are_named_too(orientation: int, tmp_path: Path) -> None:
    turned_folder(tmp_path, orientation, (24, 36), "shown")
    (tmp_path / "semseg" / "a.png").unlink()
    assert ("warning", "exif-orientation", None) in {
        (f.severity, f.code, f.task) for f in check(tmp_path, workers=1).findings
    }
    save(tmp_path / "images" / "a.png", picture_of(ids_of((24, 36))))
    save(tmp_path / "semseg" / "a.png", ids_of((24, 36)), orientation)
    found = [f for f in check(tmp_path, workers=1).errors if f.code == "exif-orientation"]
    assert [(f.task, f.id) for f in found] == [("semseg", "a")]


@pytest.mark.parametrize("orientation", [1, *TURNED])
def test_init_says_it_and_takes_a_turned_label_for_right(orientation: int, tmp_path: Path) -> None:
    turned_folder(tmp_path, orientation, (24, 36), "shown")
    (tmp_path / "images" / "p.png").write_bytes((tmp_path / "images" / "a.png").read_bytes())
    guess = init(tmp_path, force=True)
    assert ("1 of their images have an EXIF orientation" in guess.tasks[0].saw) == (orientation > 1)
    assert "crop" not in guess.tasks[0].saw
    assert "resize" not in guess.tasks[0].spec


@pytest.mark.parametrize("label_size", ["same", "double"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("orientation", [1, *TURNED])
def test_upright_turns_the_image_and_leaves_the_label_that_was_drawn_on_it(
    orientation: int, size: tuple[int, int], label_size: str, tmp_path: Path
) -> None:
    picture, label = turned_folder(tmp_path / "data", orientation, size, "shown", ", resize: true")
    if label_size == "double":
        save(tmp_path / "data" / "semseg" / "a.png", label.repeat(2, 0).repeat(2, 1))
    source = source_settings({"kind": "folder", "root": tmp_path / "data"})
    out = open_folder(prepare(source, tmp_path / "out", workers=1, quiet=True, upright=True))
    assert np.array_equal(out.images["a"].read(), picture)
    assert np.array_equal(out.labels["semseg"]["a"].read()[0][0], label)
    assert exif_orientation(out.images["a"].path) == 1
    assert not [f for f in check(tmp_path / "out", workers=1).findings if f.code == "exif-orientation"]


@pytest.mark.parametrize("resize", ["", ", resize: true"], ids=["", "resize"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_labels_that_cannot_fit_are_refused_with_the_reason(orientation: int, resize: str, tmp_path: Path) -> None:
    turned_folder(tmp_path / "shown", orientation, (24, 36), "shown", resize)
    folder = open_folder(tmp_path / "shown")
    with pytest.raises(LabelError, match=rf"EXIF orientation {orientation} .*--upright") as error:
        folder.labels["semseg"]["a"].read_for(folder.images["a"], (24, 36))
    assert "crop" not in str(error.value)
    turned_folder(tmp_path / "stored", orientation, (24, 36), "stored")
    source = source_settings({"kind": "folder", "root": tmp_path / "stored"})
    with pytest.raises(LabelError, match="the size of its image's stored pixels, which --upright turns"):
        prepare(source, tmp_path / "out", workers=1, quiet=True, upright=True)


def test_predicting_turned_photographs_warns_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        save(tmp_path / f"{number}.png", picture_of(ids_of((24, 36))), 6 if number % 2 else 1)
    list(readable({str(i): tmp_path / f"{i}.png" for i in range(4)}, "", quiet=True))
    error = " ".join(capsys.readouterr().err.split())
    assert error.count("warning: 2 of 4 images have an EXIF orientation") == 1


@pytest.mark.parametrize("ending", [".tif", ".png", ".webp"])
def test_of_several_pages_or_frames_the_first_is_taken_with_a_warning(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (Image.fromarray(picture_of(ids)) for ids in (ids_of((24, 36)), ids_of((24, 36))[::-1]))
    (tmp_path / "images").mkdir()
    lossless = {"lossless": True} if ending == ".webp" else {}
    first.save(tmp_path / "images" / f"a{ending}", save_all=True, append_images=[second, first, second], **lossless)
    save(tmp_path / "semseg" / "a.png", ids_of((24, 36)))
    (tmp_path / "dataset.yaml").write_text(SPEC % "")
    assert np.array_equal(open_folder(tmp_path).images["a"].read(), np.asarray(first))
    found = [(f.severity, f.code) for f in check(tmp_path, workers=1).findings]
    assert found == [("warning", "image-many-pages")]
    assert "4 pages or frames" in check(tmp_path, workers=1).findings[0].message
    list(readable({"a": tmp_path / "images" / f"a{ending}"}, "", quiet=True))
    assert "warning: 1 of 1 images have several pages" in " ".join(capsys.readouterr().err.split())
