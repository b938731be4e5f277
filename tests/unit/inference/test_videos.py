"""Videos: frames upright and at their times, labels and pictures per frame, damaged ones named, and what is refused."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import tasktokens
from conftest import run_cli
from fakes.videos import draw_frames, read_times, turn, write_clip, write_sound
from tasktokens.errors import ConfigError, DataError
from tasktokens.inference import video_pictures
from tasktokens.inference.videos import DamagedVideo, is_video, open_clip

COUNT = 5
TIMES = [0, 100, 150, 400, 420]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a photo, a video, and a video of a variable rate in a folder of it."""
    root = tmp_path_factory.mktemp("videos")
    Image.fromarray(draw_frames(1)[0]).save(root / "clip.jpg")  # as phones save a moving photo
    write_clip(root / "clip.mp4", draw_frames(COUNT))
    (root / "more").mkdir()
    write_clip(root / "more" / "odd.mkv", draw_frames(COUNT, 36, 52), TIMES)
    return root


@pytest.fixture(scope="module")
def predicted(mixed: Path, untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    out = tmp_path_factory.mktemp("out") / "predicted"
    return out, tasktokens.predict(untrained, mixed, out, quiet=True)


def images(path: Path, every: int = 1) -> list[Any]:
    with open_clip(path) as clip:
        return [frame.image for frame in clip.frames(every)]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# -- frames ------------------------------------------------------------------------------------------------------------
def test_frames_are_those_that_were_written(mixed: Path) -> None:
    for found, drawn in zip(images(mixed / "clip.mp4"), draw_frames(COUNT), strict=True):
        inner = [(slice(4, 20), slice(4, 28)), (slice(28, 44), slice(4, 28))]  # colours bleed at their borders
        assert all(np.abs(found[place].astype(int) - drawn[place]).max() < 30 for place in inner)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 3), (180, 2), (270, 1)])
def test_frames_come_as_players_show_them(degrees: int, turns: int, mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes((mixed / "clip.mp4").read_bytes())
    stored = images(tmp_path / "a.mp4")
    shown = images(turn(tmp_path / "a.mp4", degrees))
    for left, right in zip(shown, stored, strict=True):
        np.testing.assert_array_equal(left, np.rot90(right, turns))  # counterclockwise


def test_times_are_those_of_the_file(mixed: Path) -> None:
    with open_clip(mixed / "more" / "odd.mkv") as clip:
        assert [round(1000 * frame.time) for frame in clip.frames()] == TIMES
        assert clip.is_variable
    with open_clip(mixed / "clip.mp4") as clip:
        assert [(frame.number, round(frame.time, 3)) for frame in clip.frames(2)] == [(0, 0), (2, 0.2), (4, 0.4)]
        assert not clip.is_variable


# -- what is written ---------------------------------------------------------------------------------------------------
def test_a_folder_of_photos_and_videos_is_mirrored(predicted: tuple[Path, list[Path]], untrained: Path) -> None:
    out, drawn = predicted
    names = ("clip.png", "clip.mp4", "more/odd.mp4")
    assert drawn == [out / "pictures" / name for name in names]
    assert all(path.is_file() for path in drawn)
    for task in tasktokens.load(untrained, "cpu").tasks:
        for folder in (out / task, out / "confidence" / task):
            found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
            frames = [f"{id}/{number:06d}.png" for id in ("clip", "more/odd") for number in range(COUNT)]
            assert found == sorted(["clip.png", *frames])


def test_labels_are_those_of_the_frame(predicted: tuple[Path, list[Path]], mixed: Path, untrained: Path) -> None:
    out, model = predicted[0], tasktokens.load(untrained, "cpu")
    for row, image in zip(table(out / "frames" / "more" / "odd.csv"), images(mixed / "more/odd.mkv"), strict=True):
        for name, prediction in model.predict(image).items():
            value, _ = prediction.task.read(out / name / f"{row['id']}.png")
            expected, _ = prediction.task.read(prediction.save(out.parent / "saved" / name / row["id"]))
            np.testing.assert_array_equal(value, expected)


def test_tables_and_pictures_keep_the_times(predicted: tuple[Path, list[Path]]) -> None:
    out = predicted[0]
    rows = table(out / "frames" / "more" / "odd.csv")
    assert [round(1000 * float(row["seconds"])) for row in rows] == TIMES
    assert [row["id"] for row in rows] == [f"more/odd/{number:06d}" for number in range(COUNT)]
    assert read_times(out / "pictures" / "more" / "odd.mp4") == [time / 1000 for time in TIMES]
    assert read_times(out / "pictures" / "clip.mp4") == [0, 0.1, 0.2, 0.3, 0.4]
    with av.open(str(out / "pictures" / "clip.mp4")) as container:
        assert container.streams.video[0].average_rate == 10


def test_a_picture_shows_the_frame_and_every_task_with_a_legend(
    predicted: tuple[Path, list[Path]], mixed: Path, untrained: Path
) -> None:
    picture = images(predicted[0] / "pictures" / "clip.mp4")[0].astype(int)
    frame = images(mixed / "clip.mp4")[0]
    model = tasktokens.load(untrained, "cpu")
    panels = [frame, *(np.asarray(prediction.picture()) for prediction in model.predict(frame).values())]
    scale = 2 if 2 * frame.shape[1] <= video_pictures.WIDEST // len(panels) - 24 else 1
    for panel in panels:
        large = panel.repeat(scale, 0).repeat(scale, 1).astype(int)
        height, width = large.shape[:2]
        places = [(y, x) for y in range(10, 40) for x in range(picture.shape[1] - width + 1)]
        few = (slice(height // 8, None, height // 4), slice(0, None, 4))  # of each place, some rows and columns
        apart = [np.abs(picture[y : y + height, x : x + width][few] - large[few]).mean() for y, x in places]
        y, x = places[int(np.argmin(apart))]
        assert np.abs(picture[y : y + height, x : x + width] - large).mean() < 25
    assert picture.shape[0] > scale * frame.shape[0] + 60


@pytest.mark.parametrize(
    ("words", "labels", "drawn"),
    [(["--every", "2"], 3, True), (["--no-labels"], 0, True), (["--no-pictures", "--every", "4"], 2, False)],
)
def test_what_is_written_can_be_thinned(
    words: list[str], labels: int, drawn: bool, mixed: Path, untrained: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    code, _, errors = run_cli(capsys, "predict", untrained, mixed / "clip.mp4", "--out", out, "-q", *words)
    assert (code, errors) == (0, "")
    assert len(list((out / "depth").rglob("*.png"))) == labels
    assert (out / "pictures" / "clip.mp4").is_file() == drawn
    if "--every" in words:
        assert len(table(out / "frames" / "clip.csv")) == labels


def test_python_gives_times_and_results(mixed: Path, untrained: Path) -> None:
    model = tasktokens.load(untrained, "cpu")
    found = list(model.predict_video(mixed / "clip.mp4", every=2))
    assert [round(time, 3) for time, _ in found] == [0, 0.2, 0.4]
    for (_, result), image in zip(found, images(mixed / "clip.mp4", 2), strict=True):
        np.testing.assert_array_equal(result["depth"].value, model.predict(image)["depth"].value)
    several = list(model.predict_video(mixed / "clip.mp4", batch_size=3))
    assert [round(time, 3) for time, _ in several] == [0, 0.1, 0.2, 0.3, 0.4]


# -- damage ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty frames of noise, whose index comes first."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(40)]
    return write_clip(tmp_path_factory.mktemp("long") / "long.mp4", frames, movflags="faststart")


def spoil(source: Path, target: Path, how: str) -> Path:
    data = bytearray(source.read_bytes())
    if how == "cut":
        del data[len(data) * 6 // 10 :]
    else:
        data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("how", ["cut", "zeros"])
def test_whole_frames_of_a_damaged_video_are_kept(
    how: str, long: Path, untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, out = spoil(long, tmp_path / "bad.mp4", how), tmp_path / "out"
    code, _, errors = run_cli(capsys, "predict", untrained, bad, "--out", out, "-q", "--every", "5")
    assert code == 2
    assert errors.count("\n") == 1
    assert "bad.mp4 is damaged or cut off after" in errors
    kept = table(out / "frames" / "bad.csv")
    assert 2 <= len(kept) < 8
    assert len(read_times(out / "pictures" / "bad.mp4")) == len(kept)
    whole, found = images(long, 5), []
    results = tasktokens.load(untrained, "cpu").predict_video(bad, every=5)
    with pytest.raises(DamagedVideo):
        found.extend(result.image for _, result in results)
    assert len(found) == len(kept)
    for left, right in zip(found, whole, strict=False):
        np.testing.assert_array_equal(left, right)


def test_a_matroska_that_was_cut_off_is_noticed_by_its_length(tmp_path: Path) -> None:
    frames = [np.random.default_rng(n).integers(0, 256, (48, 64, 3), dtype=np.uint8) for n in range(20)]
    whole = write_clip(tmp_path / "a.mkv", frames)
    bad = spoil(whole, tmp_path / "b.mkv", "cut")
    with pytest.raises(DamagedVideo, match=r"it says that it lasts 2\.0 s"):
        images(bad)
    assert len(images(whole)) == 20


def test_a_video_that_was_whole_later_is_predicted_by_the_same_command(
    long: Path, mixed: Path, untrained: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.mp4").write_bytes(b"no video")
    (source / "b.jpg").write_bytes((mixed / "clip.jpg").read_bytes())
    with pytest.raises(DataError, match=r"a\.mp4 cannot be opened"):
        tasktokens.predict(untrained, source, out, quiet=True)
    assert (out / "depth" / "b.png").is_file()
    (source / "a.mp4").write_bytes((mixed / "clip.mp4").read_bytes())
    before = (out / "depth" / "b.png").stat().st_mtime_ns
    tasktokens.predict(untrained, source, out, quiet=True)
    assert (out / "depth" / "a" / "000004.png").is_file()
    assert (out / "depth" / "b.png").stat().st_mtime_ns == before
    assert not list(out.glob("predicting*"))


# -- what is refused ---------------------------------------------------------------------------------------------------
def test_sound_alone_is_refused(untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.mp4", "a.m4a"):
        sound = write_sound(tmp_path / name)
        code, _, errors = run_cli(capsys, "predict", untrained, sound, "--out", tmp_path / name[2:], "-q")
        assert code == 2
        assert "has sound but no pictures" in errors


@pytest.mark.parametrize("content", [b"", b"hello", b"#EXTM3U\n#EXTINF:1,\nhttp://example.org/a.ts\n"])
def test_what_is_no_video_is_named_and_leads_nowhere(content: bytes, tmp_path: Path) -> None:
    for name in ("a.mp4", "a.m3u8"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="cannot be opened"):
            images(tmp_path / name)


def test_a_gif_stays_an_image(untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (Image.fromarray(frame) for frame in draw_frames(2))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert not is_video(tmp_path / "a.gif")
    code, _, errors = run_cli(capsys, "predict", untrained, tmp_path / "a.gif", "--out", tmp_path / "out", "-q")
    assert code == 0
    assert "convert a moving picture to mp4" in errors
    assert (tmp_path / "out" / "depth" / "a.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tile", "64"], "is a video: predict it without --tile"),
        (["--no-labels", "--no-pictures"], "nothing would be written of a video"),
    ],
)
def test_settings_that_do_not_suit_a_video_are_refused(
    words: list[str], message: str, mixed: Path, untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = run_cli(capsys, "predict", untrained, mixed, "--out", tmp_path / "out", *words)
    assert code == 2
    assert message in errors
    assert not (tmp_path / "out").exists()


def test_settings_of_videos_without_a_video_are_refused(mixed: Path, untrained: Path, tmp_path: Path) -> None:
    for settings in ({"labels": False}, {"every": 2}):
        with pytest.raises(ConfigError, match="none was given"):
            tasktokens.predict(untrained, mixed / "clip.jpg", tmp_path / "out", **settings)  # type: ignore[arg-type]
    for wrong in ({"every": 0}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match="1 or more"):
            tasktokens.load(untrained, "cpu").predict_video(mixed / "clip.mp4", **wrong)


def test_files_that_would_be_written_over_each_other_are_refused(mixed: Path, untrained: Path, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "000000.jpg").write_bytes((mixed / "clip.jpg").read_bytes())
    (tmp_path / "clip.mp4").write_bytes((mixed / "clip.mp4").read_bytes())
    with pytest.raises(DataError, match="would be written into the folder of the frames of"):
        tasktokens.predict(untrained, tmp_path, tmp_path.parent / "out", quiet=True)
    (tmp_path / "clip" / "000000.jpg").unlink()
    (tmp_path / "clip.mov").write_bytes((mixed / "clip.mp4").read_bytes())
    with pytest.raises(DataError, match="would both be written as 'clip'"):
        tasktokens.predict(untrained, tmp_path, tmp_path.parent / "out", quiet=True)


def test_without_pyav_a_sentence_says_what_to_install(
    mixed: Path, untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, errors = run_cli(capsys, "predict", untrained, mixed, "--out", tmp_path / "out")
    assert code == 2
    assert "pip install 'tasktokens[video]'" in errors
    assert not (tmp_path / "out").exists()
    assert run_cli(capsys, "predict", untrained, mixed / "clip.jpg", "--out", tmp_path / "out", "-q")[0] == 0
    with pytest.raises(ConfigError, match="PyAV"):
        tasktokens.load(untrained, "cpu").predict_video(mixed / "clip.mp4")


def test_frames_above_the_limit_of_pixels_are_refused(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKTOKENS_MAX_PIXELS", "1000")
    with pytest.raises(DataError, match="claims 64x48 pixels"):
        images(mixed / "clip.mp4")
