"""Tar files in WebDataset's naming: keys, bytes, and every way in which an archive can be damaged."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasktokens.datasets.tars import TarWriter, find_tars, image_of, read_samples, split_name
from tasktokens.errors import DataError
from tasktokens.utils.file_kinds import IMAGE_ENDINGS

Files = Sequence[tuple[str, bytes]]
TWO: Files = [("k/a.jpg", b"1" * 700), ("k/a.depth.png", b"2" * 10), ("k/b.jpg", b"3" * 512), ("k/b.json", b"{}")]


def pack(path: Path, files: Files) -> Path:
    with path.open("wb") as file, TarWriter(file) as tar:
        for name, content in files:
            tar.add(name, content)
    return path


def read(path: Path, tmp_path: Path) -> dict[str, dict[str, bytes]]:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    samples = read_samples(path, work)
    return {sample.key: {each.ending: each.path.read_bytes() for each in sample.members} for sample in samples}


def test_what_is_written_is_read_by_the_standard_library_and_here(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", TWO)
    with tarfile.open(path) as archive:
        found = [(info.name, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    assert found == list(TWO)
    assert read(path, tmp_path) == {
        "k/a": {"jpg": b"1" * 700, "depth.png": b"2" * 10}, "k/b": {"jpg": b"3" * 512, "json": b"{}"},
    }  # fmt: skip


def test_the_bytes_depend_on_names_and_contents_alone(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(TWO[0][1])
    os.utime(tmp_path / "0", (1, 1))
    with (tmp_path / "b.tar").open("wb") as file, TarWriter(file) as tar:
        tar.add(TWO[0][0], tmp_path / "0")
        for name, content in TWO[1:]:
            tar.add(name, content)
    assert (tmp_path / "b.tar").read_bytes() == pack(tmp_path / "a.tar", TWO).read_bytes()


NAMES = [
    "a.jpg",
    "./k/a.semseg.png",
    "v1.0/22.05.png",
    "k/äö.jpg",
    "A.JPG",
    ".hidden.jpg",
    "README",
    "a b.c d",
]


@pytest.mark.parametrize("name", NAMES)
def test_keys_are_those_of_webdataset(name: str) -> None:
    tariterators = pytest.importorskip("webdataset.tariterators")
    key, ending = tariterators.base_plus_ext(name)
    expected = None if key is None else (key.removeprefix("./"), ending.lower())
    assert split_name(name) == expected


def test_webdataset_reads_what_is_written(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    found = list(webdataset.WebDataset(str(pack(tmp_path / "a.tar", TWO)), shardshuffle=False))
    assert [(each["__key__"], {k: v for k, v in each.items() if k[0] != "_"}) for each in found] == list(
        read(tmp_path / "a.tar", tmp_path).items()
    )


def test_an_archive_that_was_cut_off_anywhere_before_its_end_is_named(tmp_path: Path) -> None:
    content = pack(tmp_path / "whole.tar", TWO).read_bytes()
    last = 512 * (1 + 2 + 1 + 1 + 1 + 1 + 1 + 1)  # of each file its header and its blocks
    for length in [*range(0, last, 256), last, last + 511]:
        (tmp_path / "half.tar").write_bytes(content[:length])
        with pytest.raises(DataError, match=r"half\.tar.*copy or pack it again"):
            read(tmp_path / "half.tar", tmp_path)
    (tmp_path / "half.tar").write_bytes(content[: last + 512])  # only the filling after the end is gone
    assert len(read(tmp_path / "half.tar", tmp_path)) == 2


def test_a_header_that_was_changed_is_no_end(tmp_path: Path) -> None:
    content = bytearray(pack(tmp_path / "a.tar", TWO).read_bytes())
    content[512 * 3 + 150] ^= 1  # in the checksum of the second file
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match="damaged at byte 1536"):
        read(tmp_path / "a.tar", tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([("a.jpg", b""), ("b.jpg", b""), ("a.json", b"")], "key 'a' in two places"),
        ([("a.jpg", b""), ("./a.jpg", b"")], r"'a\.jpg' twice"),
        ([("a.jpg", b""), ("a.JPG", b"")], r"'a\.jpg' twice"),
        ([("../a.jpg", b"")], "relative path without"),
        ([("/a.jpg", b"")], "relative path without"),
        ([("k/../../a.jpg", b"")], "relative path without"),
    ],
)
def test_what_cannot_be_told_apart_or_leads_elsewhere_is_refused(files: Files, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read(pack(tmp_path / "a.tar", files), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar", "work"] or set(os.listdir(tmp_path)) == {
        "a.tar",
        "work",
    }


def test_links_are_refused_and_folders_and_files_without_an_ending_passed_over(tmp_path: Path) -> None:
    for kind, refused in ((tarfile.SYMTYPE, True), (tarfile.FIFOTYPE, True), (tarfile.DIRTYPE, False)):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            info = tarfile.TarInfo("k")
            info.type = kind
            archive.addfile(info)
            archive.addfile(tarfile.TarInfo("README"), io.BytesIO())
        if refused:
            with pytest.raises(DataError, match="a link or a device, 'k'"):
                read(tmp_path / "a.tar", tmp_path)
        else:
            assert read(tmp_path / "a.tar", tmp_path) == {}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([("22.05.png", b"")], r"none among: 05\.png; a key ends at the first dot"),
        ([("a.jpg", b""), ("a.png", b"")], r"found 2 among: jpg, png; its labels are called KEY\.TASK\.png"),
        ([("a.json", b"")], "none among: json"),
    ],
)
def test_a_sample_has_one_image(files: Files, said: str, tmp_path: Path) -> None:
    path, work = pack(tmp_path / "a.tar", files), tmp_path / "work"
    work.mkdir()
    with pytest.raises(DataError, match=said):
        image_of(next(read_samples(path, work)), path, IMAGE_ENDINGS)


def test_tar_files_are_found_in_a_folder_by_name_and_by_pattern(tmp_path: Path) -> None:
    first, second = (pack(tmp_path / f"{name}.tar", TWO) for name in "ab")
    (tmp_path / "dataset.yaml").touch()
    for source in (tmp_path, str(tmp_path / "*.tar"), f"{tmp_path}/[ab].tar"):
        assert find_tars(source) == [first, second]
    assert find_tars(first) == [first]
    assert find_tars(tmp_path / "nothing.png") == []
    (tmp_path / "c.jpg").touch()
    with pytest.raises(DataError, match=r"tar files and others, such as c\.jpg"):
        find_tars(tmp_path)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        pack(tmp_path / folder / "same.tar", TWO)
    with pytest.raises(DataError, match=r"two tar files are called same\.tar"):
        find_tars(f"{tmp_path}/*/same.tar")
