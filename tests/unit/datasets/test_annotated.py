"""Data sets in formats of annotation tools, written by hand: what each pixel is, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import run_cli
from tasktokens.config import parse_config
from tasktokens.datasets.annotated import read_entry
from tasktokens.datasets.formats import FORMATS, Entry
from tasktokens.datasets.index import DatasetIndex, ImageFile
from tasktokens.errors import DataError, LabelError, TaskTokensError

HEIGHT, WIDTH = 8, 12
V = 255


def photo(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (9, 90, 200)).save(path)


def opened(kind: str, root: Path, **settings: Any) -> DatasetIndex:
    data: Any = parse_config({"data": {"kind": kind, "root": str(root), **settings}}, "a test").data
    index: DatasetIndex = data.open_index((1, 1))
    return index


def read(index: DatasetIndex, id: str) -> Any:
    """The classes of an image, 255 for no label."""
    value, valid = index.labels["semseg"][id].read_for(index.images[id], (HEIGHT, WIDTH))
    return np.where(valid, value[0], V)


def drawn(*boxes: tuple[slice, slice, int], rest: int = V) -> Any:
    found = np.full((HEIGHT, WIDTH), rest)
    for rows, columns, of in boxes:
        found[rows, columns] = of
    return found


# -- COCO --------------------------------------------------------------------------------------------------------------
def coco(annotations: list[dict[str, Any]], images: int = 2) -> dict[str, Any]:
    size = {"height": HEIGHT, "width": WIDTH}
    return {
        "images": [{"id": 7 + n, "file_name": f"{n:012d}.jpg", **size} for n in range(images)],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [{"id": n, "iscrowd": 0, **each} for n, each in enumerate(annotations)],
    }  # fmt: skip


SQUARE = [1, 1, 5, 1, 5, 4, 1, 4]  # x, y: columns 1 to 4, rows 1 to 3


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    for n in range(2):
        photo(tmp_path / "train2017" / f"{n:012d}.jpg")
    photo(tmp_path / "val2017" / f"{5:012d}.jpg")
    folder = tmp_path / "annotations"
    folder.mkdir()
    runs = [5 * HEIGHT + 2, 3, 5, 3, HEIGHT * WIDTH - 5 * HEIGHT - 13]  # columns 5 and 6, rows 2 to 4
    train = coco([
        {"image_id": 7, "category_id": 3, "segmentation": [SQUARE]},
        {"image_id": 7, "category_id": 18, "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs}, "iscrowd": 1},
    ])  # fmt: skip
    (folder / "instances_train2017.json").write_text(json.dumps(train))
    val = coco([{"image_id": 7, "category_id": 18, "segmentation": [SQUARE, [8, 0, 12, 0, 12, 8, 8, 8]]}], images=1)
    val["images"][0]["file_name"] = f"{5:012d}.jpg"
    (folder / "instances_val2017.json").write_text(json.dumps(val))
    (folder / "captions_train2017.json").write_text("{}")
    return tmp_path


class TestCoco:
    def test_polygons_and_run_lengths(self, coco_root: Path) -> None:
        index = opened("coco", coco_root)
        assert index.tasks["semseg"].class_names() == ("car", "dog")
        assert {split: len(ids) for split, ids in index.splits.items()} == {"train": 2, "val": 1}
        car, dog = (slice(1, 4), slice(1, 5), 0), (slice(2, 5), slice(5, 7), 1)
        assert (read(index, "train2017/000000000000") == drawn(car, dog)).all()
        assert (read(index, "val2017/000000000005") == drawn((*car[:2], 1), (slice(0, 8), slice(8, 12), 1))).all()

    def test_absence_is_no_label_unless_said(self, coco_root: Path) -> None:
        assert set(opened("coco", coco_root).labels["semseg"]) == {"train2017/000000000000", "val2017/000000000005"}
        index = opened("coco", coco_root, absent="background")
        assert index.tasks["semseg"].class_names() == ("background", "car", "dog")
        assert (read(index, "train2017/000000000001") == 0).all()
        expected = drawn((slice(1, 4), slice(1, 5), 1), (slice(2, 5), slice(5, 7), 2), rest=0)
        assert (read(index, "train2017/000000000000") == expected).all()

    def test_pixels_that_two_classes_claim_have_no_label(self, coco_root: Path) -> None:
        path = coco_root / "annotations/instances_train2017.json"
        other = [3, 1, 7, 1, 7, 4, 3, 4]
        both = [
            {"image_id": 7, "category_id": 3, "segmentation": [SQUARE]},
            {"image_id": 7, "category_id": 18, "segmentation": [other]},
        ]
        path.write_text(json.dumps(coco(both)))
        found = read(opened("coco", coco_root), "train2017/000000000000")
        assert (found == drawn((slice(1, 4), slice(1, 3), 0), (slice(1, 4), slice(5, 7), 1))).all()

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"segmentation": [[1, 1, 2]]}, "three points"),
            ({"segmentation": [[1e9, 0, 5, 5, 0, 9]]}, "far outside"),
            ({"segmentation": [["a", 1, 2, 3, 4, 5]]}, "damaged"),
            ({"segmentation": {"size": [9, 9], "counts": [81]}}, "pixels, its image"),
            ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 10**12]}}, "add up"),
            ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "~~~"}}, "damaged"),
            ({"category_id": 99}, "not listed"),
            ({"image_id": 99}, "not listed"),
        ],
    )
    def test_damage_is_named(self, coco_root: Path, change: dict[str, Any], expected: str) -> None:
        path = coco_root / "annotations/instances_train2017.json"
        path.write_text(json.dumps(coco([{"image_id": 7, "category_id": 3, "segmentation": [SQUARE]} | change])))
        with pytest.raises((DataError, LabelError), match=expected):
            read(opened("coco", coco_root), "train2017/000000000000")

    def test_a_missing_photograph_is_named(self, coco_root: Path) -> None:
        (coco_root / "val2017" / f"{5:012d}.jpg").unlink()
        with pytest.raises(DataError, match=r"000000000005\.jpg"):
            opened("coco", coco_root)

    def test_two_photographs_of_one_name_are_refused(self, coco_root: Path) -> None:
        photo(coco_root / "other" / f"{5:012d}.jpg")
        with pytest.raises(DataError, match=r"could be .*data\.images"):
            opened("coco", coco_root)

    def test_it_becomes_a_folder(self, coco_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "prepared"
        words = ("--from", "coco", "--root", coco_root, "--out", out, "--workers", 1, "-q")
        code, _, errors = run_cli(capsys, "prepare", *words)
        assert code == 0, errors
        assert errors == "pixels without an annotation are void (--absent background changes that)\n"
        stored = np.asarray(Image.open(out / "semseg/train2017/000000000000.png"))
        assert (stored == drawn((slice(1, 4), slice(1, 5), 0), (slice(2, 5), slice(5, 7), 1))).all()
        assert not (out / "semseg/train2017/000000000001.png").exists()

    def test_init_says_what_reads_it(self, coco_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, errors = run_cli(capsys, "init", coco_root)
        assert code == 2
        assert "tasktokens prepare --from coco" in errors


def test_coco_panoptic(tmp_path: Path) -> None:
    photo(tmp_path / "val2017/1.jpg")
    ids = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    ids[2:4] = (1, 2, 3)  # 1 + 2 * 256 + 3 * 65536
    ids[5] = (9, 0, 0)
    (tmp_path / "annotations/panoptic_val2017").mkdir(parents=True)
    Image.fromarray(ids).save(tmp_path / "annotations/panoptic_val2017/1.png")
    values = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "sky"}, {"id": 2, "name": "tree"}],
        "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": [
            {"id": 1 + 2 * 256 + 3 * 65536, "category_id": 2}, {"id": 9, "category_id": 1},
        ]}],
    }  # fmt: skip
    path = tmp_path / "annotations/panoptic_val2017.json"
    path.write_text(json.dumps(values))
    index = opened("panoptic", tmp_path)
    assert (read(index, "val2017/1") == drawn((slice(2, 4), slice(None), 1), (slice(5, 6), slice(None), 0))).all()
    values["annotations"][0]["segments_info"].pop()  # type: ignore[index]
    path.write_text(json.dumps(values))
    with pytest.raises(LabelError, match="segment 9"):
        read(opened("panoptic", tmp_path), "val2017/1")


# -- VOC and Cityscapes ------------------------------------------------------------------------------------------------
def test_voc_by_the_ids_of_its_palette(tmp_path: Path) -> None:
    for id in ("a", "b", "c"):
        photo(tmp_path / f"JPEGImages/{id}.jpg")
    stored = np.full((HEIGHT, WIDTH), 255, np.uint8)
    stored[:4], stored[4:6] = 0, 15
    image = Image.fromarray(stored)
    image.putpalette([7] * 768)
    (tmp_path / "SegmentationClass").mkdir()
    image.save(tmp_path / "SegmentationClass/a.png")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("b\n")
    (tmp_path / "ImageSets/Segmentation/trainval.txt").write_text("a\nb\n")
    index = opened("voc", tmp_path)
    assert index.splits == {"train": ("a",), "val": ("b",)}
    assert (read(index, "a") == stored).all()
    names = index.tasks["semseg"].class_names()
    assert names is not None
    assert (len(names), names[15]) == (21, "person")
    stored[0, 0] = 30
    Image.fromarray(stored).save(tmp_path / "SegmentationClass/a.png")
    with pytest.raises(LabelError, match="class id 30"):
        read(opened("voc", tmp_path), "a")


def test_voc_by_the_colours_of_its_legend(tmp_path: Path) -> None:
    photo(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / "SegmentationClass").mkdir()
    coloured = np.full((HEIGHT, WIDTH, 3), (224, 224, 192), np.uint8)
    coloured[:3], coloured[3:5] = (10, 20, 30), (0, 0, 0)
    Image.fromarray(coloured).save(tmp_path / "SegmentationClass/a.png")
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nroof:10,20,30::\n")
    index = opened("voc", tmp_path)
    assert index.tasks["semseg"].class_names() == ("background", "roof")
    assert (read(index, "a") == drawn((slice(0, 3), slice(None), 1), (slice(3, 5), slice(None), 0))).all()
    coloured[7, 7] = (1, 1, 1)
    Image.fromarray(coloured).save(tmp_path / "SegmentationClass/a.png")
    with pytest.raises(LabelError, match=r"colour \[1, 1, 1\]"):
        read(opened("voc", tmp_path), "a")


def test_cityscapes_style(tmp_path: Path) -> None:
    photo(tmp_path / "leftImg8bit/train/bonn/x.png")
    (tmp_path / "gtFine/train/bonn").mkdir(parents=True)
    stored = np.full((HEIGHT, WIDTH), 255, np.uint8)
    stored[2:5] = 1
    Image.fromarray(stored).save(tmp_path / "gtFine/train/bonn/x_gtFine_labelIds.png")
    (tmp_path / "label_colors.txt").write_text("1 2 3 road\n4 5 6 side walk\n")
    index = opened("cityscapes_png", tmp_path)
    assert index.tasks["semseg"].class_names() == ("road", "side walk")
    assert (read(index, "train/bonn/x") == stored).all()


# -- CVAT and Label Studio ---------------------------------------------------------------------------------------------
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>
  <label><name>cat</name><attributes/></label><label><name>dog</name><attributes/></label>
  <label><name>void</name><attributes/></label>
</labels></task></meta>
<image id="0" name="sub/a.png" subset="Train" width="12" height="8">
  <polygon label="dog" source="manual" occluded="0" points="0.00,0.00;12.00,0.00;12.00,4.00;0.00,4.00" z_order="1"/>
  <box label="cat" source="manual" occluded="0" xtl="0.0" ytl="2.0" xbr="6.0" ybr="8.0" z_order="0"/>
  <mask label="void" source="manual" occluded="0" rle="1, 2, 1" left="8" top="0" width="4" height="1" z_order="2"/>
</image>
<image id="1" name="sub/b.png" width="12" height="8"></image>
</annotations>"""


def test_cvat_shapes_in_layers(tmp_path: Path) -> None:
    photo(tmp_path / "images/sub/a.png")
    photo(tmp_path / "images/sub/b.png")
    (tmp_path / "annotations.xml").write_text(CVAT)
    index = opened("cvat", tmp_path)
    expected = drawn((slice(2, 8), slice(0, 6), 0), (slice(0, 4), slice(None), 1), (slice(0, 1), slice(9, 11), V))
    assert index.tasks["semseg"].class_names() == ("cat", "dog")
    assert (read(index, "sub/a") == expected).all()
    assert set(index.labels["semseg"]) == {"sub/a"}
    assert index.splits == {"train": ("sub/a",)}
    with_void = opened("cvat", tmp_path, void=[])
    assert with_void.tasks["semseg"].class_names() == ("cat", "dog", "void")
    assert (read(with_void, "sub/a")[0, 9:11] == 2).all()


def test_label_studio_polygons(tmp_path: Path) -> None:
    photo(tmp_path / "images/a.png")
    region = {
        "type": "polygonlabels", "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0,
        "value": {"points": [[0, 0], [50, 0], [50, 100], [0, 100]], "polygonlabels": ["cat"]},
    }  # fmt: skip
    task = {"data": {"image": "/data/local-files/?d=images/a.png"}, "annotations": [{"result": [region]}]}
    (tmp_path / "export.json").write_text(json.dumps([task]))
    assert (read(opened("label_studio", tmp_path), "a") == drawn((slice(None), slice(0, 6), 0))).all()


# -- YOLO and Parquet --------------------------------------------------------------------------------------------------
@pytest.fixture
def yolo_root(tmp_path: Path) -> Path:
    for id in ("train/a", "train/b", "val/c"):
        photo(tmp_path / f"images/{id}.jpg")
        (tmp_path / f"labels/{id}.txt").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"labels/{id}.txt").write_text("1 0 0 0.5 0 0.5 0.5 0 0.5\n")
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n")
    return tmp_path


def test_yolo(yolo_root: Path) -> None:
    index = opened("yolo", yolo_root)
    assert index.splits == {"train": ("train/a", "train/b"), "val": ("val/c",)}
    assert (read(index, "train/a") == drawn((slice(0, 4), slice(0, 6), 1))).all()


@pytest.mark.parametrize(
    ("line", "expected"),
    [("5 0 0 1 0 1 1", "class 5"), ("0 0.5 0.5 0.2 0.2", "a box"), ("0 0 0 1", "numbers"), ("x y", "has"),
     ("0 0 0 1 0 9 9", "numbers"), ("0 nan 0 1 0 1 1", "numbers")],
)  # fmt: skip
def test_wrong_lines_of_yolo_are_named(yolo_root: Path, line: str, expected: str) -> None:
    (yolo_root / "labels/train/a.txt").write_text(f"0 0 0 1 0 1 1\n{line}\n")
    with pytest.raises(LabelError, match=f"line 2 of .*{expected}"):
        read(opened("yolo", yolo_root), "train/a")


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def png(array: Any) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        return buffer.getvalue()

    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    ids = np.random.default_rng(1).choice(np.array([0, 1, 255], np.uint8), (HEIGHT, WIDTH))
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        rows = [{"image": {"bytes": png(pixels), "path": f"{split}{n}.png"}, "mask": {"bytes": png(ids), "path": None}}
                for n in range(3)]  # fmt: skip
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / f"data/{split}-00000-of-00001.parquet", 2)
    (tmp_path / "id2label.json").write_text('{"0": "wall", "1": "floor"}')
    index = opened("parquet", tmp_path)
    assert index.splits == {"train": ("train0", "train1", "train2"), "test": ("test0", "test1", "test2")}
    assert (index.images["test2"].read() == pixels).all()
    assert (read(index, "test2") == ids).all()


@pytest.mark.parametrize("kind", list(FORMATS))
def test_a_folder_of_something_else_is_refused(kind: str, tmp_path: Path) -> None:
    photo(tmp_path / "images/a.png")
    with pytest.raises(TaskTokensError):
        opened(kind, tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        opened(kind, tmp_path / "nowhere")


def test_check_takes_it(coco_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, errors = run_cli(capsys, "check", "--data", "coco", "--root", coco_root, "--workers", 1, "--json", "-q")
    assert "Traceback" not in errors
    assert code in (0, 1), errors
    assert json.loads(out)


def test_a_class_number_that_no_format_has_is_no_other_class(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
    entry = Entry("a", None, lambda size: np.full(size, -3, np.int16))
    with pytest.raises(LabelError, match="class number -3"):
        read_entry(path, entry, np.array([0, 1, -1, -1], np.int16), ImageFile(path))
