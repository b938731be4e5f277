"""The command line as a user meets it: each verb, and each kind of mistake: one sentence, exit code 2, nothing lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import processes
from conftest import WIDTH, discovered_rows, write_folder
from conftest import run_cli as run


def small(root: Path, out: Path) -> list[str]:
    """Settings of a run that takes a second or two."""
    return [
        f"data.root={root}",
        "data.size=[32,48]",
        "data.labels=one",
        "model.backbone=test_resnet",
        "model.pretrained=false",
        "model.width=16",
        "method.stage1_steps=2",
        "method.stage2_steps=2",
        "optim.batch_size=4",
        "run.device=cpu",
        f"run.dir={out}",
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data folder and a run trained on it through the command line."""
    base = tmp_path_factory.mktemp("cli")
    root = base / "data"
    write_folder(root)
    done = processes.run("train", *small(root, base / "run"))
    assert done.returncode == 0, done.stderr
    assert "loss" in done.stderr  # progress is visible without a terminal, too
    return root, base / "run"


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_help_needs_no_torch() -> None:
    script = "import sys; sys.argv=['tasktokens','--help']\nfrom tasktokens import cli\ntry: cli.main()\n"
    script += "except SystemExit: pass\nassert 'torch' not in sys.modules and 'timm' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in ("demo", "train", "evaluate", "predict", "discover", "rooms", "list"):
        assert verb in done.stdout


def test_run_folder_has_everything(trained: tuple[Path, Path]) -> None:
    _, folder = trained
    for name in ("config.yaml", "labels.csv", "environment.json", "metrics.jsonl", "evaluation-test.json"):
        assert (folder / name).is_file(), name
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"supervised", "discovery"} <= {row.get("stage") for row in rows}
    assert rows[-1]["finished"]
    assert any(key.startswith("discovered/") for key in rows[-2])
    lines = (folder / "labels.csv").read_text().splitlines()
    assert set(lines[0].split(",")) == {"id", "semseg", "depth", "normals", "edge", "saliency"}
    assert all(sum(map(int, line.split(",")[1:])) == 1 for line in lines[1:])


def test_evaluate_prints_and_writes(trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = trained
    before = json.loads((folder / "evaluation-test.json").read_text())
    code, out, _ = run(capsys, "evaluate", folder)
    assert code == 0
    assert "mIoU" in out
    assert "absErr" in out
    assert json.loads((folder / "evaluation-test.json").read_text()) == before


def test_evaluate_under_the_protocol_of_the_papers(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = trained
    correct = json.loads((folder / "evaluation-test.json").read_text())
    assert run(capsys, "evaluate", folder, "--protocol", "paper")[0] == 0
    paper = json.loads((folder / "evaluation-test-paper.json").read_text())
    assert paper.pop("protocol") == "paper"
    assert paper.keys() == correct.keys()
    assert paper["depth"] == correct["depth"]
    seen = [value for name, value in correct["semseg"].items() if name.startswith("IoU/") and value is not None]
    classes = sum(name.startswith("IoU/") for name in correct["semseg"])
    assert paper["semseg"]["mIoU"] == pytest.approx(sum(seen) / classes)
    code, _, err = run(capsys, "evaluate", folder, "--protocol", "papers")
    assert code == 2
    assert "Traceback" not in err


def test_predict_any_size_and_kind_of_input(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = trained
    photos = tmp_path / "in" / "nested"
    photos.mkdir(parents=True)
    sizes = {"a": (30, 500), "nested/b": (77, 41), "nested/c": (200, 300)}
    for name, (height, width) in sizes.items():
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{name}.png")
    Image.fromarray(pixels).convert("L").save(tmp_path / "in" / "grey.jpg")
    sizes["grey"] = (200, 300)
    assert run(capsys, "predict", folder, tmp_path / "in", "--out", tmp_path / "out")[0] == 0
    for name, (height, width) in sizes.items():
        for task in ("semseg", "depth", "normals", "edge", "saliency"):
            for path in (tmp_path / "out" / task, tmp_path / "out" / "confidence" / task):
                assert Image.open(path / f"{name}.png").size == (width, height)
        assert (tmp_path / "out" / "pictures" / f"{name}.png").is_file()
    depth = np.asarray(Image.open(tmp_path / "out" / "depth" / "grey.png"))
    assert depth.dtype == np.uint16
    assert 300 < depth.min() <= depth.max() < 20000  # millimetres
    assert np.asarray(Image.open(tmp_path / "out" / "semseg" / "a.png")).max() < 4
    code, _, _ = run(capsys, "predict", folder, tmp_path / "in" / "nested" / "*.png", "--out", tmp_path / "glob")
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "glob" / "semseg").iterdir()) == ["b.png", "c.png"]


def test_discover_writes_a_folder_that_trains(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, folder = trained
    out = tmp_path / "filled"
    assert run(capsys, "discover", folder, "--out", out, "--threshold", "0.2")[0] == 0
    header, *lines = (folder / "labels.csv").read_text().splitlines()
    tasks = header.split(",")[1:]
    for line in lines:
        id, *seen = line.split(",")
        for task, flag in zip(tasks, seen, strict=True):
            if flag == "1":  # given labels are the same files
                assert (out / task / f"{id}.png").read_bytes() == (root / task / f"{id}.png").read_bytes()
                assert not (out / "confidence" / task / f"{id}.png").exists()
            else:
                assert (out / task / f"{id}.png").is_file()
                assert Image.open(out / "confidence" / task / f"{id}.png").size[0] == WIDTH
    # Nothing is sure above 1, so everything discovered is void.
    assert run(capsys, "discover", folder, "--out", tmp_path / "none", "--threshold", "1")[0] == 0
    table = discovered_rows(tmp_path / "none")
    assert len(table) == len(lines) * (len(tasks) - 1)
    assert all(float(row["coverage"]) == 0 for row in table)
    settings = [*small(out, tmp_path / "again"), "data.labels=full", "run.evaluate=null"]
    assert run(capsys, "train", *settings)[0] == 0


def test_init_from_and_resume_are_different(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, folder = trained
    assert run(capsys, "train", *small(root, tmp_path / "new"), "--init-from", folder)[0] == 0
    before = snapshot(folder / "model")
    assert run(capsys, "train", *small(root, folder), "--resume")[0] == 0
    assert snapshot(folder / "model") == before


def test_list_and_rooms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list")
    assert code == 0
    for word in ("htt", "mtl", "rooms", "paper", "depth"):
        assert word in out
    words = ["--train", 2, "--val", 1, "--test", 1, "--height", 24, "--width", 32, "--out", tmp_path / "rooms", "-q"]
    assert run(capsys, "rooms", *words)[0] == 0
    assert len(list((tmp_path / "rooms" / "images").iterdir())) == 4


class TestMistakes:
    """Each of these ends in one sentence on standard error and exit code 2."""

    def fails(self, capsys: pytest.CaptureFixture[str], expected: str, *words: object) -> str:
        code, _, err = run(capsys, *words)
        assert code == 2, err
        assert expected in err
        assert "Traceback" not in err
        return err

    def test_unknown_verb(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.fails(capsys, "trian", "trian")

    def test_unknown_key(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.fails(capsys, "did you mean 'lr'", "train", "optim.lrr=1", f"run.dir={tmp_path / 'r'}")
        assert not (tmp_path / "r").exists()

    def test_missing_config(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.fails(capsys, "nothere.yaml", "train", "--config", tmp_path / "nothere.yaml")

    def test_missing_folder(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.fails(capsys, "does not exist", "train", *small(tmp_path / "nothere", tmp_path / "r"))
        assert not (tmp_path / "r").exists()

    def test_no_labelled_image(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_folder(tmp_path / "data")
        shutil.rmtree(tmp_path / "data" / "depth")
        self.fails(capsys, "no labelled image for task 'depth'", "train", *small(tmp_path / "data", tmp_path / "r"))

    @pytest.mark.parametrize(
        ("damage", "expected"),
        [("truncate", "cannot be read"), ("size", "must have the size of their image"), ("class", "class id")],
    )
    def test_bad_labels(self, damage: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_folder(tmp_path / "data")
        for path in (tmp_path / "data" / "semseg").iterdir():
            if damage == "truncate":
                path.write_bytes(path.read_bytes()[:60])
            else:
                label = np.asarray(Image.open(path))
                label = label[:-3] if damage == "size" else np.full_like(label, 77)
                Image.fromarray(label).save(path)
        settings = [*small(tmp_path / "data", tmp_path / "r"), "data.labels=full"]
        assert "semseg" in self.fails(capsys, expected, "train", *settings)

    def test_truncated_image(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_folder(tmp_path / "data")
        for path in (tmp_path / "data" / "images").iterdir():
            path.write_bytes(path.read_bytes()[:100])
        self.fails(capsys, "cannot be read", "train", *small(tmp_path / "data", tmp_path / "r"))

    def test_full_run_folder_is_kept(self, trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
        root, folder = trained
        before = snapshot(folder)
        self.fails(capsys, "is not empty", "train", *small(root, folder))
        assert snapshot(folder) == before

    def test_resume_with_other_settings(self, trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
        root, folder = trained
        self.fails(capsys, "other settings", "train", *small(root, folder), "optim.lr=0.5", "--resume")

    def test_model_for_other_tasks(
        self, trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root, folder = trained
        settings = [*small(root, tmp_path / "r"), "tasks={depth: {}, normals: {}}"]
        self.fails(capsys, "this run trains 'htt' for depth, normals", "train", *settings, "--init-from", folder)

    def test_no_model(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.fails(capsys, "no trained model", "predict", tmp_path, tmp_path, "--out", tmp_path / "o")
        self.fails(capsys, "is no run folder", "evaluate", tmp_path)
        self.fails(capsys, "is no run folder", "discover", tmp_path, "--out", tmp_path / "o")

    def test_predict_inputs(
        self, trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        _, folder = trained
        self.fails(capsys, "no image at", "predict", folder, tmp_path / "nothere.jpg", "--out", tmp_path / "o")
        (tmp_path / "in").mkdir()
        self.fails(capsys, "no images in folder", "predict", folder, tmp_path / "in", "--out", tmp_path / "o")
        (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
        Image.new("RGB", (40, 30)).save(tmp_path / "in" / "good.png")
        # The broken one is named; the good one is predicted all the same.
        self.fails(capsys, "broken.jpg", "predict", folder, tmp_path / "in", "--out", tmp_path / "o")
        assert (tmp_path / "o" / "semseg" / "good.png").is_file()
        before = snapshot(tmp_path / "o")
        # The same command goes on with what is left; another one is refused.
        self.fails(capsys, "broken.jpg", "predict", folder, tmp_path / "in", "--out", tmp_path / "o")
        self.fails(
            capsys, "another set of images", "predict", folder, tmp_path / "in" / "good.png", "--out", tmp_path / "o"
        )
        assert snapshot(tmp_path / "o") == before

    def test_unknown_split(self, trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
        self.fails(capsys, "did you mean 'test'", "evaluate", trained[1], "--split", "tset")


def test_the_folder_of_the_data_may_have_any_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = write_folder(tmp_path / "2024 \U0001f600 [b] 'ü'", count=2, train=1)
    small = ("data.size=[32, 48]", "model.backbone=test_resnet", "model.pretrained=false", "method.name=mtl",
             "method.steps=1", "data.labels=full", "run.evaluate=test", "run.device=cpu")  # fmt: skip
    folder = tmp_path / "[/run]"
    code, _, errors = run(capsys, "train", "-q", "--root", root, *small, f"run.dir='{folder}'")
    assert code == 0, errors
    reading = (("evaluate", folder), ("runs", tmp_path), ("runs", folder, folder), ("check", root))
    for words in (*reading, ("init", root, "--force")):
        code, out, errors = run(capsys, *words)
        assert code == 0, errors
        plain = "".join(out.split())  # a table may wrap a long path
        assert "[/run]" in plain or words[0] in ("check", "init")
