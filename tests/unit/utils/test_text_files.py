"""Text files as people save them: every encoding with a mark, every line end, in every file that is read."""

from __future__ import annotations

import codecs
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasktokens.config import load_config
from tasktokens.datasets.folder import open_folder
from tasktokens.errors import ConfigError, DataError
from tasktokens.inspection.init import init

MARKS = {
    "utf-8": b"", "utf-8-sig": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE, "utf-32-be": codecs.BOM_UTF32_BE,
}  # fmt: skip
NEWLINES = {"LF": "\n", "CRLF": "\r\n", "CR": "\r"}
IDS = ["000", "001", "küche/002"]


def folder(root: Path) -> Path:
    for number, id in enumerate(IDS):
        for kind, shape in (("images", (20, 24, 3)), ("semseg", (20, 24))):
            path = root / kind / f"{id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            array = np.full(shape, number % 2, np.uint8)
            Image.fromarray(array if kind == "semseg" else array + np.arange(24, dtype=np.uint8)[:, None]).save(path)
    return root


TASKS = "tasks: {semseg: {kind: classes, classes: [a, b]}}"


def write(path: Path, lines: list[str], encoding: str, newline: str, blanks: bool) -> None:
    if blanks:
        lines = [piece for line in lines for piece in ("", line + "  ")] + ["", ""]
    text = "".join(line + NEWLINES[newline] for line in lines)
    base = "utf-8" if encoding == "utf-8-sig" else encoding
    path.write_bytes(MARKS[encoding] + text.encode(base))


def read_list(root: Path, save: Callable[[Path, list[str]], None]) -> None:
    save(root / "train.txt", IDS[1:])
    (root / "dataset.yaml").write_text(f"splits: {{train: train.txt}}\n{TASKS}\n")
    assert open_folder(root).splits["train"] == tuple(IDS[1:])
    (root / "dataset.yaml").unlink()
    assert init(root).splits == {"train": "train.txt"}


def read_labels(root: Path, save: Callable[[Path, list[str]], None], separator: str = ",") -> None:
    rows = [["id", "note", "semseg"], ["000", "x", "1"], ["küche/002", "", "0"]]
    save(root / "mine.csv", [separator.join(row) for row in rows])
    (root / "dataset.yaml").write_text(f"labels: {{one: mine.csv}}\n{TASKS}\n")
    assert open_folder(root).published["one"] == {"000": ("semseg",), "001": (), "küche/002": ()}


def read_manifest(root: Path, save: Callable[[Path, list[str]], None], separator: str = ",") -> None:
    rows = [["image", "semseg", "split"], ["images/küche/002.png", "semseg/001.png", "train"]]
    rows.append(["images\\000.png", "", "test"])
    save(root / "files.csv", [separator.join(row) for row in rows])
    (root / "dataset.yaml").write_text(f"manifest: files.csv\n{TASKS}\n")
    opened = open_folder(root)
    assert opened.splits == {"train": ("images/küche/002",), "test": ("images/000",)}
    assert opened.labels["semseg"]["images/küche/002"].read()[0].mean() == 1


def read_description(root: Path, save: Callable[[Path, list[str]], None]) -> None:
    save(root / "dataset.yaml", ["name: küche", "tasks:", "  semseg:", "    kind: classes", "    classes: [a, ü]"])
    assert open_folder(root).tasks["semseg"].spec()["classes"] == ["a", "ü"]


def read_configuration(root: Path, save: Callable[[Path, list[str]], None]) -> None:
    save(root / "c.yaml", ["data:", "  root: küche", "seed: 7"])
    config = load_config(root / "c.yaml")
    assert (str(config.data.root), config.seed) == ("küche", 7)


FILES: dict[str, Callable[[Path, Callable[[Path, list[str]], None]], None]] = {
    "list": read_list, "labels": read_labels, "manifest": read_manifest, "dataset.yaml": read_description,
    "config": read_configuration,
}  # fmt: skip


@pytest.mark.parametrize("blanks", [False, True], ids=["", "blanks"])
@pytest.mark.parametrize("newline", NEWLINES)
@pytest.mark.parametrize("encoding", MARKS)
@pytest.mark.parametrize("file", FILES)
def test_every_text_file_is_read_as_people_save_it(
    file: str, encoding: str, newline: str, blanks: bool, tmp_path: Path
) -> None:
    FILES[file](folder(tmp_path), lambda path, lines: write(path, lines, encoding, newline, blanks))


@pytest.mark.parametrize("declared", [False, True], ids=["", "sep="])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("table", [read_labels, read_manifest])
def test_the_names_of_the_columns_say_what_separates_cells(
    table: Callable[..., None], separator: str, declared: bool, tmp_path: Path
) -> None:
    def save(path: Path, lines: list[str]) -> None:
        more = [separator * 2, separator.join(["", " "])]  # rows that a spreadsheet left empty
        write(path, [f"sep={separator}"] * declared + lines + more, "utf-8-sig", "CRLF", False)

    table(folder(tmp_path), save, separator)


@pytest.mark.parametrize("data", ["küche/002".encode("cp1252"), "000\n".encode("utf-16-le"), b"\xff\xfe\x00", b"a\0b"])
@pytest.mark.parametrize("file", ["train.txt", "mine.csv", "dataset.yaml"])
def test_text_of_an_unknown_encoding_is_refused_in_one_sentence(file: str, data: bytes, tmp_path: Path) -> None:
    folder(tmp_path)
    splits = "splits: {train: train.txt}\n" if file == "train.txt" else ""
    labels = "labels: {one: mine.csv}\n" if file == "mine.csv" else ""
    (tmp_path / "dataset.yaml").write_text(f"{splits}{labels}{TASKS}\n")
    (tmp_path / file).write_bytes(data)
    with pytest.raises((DataError, ConfigError), match=rf"{file}.*save it as UTF-8"):
        open_folder(tmp_path)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1250", "mac-roman", "cp437"])
def test_a_code_page_is_named_with_the_line(encoding: str, tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "dataset.yaml").write_text(f"splits: {{train: train.txt}}\n{TASKS}\n")
    (tmp_path / "train.txt").write_bytes("000\r\n001\r\nküche/002\r\n".encode(encoding))
    byte = "ü".encode(encoding).hex()
    with pytest.raises(
        DataError, match=rf"line 3 has the byte 0x{byte}; it may be in a code page such as Windows-1252"
    ):
        open_folder(tmp_path)


@pytest.mark.parametrize(("written", "meant"), [("0", "000"), ("1", "001"), ("KÜCHE/2", "küche/002")])
def test_a_row_that_no_image_has_is_an_error_with_the_nearest_id(written: str, meant: str, tmp_path: Path) -> None:
    for kind in ("images", "semseg"):
        shutil.copy(folder(tmp_path) / kind / "000.png", tmp_path / kind / "other.png")
    (tmp_path / "mine.csv").write_text(f"id,semseg\nother,1\n{written},1\n", encoding="utf-8")
    (tmp_path / "train.txt").write_text("other\n")
    text = f"splits: {{train: train.txt}}\nlabels: {{one: mine.csv}}\n{TASKS}\n"
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(DataError, match=rf"mine\.csv line 3: no image has the id '{written}' .did you mean '{meant}'"):
        open_folder(tmp_path)
    (tmp_path / "mine.csv").write_text(f"id,semseg\nother,1\n{meant},1\n", encoding="utf-8")
    assert open_folder(tmp_path).published["one"] == {"other": ("semseg",)}, "an image of another split is fine"
    (tmp_path / "mine.csv").write_text("id,semseg\nother,1\n other ,0\n")
    with pytest.raises(DataError, match="lines 2 and 3 both have the id 'other'"):
        open_folder(tmp_path)
