"""Every command of every ``bash`` block of README.md and docs/ runs, in the order of its block, from the text itself.

Blocks run in the folder of tests/conftest.py, with stand-ins for the public data. Settings are added to ``train`` so
that it takes seconds and no network; nothing else of a command is changed. What is not run is listed with its reason.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from conftest import SMALL_ROOMS, run_cli
from fakes import nyud
from tasktokens.reporting.comparison.suite import read_suite

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FEW_STEPS = (
    "model.pretrained=false", "model.backbone=test_resnet", "model.width=16", "data.size=[32, 48]", "run.device=cpu",
    "method.stage1_steps=1", "method.stage2_steps=1", "optim.batch_size=3", "optim.warmup=0",
)  # fmt: skip
"""The backbone is another one since weights of ImageNet need the network: the README says `model.pretrained=false`."""
LAUNCHER = re.compile(r"torchrun --standalone --nproc_per_node 2 -m tasktokens\.cli ")
"""Two processes are what tests/integration/test_distributed.py is for: here one runs the same words."""
NOT_RUN = {
    "pip install": "needs the network",
    "python3 -m venv": "makes an environment, for the line above",
    "source env/bin/activate": "as above",
    "tasktokens --version": "tests/integration/test_wheel.py runs it, in an environment that was made so",
    "tasktokens demo": "takes minutes; tests/integration/test_demo.py runs it on fewer images",
    "tasktokens compare": "takes hours, or for `quick` a quarter of one; the options are compared with the verb's",
    "python benchmarks/": "takes hours, and data that must be asked for; the options are compared with the script",
    "torchrun --standalone --nproc_per_node 8": "needs eight GPUs",
    "tasktokens discover runs/mine --engine ray": "starts a cluster; tests/integration/test_shards.py does, slowly",
    "torchrun --nnodes 2": "needs two machines",
    "#!/bin/bash": "is a script for SLURM",
    "tasktokens review mydata-filled --serve": "runs until it is stopped; test_review_page.py opens it",
    "tasktokens serve": "runs until it is stopped; test_serve_page.py opens it",
    "curl": "asks a server that runs; tests/unit/serving asks the same",
}


def commands(block: str) -> list[str]:
    """The commands of a block, without comments; a script is one.

    A line goes on after a backslash and where the next is indented.
    """
    text = re.sub(r"\s*\\\n\s*|\n[ \t]+", " ", block)
    if text.startswith("#!"):
        return [text]
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines()]
    return [part.strip() for line in lines if line for part in line.split(" && ")]


BLOCKS = {
    f"{page.relative_to(ROOT)}:{number}": commands(text)
    for page in PAGES
    for number, text in enumerate(re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
}
FILES = {
    str(page.relative_to(ROOT)): dict(
        re.findall(r'^```yaml title="(\S+)"\n(.*?)^```', page.read_text(encoding="utf-8"), re.M | re.S)
    )
    for page in PAGES
}
"""Files that a page shows by name: they are there when its commands run."""
RUN = {name: [c for c in block if not c.startswith(tuple(NOT_RUN))] for name, block in BLOCKS.items()}


@pytest.fixture
def place(documented: Path) -> Path:
    """The documented folder, with more runs, settings, and stand-ins for NYU Depth v2."""
    for copy in ("runs/mtl", "runs/htt", "experiments/nyud/one"):
        shutil.copytree("runs/mine", copy)
    shutil.copy("my.yaml", "run.yaml")
    for root in ("NYUD", "NYUV2"):
        nyud.write_official(documented / root)
    return documented


FIRST = ("README.md", "docs/index.md", "docs/start/quickstart.md")
"""What a newcomer tries first: the commands of other pages run with ``--run-slow``."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name.startswith(FIRST) else [pytest.mark.slow])
        for name, block in RUN.items()
        if block
    ],
)
def test_the_commands_run(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for made in re.findall(r"(?:run\.dir=|--out )(\S+)", " ".join(RUN[name])):
        shutil.rmtree(made, ignore_errors=True)  # the block makes it itself
    for file, text in FILES[name.rpartition(":")[0]].items():
        Path(file).write_text(text)
    if RUN[name][0].startswith("tasktokens init"):
        for written in ("dataset.yaml", "train.txt", "test.txt"):
            (place / "mydata" / written).unlink()
    if "mydata-filled" in " ".join(RUN[name]) and "--out mydata-filled" not in " ".join(RUN[name]):
        # By an earlier block of the page, in whose folder something was missing.
        Path("mydata/depth/im00.png").unlink()
        shutil.rmtree("runs/mine")
        run_cli(capsys, "train", "--config", "my.yaml", "run.dir=runs/mine", *FEW_STEPS, "-q")
        run_cli(capsys, "discover", "runs/mine", "--out", "mydata-filled", "-q")
    for number, command in enumerate(RUN[name]):
        program, verb, *words = shlex.split(LAUNCHER.sub("tasktokens ", command))
        assert program == "tasktokens", f"no test runs '{command}': run it here, or say in NOT_RUN why not"
        if verb == "train":
            own = [] if "run.dir=" in command else [f"run.dir=runs/new-{number}"]
            rooms = SMALL_ROOMS if "data.train=" in command else []
            words += [*FEW_STEPS, *rooms, *own]
        code, out, errors = run_cli(capsys, verb, *words)
        findings = verb == "check" and code == 1 and "Traceback" not in errors  # of a stand-in
        assert code == 0 or findings, f"{command}\n{out[-3000:]}\n{errors[-3000:]}"


def test_the_own_images_of_the_readme_are_run() -> None:
    verbs = [[command.split()[1] for command in block] for name, block in RUN.items() if name.startswith("README.md")]
    assert ["init", "train", "discover", "predict"] in verbs


def test_what_is_not_run_is_there_and_has_a_reason() -> None:
    every = [command for block in BLOCKS.values() for command in block]
    assert [start for start in NOT_RUN if not any(command.startswith(start) for command in every)] == []
    assert all(NOT_RUN.values())


@pytest.mark.parametrize("name", [n for n, block in BLOCKS.items() if any("python benchmarks/" in c for c in block)])
def test_the_scripts_of_benchmarks_have_the_options(name: str) -> None:
    for command in BLOCKS[name]:
        if command.startswith("python "):
            script, *words = shlex.split(command)[1:]
            text = (ROOT / script).read_text(encoding="utf-8")
            for option in (word for word in words if word.startswith("--")):
                assert f'"{option}"' in text, command


@pytest.mark.parametrize("name", [n for n, block in BLOCKS.items() if any("tasktokens compare" in c for c in block)])
def test_compare_takes_the_words(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in BLOCKS[name]:
        if command.startswith("tasktokens compare "):
            _, _, suite, *words = shlex.split(command)
            if suite.endswith(".json"):  # shows a table that was made before
                assert run_cli(capsys, "compare", ROOT / suite, *words)[0] == 0
                continue
            options = {w: words[i + 1] for i, w in enumerate(words) if w.startswith("--")}
            assert set(options) <= {"--methods", "--seeds", "--labels", "--steps", "--out", "--split", "--tuned"}, (
                command
            )
            settings = [w for i, w in enumerate(words) if "=" in w and words[i - 1 : i] != ["--out"]]
            methods = options["--methods"].split(",") if "--methods" in options else None
            path = ROOT / suite if suite.endswith(".yaml") else suite
            read_suite(path, settings, methods=methods)


def test_the_synopsis_of_prepare_names_real_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs/research/datasets.md").read_text(encoding="utf-8")
    synopsis = re.search(r"^tasktokens prepare --data nyud\|.*\n.*\n.*$", text, re.M)
    assert synopsis is not None
    code, said, _ = run_cli(capsys, "prepare", "--help")
    assert code == 0
    assert [option for option in re.findall(r"--[a-z-]+", synopsis.group()) if option not in said] == []
