"""Every verb on consoles that are not UTF-8: what they cannot show becomes ``?``, and nothing else changes."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from conftest import CLASSES, write_folder
from tasktokens import cli
from tasktokens.datasets.folder import open_folder

NAME = "Stühle-椅子-Δ"
TINY = [
    "model.backbone=test_resnet", "model.pretrained=false", "model.width=16", "data.size=[32,48]", "optim.batch_size=3",
    "optim.warmup=1", "method.stage1_steps=1", "method.stage2_steps=1", "run.device=cpu", "run.threads=1",
    "run.log_every=1", "data.check=false",
]  # fmt: skip


def run_on(encoding: str, *words: object) -> tuple[int, str, str]:
    """Exit code and both outputs of a command on a console of an encoding, which refuses what it lacks."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        patch.setattr(sys, "argv", ["tasktokens", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        texts = []
        for stream in streams:
            stream.flush()
            texts.append(stream.buffer.getvalue().decode(encoding))  # type: ignore[attr-defined]
    return code, texts[0], texts[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder and a run of it, whose names and classes no such console can show."""
    place = tmp_path_factory.mktemp("consoles") / NAME
    root = write_folder(place / "data")
    for folder in ("images", "semseg", "depth", "normals", "edge", "saliency"):
        (root / folder / "im00.png").rename(root / folder / f"{NAME}.png")
    (root / "depth" / f"{NAME}.png").unlink()
    (root / "train.txt").write_text((root / "train.txt").read_text().replace("im00", NAME), encoding="utf-8")
    values = yaml.safe_load((root / "dataset.yaml").read_text())
    values["tasks"]["semseg"]["classes"] = [NAME, *CLASSES[1:]]
    (root / "dataset.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    code, _, said = run_on("utf-8", "train", f"data.root={root}", f"run.dir={place / 'run'}", *TINY)
    assert code == 0, said
    return place


VERBS = {
    "help": ["--help"],
    **{f"{verb} --help": [verb, "--help"] for verb in sorted(c.name or str(c.callback.__name__).strip("_")  # type: ignore[union-attr]
                                                             for c in cli.app.registered_commands)},
    "version": ["--version"],
    "list": ["list"],
    "check": ["check", "DATA"],
    "check --json": ["check", "DATA", "--json"],
    "check --html": ["check", "DATA", "--html", "OUT/page.html"],
    "init": ["init", "COPY", "--force"],
    "train": ["train", "data.root=DATA", "run.dir=OUT/run", *TINY],
    "train -q": ["train", "-q", "data.root=DATA", "run.dir=OUT/run", *TINY],
    "train --resume": ["train", "--resume", "run.dir=RUN"],
    "evaluate": ["evaluate", "RUN"],
    "predict": ["predict", "RUN", "DATA/images", "--out", "OUT/predicted"],
    "discover": ["discover", "RUN", "--out", "OUT/filled", "--page", "--pictures"],
    "explain": ["explain", "RUN", f"DATA/images/{NAME}.png", "--out", "OUT/explained"],
    "runs": ["runs", "PLACE"],
    "runs --json": ["runs", "PLACE", "--json"],
    "runs A B": ["runs", "RUN", "RUN"],
    "prepare": ["prepare", "--data", "folder", "--root", "DATA", "--out", "OUT/prepared"],
    "rooms": ["rooms", "--out", "OUT/rooms", "--train", "1", "--val", "1", "--test", "1", "--height", "16",
              "--width", "16"],
}  # fmt: skip


ENCODINGS = ("ascii", "latin-1", "cp1252")
LONG = {"train", "train -q", "train --resume", "predict", "discover", "explain", "prepare", "rooms"}
"""By default these run on the console that can show least; the others show some of what they write, too."""
EVERY = [
    pytest.param(verb, encoding, marks=[pytest.mark.slow] if verb in LONG and encoding != "ascii" else [])
    for verb in VERBS
    for encoding in ENCODINGS
]


@pytest.mark.parametrize(("verb", "encoding"), EVERY)
def test_every_verb_ends_well_and_writes_what_it_writes_elsewhere(
    verb: str, encoding: str, place: Path, tmp_path: Path
) -> None:
    out = tmp_path / NAME
    out.mkdir()
    if "COPY" in VERBS[verb]:
        shutil.copytree(place / "data", out / "copy")
    meant = {"DATA": place / "data", "COPY": out / "copy", "OUT": out, "RUN": place / "run", "PLACE": place}

    def filled(word: str) -> str:
        for key, path in meant.items():
            word = word.replace(key, str(path))
        return word

    code, said, errors = run_on(encoding, *map(filled, VERBS[verb]))
    assert code == 0, errors
    assert "Traceback" not in errors
    assert said.strip() or "-q" in VERBS[verb] or verb == "train -q"
    if verb == "discover":
        found = open_folder(out / "filled")
        assert NAME in found.images
        assert found.tasks["semseg"].class_names()[0] == NAME


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_errors_of_the_user_are_a_sentence_there_too(encoding: str, place: Path) -> None:
    code, _, errors = run_on(encoding, "train", f"data.root={place / 'nirgends'}", *TINY)
    assert code == 2
    assert errors.startswith("error: ")
    assert "?" in errors
