"""`tasktokens check`: every kind of planted damage is named, sound data is called sound, and training asks it once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from conftest import run_cli, write_folder
from fakes.damage import FILES, WHOLE, Damage
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.index import ImageFile, LabelFile
from tasktokens.datasets.open import open_data
from tasktokens.errors import DataError
from tasktokens.inspection import before_training as doctor_start
from tasktokens.inspection import listing
from tasktokens.inspection import survey as doctor
from tasktokens.inspection.check import check
from tasktokens.inspection.check import settings as check_settings
from tasktokens.inspection.report import SHOWN, Report
from tasktokens.tasks import Depth, build_task
from tasktokens.tasks.examine_numbers import amount_quantile

COUNT, TRAIN = 28, 24


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run the verb in this process: exit code, standard output, standard error."""
    return run_cli(capsys, "check", *words)


def assert_named(report: Report, damage: Damage) -> None:
    """The report has the finding that the damage calls for."""
    wanted = (damage.code, damage.severity, damage.task)
    found = [f for f in report.findings if (f.code, f.severity, f.task) == wanted]
    assert found, [(f.code, f.severity, f.task, f.id) for f in report.findings]
    if damage.id is not None:
        assert any(f.id == damage.id or f"'{damage.id}'" in f.message for f in found)
    assert all(f.message for f in found)


def test_a_manifest_of_files_elsewhere_walks_no_folder_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a table may name files all over the disk, whose common folder is ``/``."""
    walked: list[Path] = []

    def walk(folder: Path) -> Iterator[tuple[str, ...]]:
        walked.append(folder)
        return iter(())

    monkeypatch.setattr(listing, "walk_files", walk)
    rows = []
    for number in range(3):
        image, label = tmp_path / "photos" / f"{number}.png", tmp_path / "masks" / f"{number}.png"
        for path, mode in ((image, "RGB"), (label, "L")):
            path.parent.mkdir(exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 2, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(path)
        rows.append(f"{image},{label},train")
    root = tmp_path / "data"
    root.mkdir()
    (root / "files.csv").write_text("\n".join(["image,semseg,split", *rows]))
    tasks = {"semseg": {"kind": "classes", "classes": ["a", "b"]}}
    (root / "dataset.yaml").write_text(yaml.safe_dump({"manifest": "files.csv", "tasks": tasks}))
    assert check(root, workers=1).images == 3
    assert not any(root.is_relative_to(folder) for folder in walked)


# -- damage ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all the damage of `FILES`."""
    root = write_folder(tmp_path_factory.mktemp("check") / "damaged", COUNT, TRAIN)
    for damage in FILES.values():
        damage.plant(root)
    return root


@pytest.fixture(scope="module")
def damaged_report(damaged: Path) -> Report:
    return check(damaged, workers=1)


@pytest.mark.parametrize("name", FILES)
def test_each_damaged_file_is_named_among_all_others(name: str, damaged_report: Report) -> None:
    assert_named(damaged_report, FILES[name])


def test_nothing_but_the_damage_is_named(damaged_report: Report) -> None:
    """No sound file is blamed: errors about files are of planted ids."""
    planted = {(damage.task, damage.id) for damage in FILES.values()}
    assert {(f.task, f.id) for f in damaged_report.errors} <= planted


@pytest.mark.parametrize("name", WHOLE)
def test_damage_of_a_whole_task_or_list_is_named(name: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 8, 6)
    WHOLE[name].plant(root)
    page = tmp_path / "page.html"
    assert_named(check(root, workers=1, page=page), WHOLE[name])
    assert WHOLE[name].code in page.read_text()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("odd"), RecursionError(), AssertionError()])
@pytest.mark.parametrize("what", ["image", "label"])
def test_a_reader_that_fails_in_any_way_is_a_finding(error: Exception, what: str, folder_root: Path) -> None:
    def fail(path: Path) -> Any:
        raise error

    collection = open_folder(folder_root)
    if what == "image":
        images = {**collection.images, "im02": ImageFile(folder_root / "x.png", fail)}
        collection = replace(collection, images=images)
    else:
        labels = {**collection.labels["depth"], "im02": LabelFile(folder_root / "x.png", fail)}
        collection = replace(collection, labels={**collection.labels, "depth": labels})
    report = doctor.check(collection, workers=1)
    assert [(f.code, f.id, type(error).__name__ in f.message) for f in report.errors] == [("unreadable", "im02", True)]
    assert str(folder_root / "x.png") in report.errors[0].message


def test_valid_pixels_that_are_not_finite_and_odd_shapes_are_errors(folder_root: Path) -> None:
    def nan(path: Path) -> Any:
        return np.full((1, 40, 56), np.nan, np.float32), np.ones((40, 56), bool)

    def flat(path: Path) -> Any:
        return np.zeros((40, 56), np.float32), np.ones((40, 56), bool)

    collection = open_folder(folder_root)
    labels = {"im00": LabelFile(folder_root / "a", nan), "im01": LabelFile(folder_root / "b", flat)}
    report = doctor.check(replace(collection, labels={**collection.labels, "depth": labels}), workers=1)
    assert [(f.code, f.id) for f in report.errors] == [("not-finite", "im00"), ("unreadable", "im01")]


def test_a_report_stays_small_however_many_files_are_broken(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 30, 24)
    for path in (root / "edge").iterdir():
        path.write_bytes(b"")
    report = check(root, workers=1)
    assert len([f for f in report.findings if f.code == "unreadable"]) == SHOWN
    assert report.counts["unreadable"] == report.tasks["edge"].failed == report.totals["error"] == 30


# -- sound data --------------------------------------------------------------------------------------------------------
def test_sound_data_has_no_finding(folder_root: Path) -> None:
    report = check(folder_root, workers=1)
    assert report.ok
    # The two images of the test split do not show every class.
    assert {finding.code for finding in report.findings} <= {"class-not-in-split"}


def test_floors_with_y_up_are_no_wrong_frame(tmp_path: Path) -> None:
    from fakes.damage import _floors, change_all

    root = write_folder(tmp_path / "data")
    change_all("normals", ".npy", _floors(-1.0))(root)
    assert {finding.code for finding in check(root, workers=1).findings} <= {"class-not-in-split"}


def test_inverse_depth_is_expected_to_grow_downwards(tmp_path: Path) -> None:
    rows = np.linspace(0.1, 0.9, 30, dtype=np.float32)[:, None].repeat(30, 1)
    for inverse, task in ((True, build_task("d", {"kind": "depth", "range": [0.05, 1.0], "inverse": True})),
                          (False, Depth("d", minimum=0.05, maximum=1.0))):  # fmt: skip
        for picture, wrong in ((rows, not inverse), (rows[::-1], inverse)):
            sums = {key: 6 * value for key, value in task.examine(picture[None], picture > 0).items()}
            codes = [suspicion.code for suspicion in task.summarise(sums).suspicions]
            assert codes == (["looks-like-depth" if inverse else "looks-like-disparity"] if wrong else [])


def test_statistics_agree_with_an_independent_reading(folder_root: Path) -> None:
    report = check(folder_root, workers=1)
    ids = np.stack([np.asarray(Image.open(path)) for path in sorted((folder_root / "semseg").iterdir())])
    counts = np.bincount(ids[ids != 255], minlength=4)
    semseg, depth = report.tasks["semseg"], report.tasks["depth"]
    assert [bar.share for bar in semseg.histogram] == pytest.approx(counts / counts.sum())
    assert semseg.void == pytest.approx((ids == 255).mean())
    assert semseg.labelled == {"train": 6, "test": 2}
    assert report.sizes == semseg.sizes == {"56x40": 8}
    metres = np.stack([np.asarray(Image.open(path)) for path in sorted((folder_root / "depth").iterdir())]) / 1000
    assert depth.numbers["median (m)"] == pytest.approx(np.median(metres[metres > 0]), rel=0.02)
    assert depth.void == pytest.approx((metres == 0).mean())
    for task in report.tasks.values():
        assert sum(bar.share for bar in task.histogram) == pytest.approx(1)
    alpha = np.stack([np.asarray(Image.open(path)) for path in sorted((folder_root / "edge").iterdir())])
    positive = (alpha[..., 0] > 127)[alpha[..., 1] > 0].mean()
    assert report.tasks["edge"].numbers["positive share"] == pytest.approx(positive)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9])
def test_quantiles_from_sums_of_histograms(share: float) -> None:
    rng = np.random.default_rng(0)
    parts = [np.exp(rng.normal(size=(1, 50, 60))).astype(np.float32) for _ in range(4)]
    task = Depth("d")
    sums = [task.examine(part, np.ones((50, 60), bool)) for part in parts]
    total = {key: sum(each[key] for each in sums) for key in sums[0]}
    assert amount_quantile(total, share) == pytest.approx(np.quantile(np.stack(parts), share), rel=0.015)


def test_a_scalar_in_a_unit_of_the_users(tmp_path: Path) -> None:
    task = build_task("heat", {"kind": "regression", "range": [-20, 80], "unit": "K"})
    picture = np.random.default_rng(0).normal(20, 5, (60, 60)).astype(np.float32)
    for shift, code in ((0, None), (273, "outside-range")):
        summary = task.summarise(task.examine(picture[None] + shift, np.ones(picture.shape, bool)))
        assert [each.code for each in summary.suspicions] == ([code] if code else [])
        assert sum(bar.share for bar in summary.histogram) == pytest.approx(1)
        if not shift:
            assert summary.numbers["median (K)"] == pytest.approx(np.median(picture), abs=0.5)
            assert summary.numbers["95 % (K)"] == pytest.approx(np.quantile(picture, 0.95), abs=0.5)


def test_a_normal_that_is_half_a_percent_long_is_no_matter(folder_root: Path) -> None:
    assert check(folder_root, workers=1).tasks["normals"].numbers["not of unit length"] == 0


def test_splits_of_the_same_images_under_two_names_are_no_leak(own_folder: Path) -> None:
    text = (own_folder / "dataset.yaml").read_text()
    (own_folder / "dataset.yaml").write_text(text.replace("test: test.txt", "test: test.txt\n  val: test.txt"))
    report = check(own_folder, workers=1)
    assert report.splits == {"train": 6, "test": 2, "val": 2}
    # The two images of the test split do not show every class.
    assert {finding.code for finding in report.findings} <= {"class-not-in-split"}


# -- the same whatever the processes -----------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_number_of_processes_and_threads_changes_nothing(damaged: Path, damaged_report: Report) -> None:
    assert check(damaged, workers=2) == damaged_report
    assert doctor.check(open_folder(damaged), threads=3) == damaged_report


def test_a_limit_is_spread_over_the_list(damaged: Path) -> None:
    report = check(damaged, workers=1, limit=5)
    assert (report.images, report.examined) == (COUNT + 2, 5)
    assert report.tasks["edge"].examined + report.tasks["edge"].failed <= 5


# -- the command line --------------------------------------------------------------------------------------------------
def test_exit_codes(folder_root: Path, damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, folder_root, "--quiet")
    assert code == 0
    assert "nothing wrong found" in out
    code, out, _ = run(capsys, damaged, "--quiet")
    assert code == 1
    for damage in FILES.values():
        assert damage.code in out
    for words in ([], [damaged, "--config", "x.yaml"], ["--root", damaged], [damaged / "nowhere"], ["--data", "nyud"],
                  ["--data", "nyu", "--root", damaged]):  # fmt: skip
        code, out, err = run(capsys, *words)
        assert (code, out) == (2, ""), words
        assert err.startswith("error: ")


def test_json_is_all_that_is_printed_and_has_a_stable_form(
    damaged: Path, damaged_report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, damaged, "--json", "--workers", 1)
    values = json.loads(out)
    assert code == 1
    assert values == json.loads(json.dumps(damaged_report.to_json()))
    assert list(values) == [
        "version", "ok", "root", "images", "examined", "splits", "sizes", "tasks", "findings", "counts", "totals"
    ]  # fmt: skip
    assert values["version"] == 1
    assert values["ok"] is False
    assert set(values["findings"][0]) == {"severity", "code", "message", "task", "id", "path"}
    task = values["tasks"]["semseg"]
    assert list(task) == ["kind", "labelled", "examined", "failed", "sizes", "void", "numbers", "histogram", "sources"]
    assert set(task["histogram"][0]) == {"label", "share"}


def test_other_data_by_configuration(folder_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(f"data: {{kind: folder, root: {folder_root}}}\ntasks: {{depth: {{}}}}\n")
    code, out, _ = run(capsys, "--config", tmp_path / "run.yaml", "--json")
    assert code == 0
    assert list(json.loads(out)["tasks"]) == ["depth"]
    code, out, _ = run(capsys, "--data", "folder", "--root", folder_root, "--json", "--limit", 2)
    assert (code, json.loads(out)["examined"]) == (0, 2)


def test_the_page_needs_no_network_and_shows_every_task(damaged: Path, tmp_path: Path) -> None:
    check(damaged, workers=1, page=tmp_path / "deep" / "page.html")
    text = (tmp_path / "deep" / "page.html").read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert text.count('src="data:image/png') >= 5 * 4
    assert text.count('src="data:image/jpeg') >= 5
    for word in ("semseg", "saliency", "chair", *(damage.code for damage in FILES.values())):
        assert word in text


def test_names_in_the_page_and_on_the_terminal_are_only_text(
    own_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_folder / "images" / "[red]<b>&.png").write_bytes(b"")
    code, out, _ = run(capsys, own_folder, "--html", tmp_path / "p.html", "--quiet")
    assert code == 1
    assert "[red]<b>&" in out
    assert "<b>&" not in (tmp_path / "p.html").read_text()


# -- at the start of a run ---------------------------------------------------------------------------------------------
def before_run(config: Any) -> None:
    doctor_start.check_before_run(open_data(config), config, quiet=False)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Label files that are opened, with a fresh cache."""
    monkeypatch.setenv("TASKTOKENS_CACHE", str(tmp_path / "cache"))
    paths: list[Path] = []
    read = LabelFile.read
    monkeypatch.setattr(LabelFile, "read", lambda self: paths.append(self.path) or read(self))
    return paths


def test_hidden_labels_are_not_opened(
    own_folder: Path, make_config: Callable[..., Any], tmp_path: Path, opened: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = make_config(own_folder, tmp_path / "run")
    split = open_data(config).train
    visible = {own_folder / name / f"{id}.png" for id, names in split.items() for name in names}
    for path in own_folder.glob("*/*.png"):
        if path.parent.name != "images" and path not in visible:
            path.write_bytes(b"garbage")
    before_run(config)
    assert set(opened) == visible
    assert "6 images and 6 labels checked" in capsys.readouterr().err


def test_what_the_run_is_measured_on_is_examined(
    own_folder: Path, make_config: Callable[..., Any], tmp_path: Path, opened: list[Path]
) -> None:
    (own_folder / "depth" / "im07.png").write_bytes(b"garbage")
    before_run(make_config(own_folder, tmp_path / "run"))
    with pytest.raises(DataError, match=r"im07\.png.*tasktokens check.*data\.check=false"):
        before_run(make_config(own_folder, tmp_path / "run", **{"run.evaluate": "test"}))
    before_run(make_config(own_folder, tmp_path / "run", **{"run.evaluate": "test", "data.check": False}))


def test_a_second_run_on_the_same_files_reads_nothing(
    own_folder: Path, make_config: Callable[..., Any], tmp_path: Path, opened: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = make_config(own_folder, tmp_path / "run", **{"data.labels": "full"})
    before_run(config)
    assert len(opened) == 6 * 5
    before_run(config)
    assert len(opened) == 6 * 5
    assert "as checked before" in capsys.readouterr().err
    (own_folder / "depth" / "im00.png").write_bytes(b"other bytes")
    with pytest.raises(DataError, match=r"im00\.png"):
        before_run(config)
    with pytest.raises(DataError, match=r"im00\.png"):  # a mistake is not remembered as sound
        before_run(config)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_a_broken_cache_is_passed_over(
    content: bytes, own_folder: Path, make_config: Callable[..., Any], tmp_path: Path, opened: list[Path]
) -> None:
    config = make_config(own_folder, tmp_path / "run")
    before_run(config)
    notes = list((tmp_path / "cache" / "tasktokens" / "check").iterdir())
    assert len(notes) == 1
    notes[0].write_bytes(content)
    before_run(config)
    assert len(opened) == 12


def test_a_cache_that_cannot_be_written_does_no_harm(
    own_folder: Path, make_config: Callable[..., Any], tmp_path: Path, opened: list[Path]
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    before_run(make_config(own_folder, tmp_path / "run"))


def test_training_stops_before_it_touches_the_run_folder(
    own_folder: Path, make_config: Callable[..., Any], tmp_path: Path
) -> None:
    from tasktokens.training.trainer import train

    (own_folder / "images" / "im00.png").write_bytes(b"garbage")
    with pytest.raises(DataError, match=r"im00\.png.*tasktokens check"):
        train(make_config(own_folder, tmp_path / "run"), quiet=True)
    assert not (tmp_path / "run").exists()


# -- real data ---------------------------------------------------------------------------------------------------------
def test_nyud() -> None:
    """Some of the real images through the NYUD reader: nothing wrong, and the statistics of indoor scenes."""
    root = Path(__file__).resolve().parents[4] / "shared" / "data" / "nyuv2"
    if not root.is_dir():
        pytest.skip("the NYU Depth v2 images are not beside the repository")
    report = check(check_settings(None, "nyud", root, None), workers=1, limit=8)
    assert report.ok, report.errors
    assert 2 < report.tasks["depth"].numbers["median (m)"] < 3.5
    assert report.tasks["normals"].numbers["mean z"] < -0.4
    assert (
        report.tasks["normals"].numbers["mean y, lower third"] < report.tasks["normals"].numbers["mean y, upper third"]
    )
