"""Malformed inputs through the command line: copy what is needed, spoil it, run a verb, judge how it ends."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import faults_child as child
import numpy as np
import yaml
from faults_damage import RAN, Damage
from faults_kill import EXAMPLE, WHOLE, Part, Place, end_at
from PIL import Image

TRAIN = (*EXAMPLE, "method.name=mtl", "method.steps=1", "optim.batch_size=6", "run.evaluate=null")


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Attributes:
        kind: a row of the results.
        name: for messages.
        given: what to copy, by the name of the copy: ``{"data": "tiny"}``.
        file: what is spoiled, below the copies; None: nothing, the words are the input.
        damage: how.
        words: the command, in which ``{work}`` is the folder of the copies and ``{given}`` that of the originals.
        may: how it may end besides with a clear error: ``skip`` (names the file and goes on), ``harmless``.
    """

    kind: str
    name: str
    given: dict[str, str]
    file: str | None
    damage: Damage | None
    words: tuple[str, ...]
    may: tuple[str, ...] = ()


@dataclass
class Found:
    """A row of the results."""

    kind: str
    cases: int = 0
    clear_errors: int = 0
    named_skips: int = 0
    harmless: int = 0
    silent: int = 0
    unclear: int = 0
    tracebacks: int = 0
    hangs: int = 0
    lost: int = 0
    executed: int = 0
    harmless_are: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)


def judge(case: Case, ended: child.Ended, file: Path | None) -> str:
    """How a case ended, as a field of `Found`."""
    if ended.hung:
        return "hangs"
    if ended.traceback:
        return "tracebacks"
    checks = case.words[0] == "check" or "--verify" in case.words
    if ended.code == 2 and len(ended.error_lines) == 1:
        return "clear_errors"
    if checks and ended.code == 1:
        return "clear_errors"
    if ended.code == 2 and "Usage:" in ended.output:
        return "clear_errors"
    if ended.code == 0:
        if "skip" in case.may and file is not None and file.stem in ended.output:
            return "named_skips"
        if file is not None and file.parent.name in ended.output and "passed over" in ended.output:
            return "named_skips"  # a damaged checkpoint
        return "harmless" if "harmless" in case.may else "silent"
    return "unclear"


def one(place: Place, case: Case, seed: int) -> tuple[str, str]:
    """Run a case; how it ended, and what it printed."""
    work = place.work / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name, source in case.given.items():
        shutil.copytree(place.given / source, work / name, symlinks=True)
    dice = random.Random(f"{seed} {case.kind} {case.name}")
    file = work / case.file if case.file is not None else None
    if file is not None and case.damage is not None:
        case.damage(file, dice)
    inputs = {name: child.digest(work / name) for name in case.given}
    names = {"work": str(work), "given": str(place.given)}
    words = [word.replace("{work}", names["work"]).replace("{given}", names["given"]) for word in case.words]
    ended = child.run(words, place.log, before=lambda: os.chdir(place.work), limit=120)
    outcome = judge(case, ended, file)
    after = {name: child.digest(work / name) for name in case.given}
    # A run that goes on, or is evaluated, writes into its own folder; what it was started with stays, as all else does.
    started = ("config.yaml", "labels.csv", "environment.json")
    own = {"run": started} if words[0] in ("train", "evaluate") else {}
    gone = [
        f"{name}/{key}"
        for name in inputs
        for key, sum in inputs[name].items()
        if after[name].get(key) != sum
        and key.startswith(own.get(name, ""))
        and not (words[0] == "init" and key == "dataset.yaml")
    ]
    if gone:
        outcome = "lost"
    if (place.work / RAN).exists():
        (place.work / RAN).rmdir()
        outcome = "executed"
    return outcome, f"{case.kind}: {case.name}: {case.words[0]}: exit {ended.code}: {gone or ''} {ended.output}"


def all_inputs(
    place: Place, most: int, kinds: list[str], seed: int, say: Callable[[str], None], part: Part = WHOLE
) -> list[dict[str, Any]]:
    """Run all cases, or ``most`` of them evenly spread; a row for each kind."""
    from faults_cases import cases

    chosen = [case for case in cases() if not kinds or case.kind in kinds]
    if most < len(chosen):
        chosen = [chosen[i * len(chosen) // most] for i in range(most)]
    chosen = part.select(chosen)
    rows: dict[str, Found] = {}
    before = child.digest(place.given)
    for case in chosen:
        row = rows.setdefault(case.kind, Found(case.kind))
        outcome, text = one(place, case, seed)
        row.cases += 1
        setattr(row, outcome, getattr(row, outcome) + 1)
        if outcome == "harmless":
            row.harmless_are.append(case.name)
        if outcome not in ("clear_errors", "named_skips", "harmless"):
            short = text if len(text) < 900 else f"{text[:400]} … {text[-500:]}"
            say(f"{outcome}: {short}")
            row.examples.append(short)
    if child.digest(place.given) != before:
        next(iter(rows.values())).lost += 1
        say("lost: a given folder has changed")
    for row in rows.values():
        say(
            f"{row.kind}: {row.cases} cases, {row.clear_errors} clear errors, {row.named_skips} named skips, "
            f"{row.harmless} harmless"
        )
    return [asdict(row) for row in rows.values()]


# -- what is given -----------------------------------------------------------------------------------------------------
def make_given(place: Place) -> None:
    """Good folders of every kind, made in a child, since the driver must not compute."""
    steps: Iterable[Callable[[Path], object]] = (_folders, _tables, _public)
    for step in steps:
        process = child.fork(lambda step=step: step(place.given), place.log)
        if child.wait(process, place.log, 300).code:
            raise SystemExit(f"making the data failed: {place.log.read_text()}")
    given = place.given
    train = ["train", "-q", f"data.root={place.data}", *EXAMPLE, "method.name=mtl", "method.steps=4"]
    if child.run([*train, f"run.dir={given / 'run'}"], place.log, limit=300).code:
        raise SystemExit(f"the run failed: {place.log.read_text()}")
    stop = ("tasktokens.training.trainer", "set_lr")
    ended = child.run(
        [*train, f"run.dir={given / 'stopped'}"], place.log, lambda: end_at(stop, 3, "before", signal.SIGTERM)
    )
    if ended.code != 143:
        raise SystemExit(f"the run was not stopped: {ended.output}")
    prepare = ["prepare", "--data", "folder", "--root", str(place.data), "--workers", "1", "-q"]
    if child.run([*prepare, "--out", given / "prepared"], place.log).code:
        raise SystemExit(f"preparing failed: {place.log.read_text()}")


def _folders(given: Path) -> None:
    """``tiny``: five tasks as PNG; ``kinds``: three more; ``formats``: images in all formats."""
    from conftest import write_folder

    write_folder(given / "tiny")
    kinds = write_folder(given / "kinds")
    description = yaml.safe_load((kinds / "dataset.yaml").read_text())
    description["tasks"] |= {
        "mask": {"kind": "binary"},
        "heat": {"kind": "regression", "range": [0, 255], "unit": "K"},
        "flow": {"kind": "vectors", "centres": 8},
    }
    (kinds / "dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    for name in ("mask", "heat", "flow"):
        (kinds / name).mkdir()
    for path in sorted((kinds / "saliency").glob("*.png")):
        shutil.copy(path, kinds / "mask")
        plane = np.asarray(Image.open(path))[..., 0].astype(np.float32)
        np.save(kinds / "heat" / f"{path.stem}.npy", plane)
        np.save(kinds / "flow" / f"{path.stem}.npy", np.stack([0 * plane, 0 * plane, 0 * plane + 1], -1))
    formats = given / "formats"
    formats.mkdir()
    array = np.asarray(Image.open(given / "tiny" / "images" / "im00.png"))
    for ending in ("png", "jpg", "tif", "bmp", "webp"):
        Image.fromarray(array).save(formats / f"a_{ending}.{ending}")
    np.save(formats / "a_npy.npy", array)
    np.savez(formats / "a_npz.npz", array)


def _tables(given: Path) -> None:
    """``table``: a manifest as CSV and as Parquet."""
    import pyarrow
    from pyarrow.parquet import write_table

    from conftest import DESCRIPTION, write_folder

    root = write_folder(given / "table")
    ids = sorted(path.stem for path in (root / "images").iterdir())
    rows = [
        {
            "image": f"images/{id}.png",
            **{task: f"{task}/{id}.png" for task in DESCRIPTION["tasks"]},
            "split": "train" if number < 6 else "test",
        }
        for number, id in enumerate(ids)
    ]
    with (root / "files.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_table(pyarrow.Table.from_pylist(rows), root / "files.parquet")
    description = {"tasks": DESCRIPTION["tasks"], "manifest": "files.csv"}
    (root / "dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False))


def _public(given: Path) -> None:
    """Small fakes of the public data sets."""
    from fakes import cityscapes, nyud, pascal_context

    cityscapes.write_official(given / "cityscapes")
    cityscapes.write_mtan(given / "cityscapes_mtan")
    nyud.write_official(given / "nyud")
    nyud.write_mtan(given / "nyud_mtan")
    pascal_context.write(given / "pascal")
