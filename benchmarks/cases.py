"""Inputs that broke the product, tried again: one row per case with what happened before, what happens now, and whether
that is right.

    python benchmarks/cases.py --cases CASES --before BEFORE --out benchmarks/results/cases.json

CASES holds a folder per case with a ``run.sh``, as in ``NN-name/run.sh``, and ``make_base.sh``; BEFORE holds what the
scripts printed with the version before, ``NN-name.txt`` each. A case is right where its output has all that it must and
nothing that it must not have (`CASES`). ``--after FOLDER`` keeps what this version prints, or takes what is there.

A run of default length teaches nothing about these cases: where a script trains one, a copy of it with few steps is run
(`EDITS`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tasktokens.reporting.provenance import describe


@dataclass(frozen=True)
class Case:
    """What a case's output must have and must not have, and which lines of it tell (regular expressions)."""

    wants: tuple[str, ...]
    refuses: tuple[str, ...] = ()
    tells: str = "."


TRACE = r"Traceback \(most recent call last\)"
CASES = {
    "01-palette-mask": Case((r"positive share: 0\.1\b",), (r"positive share: 0\.9",), "kind|positive|wrong"),
    "02-one-sided-labels": Case(
        (r"== a(?s:.)*error one-sided(?s:.)*== b(?s:.)*error(?s:.)*== c(?s:.)*error",), (r"100\.0",), "==|error|100"
    ),
    "03-float-void": Case((r"(?s)(void share 0\.25.*){7}", r"(height.*1\.5 %)", r"truth.*1\.5 %"), (), "share|MAE"),
    "04-depth-offset": Case((r"relErr\":0\.\d+", r"[1-9]\d* errors"), ("Infinity", r"relErr\":-"),
                            "relErr|negative|error"),
    "05-normals-bgr": Case((r"frame: \[z, y, x\]|error normals-frame(?s:.)*z, y, x",), (), "normals|error|wrong"),
    "06-depth-65535": Case((r"saturated|no measurement|65535",), (r"65\.6\]",), "depth|error|warning|absErr|wrong"),
    "07-linked-folders": Case((r"8 images \(train 8\)", "predicted: 8"), (), "images|predicted"),
    "08-jpeg-inside": Case((r"error .*JPEG by its content",), ("nothing wrong found",), "error|wrong"),
    "09-exif": Case((r"(?s)== turned.*exif-orientation.*== upside.*exif-orientation",),
                    ("nearest neighbour", "crop them"), "==|error|warning|ids"),
    "10-bom-lists": Case((r"train 6, test 2",), ("lists '\ufeff000'", r"missing: \['id'\]", "is not YAML"),
                         "images|error"),
    "11-console-encoding": Case((r"(?s)(rc 0.*){12}",), ("UnicodeEncodeError",), r"\|"),
    "12-batchnorm": Case((r"(?s)error: .*rc 2.*error: .*rc 2",), (TRACE, "ValueError"), "error|rc"),
    "13-hidden-photos": Case((r"rc 0", r"000\.png", r"001\.png"), ("checkpoint", "cannot be read"), "."),
    "14-left-right": Case((r"views 2: .* 0\.(8|9)\d*",), (r"views 2: .* 0\.[0-7]",), "."),
    "15-metric-functions": Case((r"\(0,0,0\): .*'mErr': (90|nan)", r"NaN: .*'maxF': nan|NaN: .*rror"), ("'maxF': 100",),
                                "."),
    "16-accelerate-env": Case((r"A=1 (\w{12})\s[^\n]*STEPS=8 \1",), (), "."),
    "17-tiff-pages": Case((r"error .*2 pages",), ("nothing wrong found",), "error|warning|wrong"),
    "20-class-masks-named-mask": Case((r"(?s)d_masks.*kind: classes.*d_mask.*kind: classes",), ("kind: binary",),
                                      "kind:|exit"),
    "21-no-split-lists": Case(
        (r"(?s)set aside.*measured on holdout.*exit 0.*measured on nothing.*exit 0.*measured on val.*exit 0",),
        (r"exit [12]",), "exit|aside|measured|val",
    ),
    "22-labels-hidden-by-default": Case((r"seen: .*'semseg': 12, 'depth': 17, 'normals': 3",), (), "labels|seen|files"),
    "23-completed-folder-does-not-train": Case((r"exit 0",), (r"exit [12]",), "exit|split|test"),
    "24-nothing-filled-in-silence": Case((r"threshold", r"20|50|80"), (), "depth|normals|semseg|warning|exit"),
    "25-no-network": Case((r"weights", r"pretrained=false", r"real\s+0m([0-9]|1[0-9])\."), ("is not empty",),
                          "error|real|exit"),
    "26-loss-zero-without-labels": Case((r"loss/normals",), (r"loss/normals\": 0\.0\b",), "loss"),
    "27-disk-full": Case((r"exit 2", r"full/d"), (TRACE, r"\(d/semseg"), "error|exit"),
    "28-init-guesses": Case((r"== a(?s:.)*== b(?s:.)*JPEG(?s:.)*== c(?s:.)*void: \[-1",), ("8 bits",),
                            "error|kind|==|void|wrong"),
}  # fmt: skip

FEW_STEPS = ('log_every=10"', 'log_every=10 method.stage1_steps=4 method.stage2_steps=2"')
EDITS = {
    # Its second and third run go where the first one lies, which was refused before it was made.
    "21-no-split-lists": [FEW_STEPS, ("$TT train", "rm -rf r; $TT train")],
    "23-completed-folder-does-not-train": [FEW_STEPS],
    "25-no-network": [FEW_STEPS],
}
"""Texts of a script and what stands for them in the copy that is run."""


def main() -> None:
    """Run the cases and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--before", type=Path, required=True, help="outputs of the version before, NN-name.txt")
    parser.add_argument("--after", type=Path, help="where outputs of this version are kept")
    parser.add_argument("--only", nargs="*", default=list(CASES))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kept = arguments.after or Path(folder) / "after"
        kept.mkdir(parents=True, exist_ok=True)
        missing = [name for name in arguments.only if not (kept / f"{name}.txt").exists()]
        scripts = Path(folder) / "scripts"
        shutil.copytree(arguments.cases, scripts)
        if missing:
            run(scripts / "make_base.sh", Path(folder))
        rows = []
        for name in arguments.only:
            if name in missing:
                edit(scripts / name / "run.sh")
                (kept / f"{name}.txt").write_text(run(scripts / name / "run.sh", Path(folder)))
            after = (kept / f"{name}.txt").read_text()
            before = (arguments.before / f"{name}.txt").read_text()
            rows.append({"case": name, "before": told(name, before), "after": told(name, after),
                         "right_before": is_right(name, before), "right": is_right(name, after)})  # fmt: skip
            print(f"{name}: {'right' if rows[-1]['right'] else 'WRONG'}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(describe("one thread", [0]) | {"rows": rows}, indent=1, ensure_ascii=False))
    sys.exit(0 if all(row["right"] for row in rows) else 1)


def edit(script: Path) -> None:
    """Put the `EDITS` of a case into its script."""
    text = script.read_text()
    for old, new in EDITS.get(script.parent.name, []):
        if old not in text:
            raise SystemExit(f"{script} has no {old!r}")
        text = text.replace(old, new)
    script.write_text(text)


def run(script: Path, folder: Path) -> str:
    """What a script prints, standard error included, and how long it took."""
    python = Path(sys.executable)
    environment = os.environ | {
        "TT": str(python.with_name("tasktokens")), "PY": str(python), "CASES_OUT": str(folder), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    timed = f"time bash '{script}'"
    done = subprocess.run(["bash", "-c", timed], env=environment, capture_output=True, text=True, errors="replace")
    return done.stdout + done.stderr


def is_right(name: str, output: str) -> bool:
    """Whether an output has all that the case wants and nothing that it refuses."""
    case = CASES[name]
    return all(re.search(p, output) for p in case.wants) and not any(re.search(p, output) for p in case.refuses)


def told(name: str, output: str) -> str:
    """The lines that tell, without paths of this machine."""
    lines = [re.sub(r"/\S*/", "", line).strip() for line in output.splitlines()]
    return "\n".join(line[:160] for line in lines if line and re.search(CASES[name].tells, line))[:900]


if __name__ == "__main__":
    main()
