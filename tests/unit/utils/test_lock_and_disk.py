"""One writer per folder, errors that name what was written, a cache without a home."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tasktokens.errors import RunExistsError, WriteError
from tasktokens.tasks.files import write_floats, write_png
from tasktokens.utils.atomic import atomically, cache_folder, disk_of, writing
from tasktokens.utils.lock import LOCK, only_writer

HOLD = """
import sys, time
from pathlib import Path
from tasktokens.utils.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def test_another_process_keeps_us_out_until_it_ends_or_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunExistsError, match="another process is writing into"), only_writer(out):
            pass
    finally:
        holder.kill()
        holder.wait()
    with only_writer(out):
        (out / "file").touch()
    assert [path.name for path in out.iterdir()] == ["file"]


def test_a_lock_that_lies_there_stops_nobody_and_goes(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with only_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(RunExistsError, match="is a file"), only_writer(tmp_path / "file"):
        pass


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
def test_a_full_disk_names_the_file_written_and_not_the_one_read(code: int, tmp_path: Path) -> None:
    named = pytest.raises(WriteError, match=r"target.png cannot be written: .*disk at .*MB are free")
    with named as caught, writing(tmp_path / "target.png"):
        raise OSError(code, "x", str(tmp_path / "source.png"))
    assert "source.png" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # as from a worker process
    with pytest.raises(FileNotFoundError), writing(tmp_path / "target.png"):
        shutil.copyfile(tmp_path / "missing", tmp_path / "target.png")

    def write_half(path: Path) -> None:
        with atomically(path) as new:
            new.write_text("half")
            raise OSError(code, "x")

    with pytest.raises(WriteError):
        write_half(tmp_path / "whole.txt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_label_files_on_a_full_device_are_named(tmp_path: Path) -> None:
    for ending, write in ((".png", write_png), (".npy", write_floats)):
        (tmp_path / f"label{ending}").symlink_to("/dev/full")
        with pytest.raises(WriteError, match=f"label{ending} cannot be written: no space is left"):
            write(tmp_path / f"label{ending}", np.zeros((400, 400), np.uint8 if ending == ".png" else np.float32))
    assert os.path.ismount(disk_of(tmp_path / "not" / "there"))


def test_a_user_without_a_home_has_a_cache_of_their_own_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    from tasktokens.utils import atomic

    for name in ("TASKTOKENS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", nobody)
    monkeypatch.setattr(atomic.tempfile, "gettempdir", lambda: str(tmp_path))
    atomic._fallback_cache_folder.cache_clear()
    try:
        assert cache_folder("rooms").parent.parent == tmp_path
        assert cache_folder("check").parent == cache_folder("rooms").parent
    finally:
        atomic._fallback_cache_folder.cache_clear()
    assert capsys.readouterr().err.count("no home folder") == 1
