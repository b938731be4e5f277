"""The Dockerfile without an engine: what it copies is there and sent, each RUN works in a root folder of its own."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import write_folder

ROOT = Path(__file__).resolve().parents[2]


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: (word, rest), continued lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined)]


def of(word: str) -> list[str]:
    return [rest for each, rest in instructions() if each == word]


def arguments(**changes: str) -> dict[str, str]:
    """Build arguments with their defaults."""
    return dict(rest.split("=", 1) for rest in of("ARG")) | changes


def filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], text)


def sent() -> Iterator[str]:
    """The files of the tree that .dockerignore lets through, by its rules: the last that fits decides."""
    text = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    rules = [line for line in text.splitlines() if line and not line.startswith("#")]
    for path in [*ROOT.glob("*"), *(ROOT / "src").rglob("*")]:
        name, out = path.relative_to(ROOT).as_posix(), False
        for rule in rules:
            pattern = rule.lstrip("!").removeprefix("**/")
            above = [name, *(parent.as_posix() for parent in Path(name).parents)]
            fits = any(fnmatch.fnmatch(each.split("/")[-1] if "**/" in rule else each, pattern) for each in above)
            if fits and not (pattern == "*" and "/" in name):
                out = not rule.startswith("!")
        if path.is_file() and not out:
            yield name


def test_what_is_copied_is_there_and_sent() -> None:
    files = set(sent())
    for rest in of("COPY"):
        for source in rest.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source in files or any(name.startswith(f"{source}/") for name in files), source
    assert "src/tasktokens/py.typed" in files
    assert not [name for name in files if "__pycache__" in name or name.startswith((".git/", "tests", "runs"))]


def test_the_image_is_of_an_ordinary_user_and_keeps_no_cache() -> None:
    assert of("USER")[-1] not in ("0", "root")
    words = [word for word, _ in instructions()]
    assert words.index("USER") > max(place for place, word in enumerate(words) if word == "RUN")
    for line in of("RUN"):
        if "pip install" in line:
            assert "--no-cache-dir" in line
    assert len(of("FROM")) == 1
    assert not of("FROM")[0].endswith((":latest", "slim-latest"))


def test_a_graphics_card_is_an_argument() -> None:
    line = next(line for line in of("RUN") if "--index-url" in line)
    assert filled(line, arguments()).endswith("https://download.pytorch.org/whl/cpu")
    assert filled(line, arguments(TORCH_INDEX="cu126")).endswith("https://download.pytorch.org/whl/cu126")


def test_the_extras_exist() -> None:
    import tomllib

    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(arguments()["EXTRAS"].split(",")) <= set(known)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="the image is Linux")
def test_each_line_runs_in_a_root_folder_of_its_own(tmp_path: Path) -> None:
    """torch and what else is needed come from this environment, or it would take hours; the rest is done as it stands.

    The user has no home and no name, as with ``--user 12345``.
    """
    root = tmp_path / "root"
    venv.create(root / "python", with_pip=False)
    python = root / "python/bin/python"
    (site,) = (root / "python/lib").glob("python3*/site-packages")
    (site / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    (site / "sitecustomize.py").write_text(
        "import pwd\ndef nobody(number): raise KeyError(number)\npwd.getpwuid = nobody\n"
    )
    for rest in of("COPY"):
        *sources, target = rest.split()
        for source in sources:
            into = _below(root, target) / (source if target.endswith("/") else "")
            into.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, into)
    for line in of("RUN"):
        _run_line(line, root, python)
    assert not (root / "source").exists()
    assert (root / "cache").stat().st_mode & 0o1777 == 0o1777

    environment = {"PATH": f"{python.parent}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    for word in shlex.split(of("ENV")[0]):
        name, value = word.split("=", 1)
        environment[name] = str(_below(root, value)) if value.startswith("/") else value
    (program,) = re.findall(r'"([^"]+)"', of("ENTRYPOINT")[0])
    work = _below(root, of("WORKDIR")[0])
    write_folder(work / "mydata")

    def container(*words: str) -> str:
        done = subprocess.run(
            [str(python.parent / program), *words], cwd=work, env=environment, capture_output=True, encoding="utf-8",
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    assert container("--version").startswith("tasktokens ")
    assert "mydata" in container("check", "mydata")
    tiny = ["model.backbone=test_resnet", "model.pretrained=false", "data.size=[32,48]", "method.stage1_steps=1",
            "method.stage2_steps=1", "optim.batch_size=2", "run.threads=1"]  # fmt: skip
    container("train", "data.root=mydata", "run.dir=runs/mine", "-q", *tiny)
    assert (work / "runs/mine/model/model.safetensors").is_file()
    assert not (root / "root").exists()


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _run_line(line: str, root: Path, python: Path) -> None:
    """One RUN: pip into the root's Python without what is shared, the other commands with their paths below it."""
    command = shlex.split(filled(line, arguments()))
    if command[:2] == ["pip", "install"]:
        if "--index-url" in command:  # torch, which is shared
            return
        package = str(_below(root, command[-1]))
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
        command = [*pip, *command[2:-1], "--no-deps", package]
    elif command[0] == "useradd":
        if shutil.which("useradd") is None or os.geteuid() != 0:
            return
        (root / "etc").mkdir()
        for name in ("passwd", "group", "shadow", "gshadow"):
            (root / "etc" / name).touch()
        command = ["useradd", "--prefix", str(root), *command[1:]]
    else:
        command = [str(_below(root, word)) if word.startswith("/") else word for word in command]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, cwd=root)
    if done.returncode and ("No matching distribution" in done.stderr or "ConnectionError" in done.stderr):
        pytest.skip("no package index: the build backend cannot be installed")
    assert done.returncode == 0, f"{line}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
