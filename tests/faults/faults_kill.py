"""Kill runs, discoveries and preparations at random moments, go on until they are done, compare with quiet ones."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faults_child as child

EXAMPLE = (
    "data.size=[32, 48]",
    "data.labels=one",
    "data.augmentation.scale=[0.8, 1.3]",
    "model.pretrained=false",
    "model.backbone=test_resnet",
    "model.width=16",
    "optim.batch_size=3",
    "optim.warmup=1",
    "run.device=cpu",
    "run.threads=1",
    "run.checkpoint_every=2",
    "run.keep=2",
    "run.log_every=1",
    "run.evaluate=test",
)
"""A network and images so small that a run takes about a second."""

SCENARIOS: dict[str, tuple[str, ...]] = {
    "two-stage": ("method.stage1_steps=5", "method.stage2_steps=5"),
    "online": ("method.schedule=online", "method.stage1_steps=8", "method.stage2_steps=0"),
    "mtl": ("method.name=mtl", "method.steps=8"),
    "mtl, validated": (
        "method.name=mtl",
        "method.steps=8",
        "run.validate_every=2",
        "data.holdout=0.34",
        "data.labels=full",
        "run.checkpoint_every=1",
        "optim.accumulate=2",
    ),
    "two-stage, 2 loader processes": ("method.stage1_steps=4", "method.stage2_steps=4", "data.workers=2"),
}
TIMES = ("images_per_second", "data_wait", "memory_mb", "minutes")
"""Values of a row of metrics.jsonl that say how long things took."""


@dataclass(frozen=True)
class Part:
    """The ``number``-th, from 1, of ``of`` parts into which the campaign is dealt out."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """That of ``1/4``."""
        return cls(*map(int, text.split("/")))

    def select(self, each: Sequence[Any]) -> list[Any]:
        """Its own of what there is."""
        return [*each][self.number - 1 :: self.of]


WHOLE = Part()


@dataclass
class Row:
    """What a part of the campaign found."""

    moment: str
    scenario: str = ""
    asked: int = 0
    cases: int = 0
    kills: int = 0
    anew: int = 0
    identical: int = 0
    tracebacks: int = 0
    hangs: int = 0
    lost: int = 0
    wrong_codes: int = 0
    differs: int = 0
    examples: list[str] = field(default_factory=list)

    def fault(self, kind: str, text: str) -> None:
        """Count what is not as promised, with up to three examples."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < 3:
            self.examples.append(text[-800:])


# -- where a process ends itself ---------------------------------------------------------------------------------------
Target = tuple[str, str]
MOMENTS: dict[str, tuple[Target, ...]] = {
    "start": (("tasktokens.training.run_folder", "save_visible"), ("tasktokens.training.run_folder", "version")),
    "steps": (
        ("tasktokens.training.step", "combine"),
        ("tasktokens.training.trainer", "set_lr"),
        ("tasktokens.training.nan_guard.FiniteGuard", "before_update"),
    ),
    "saves": (
        ("os", "fsync"),
        ("pathlib.Path", "rename"),
        ("pathlib.Path", "replace"),
        ("shutil", "rmtree"),
        ("tasktokens.training.checkpoint", "save_file"),
    ),
    "log": (("tasktokens.training.log.RunLog", "row"),),
    "evaluation": (
        ("tasktokens.inference.evaluate", "decode_at"),
        ("tasktokens.training.trainer", "write_results"),
        ("tasktokens.training.trainer", "evaluate_network"),
    ),
    "validation": (
        ("tasktokens.training.callbacks.validation.Validation", "_record"),
        ("tasktokens.training.callbacks.validation.Validation", "_keep"),
        ("tasktokens.training.callbacks.validation", "save_model"),
    ),
    "stage change": (
        ("tasktokens.training.trainer", "save_model"),
        ("tasktokens.training.trainer.Trainer", "_make_networks"),
        ("tasktokens.models.files", "save_file"),
    ),
}
"""Functions at a random call of which, before, after or half-way, the process is killed."""


def resolve(name: str) -> Any:
    """A module or a class in one."""
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def end_at(target: Target, number: int, how: str, which: signal.Signals = signal.SIGKILL) -> None:
    """Replace a function by one that ends this process at its n-th call: ``before``, ``after``, or ``half`` of it."""
    owner, name = resolve(target[0]), target[1]
    function, calls = getattr(owner, name), [0]

    @functools.wraps(function)
    def watched(*arguments: Any, **settings: Any) -> Any:
        calls[0] += 1
        if calls[0] != number:
            return function(*arguments, **settings)
        if how == "before":
            os.kill(os.getpid(), which)
            return function(*arguments, **settings)
        if how == "half" and name == "rmtree":
            for path in sorted(Path(arguments[0]).rglob("*"))[:2]:
                path.unlink() if path.is_file() else None
            os.kill(os.getpid(), which)
        if how == "half" and name == "row":
            arguments[0]._file.write(json.dumps(arguments[1])[:40])
            arguments[0]._file.flush()
            os.kill(os.getpid(), which)
        result = function(*arguments, **settings)
        if how == "half" and name == "save_file":
            os.truncate(arguments[1], os.path.getsize(arguments[1]) // 2)
        os.kill(os.getpid(), which)
        return result

    setattr(owner, name, watched)


# -- runs --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Place:
    """Folders of the campaign: the data, runs that nothing may touch, and where to work."""

    root: Path
    part: str = "kills"

    @property
    def given(self) -> Path:
        return self.root / "given"

    @property
    def data(self) -> Path:
        return self.given / "tiny"

    @property
    def work(self) -> Path:
        return self.root / self.part

    @property
    def log(self) -> Path:
        return self.root / f"{self.part}.txt"


def words(place: Place, scenario: str, run: Path) -> list[str]:
    """The command of a run."""
    return ["train", "-q", f"data.root={place.data}", *EXAMPLE, *SCENARIOS[scenario], f"run.dir={run}"]


def result(run: Path) -> dict[str, Any]:
    """What must be the same in the end: weights, teacher, evaluation, and the rows without their times."""
    found = child.digest(run)
    kept = {
        name: sum
        for name, sum in found.items()
        if name.startswith(("model/", "teacher/", "best/", "evaluation", "labels"))
    }
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {"files": kept, "rows": [{k: v for k, v in row.items() if k not in TIMES} for row in rows]}


@contextmanager
def nothing_lost(place: Place, row: Row) -> Iterator[None]:
    """Count as lost where a given file or another run has changed."""
    before = [child.digest(folder) for folder in (place.given, place.work / "quiet")]
    yield
    if [child.digest(folder) for folder in (place.given, place.work / "quiet")] != before:
        row.fault("lost", "a given file or another run was changed")


Kill = Callable[[list[str]], child.Ended]


def without_pictures() -> None:
    """Leave out what takes half of the time of so small a run; at any time, runs are killed while they draw, too."""
    resolve("tasktokens.reporting.train")._attempt = lambda draw, run: None


def until_done(command: list[str], run: Path, place: Place, row: Row, kill: Kill, most: int) -> bool:
    """Let ``kill`` run and end the command up to ``most`` times, then let it come to its end; whether it got there."""
    for attempt in range(most + 1):
        begun = any(run.glob("checkpoints/[0-9]*"))
        more = ["--resume"] if begun else ["--overwrite"] if (run / "config.yaml").exists() else []
        row.anew += attempt > 0 and not begun
        last = attempt == most
        end = [*command, *more]
        ended = child.run(end, place.log, without_pictures, limit=300) if last else kill(end)
        if ended.code == 2 and begun and "no complete checkpoint" in ended.output:
            row.anew += 1
            ended = child.run([*command, "--overwrite"], place.log, without_pictures, limit=300)
        if note(ended, row):
            return True
    return False


def note(ended: child.Ended, row: Row) -> bool:
    """Count how an attempt ended; whether the work is done."""
    if ended.hung:
        row.fault("hangs", ended.output)
    if ended.traceback:
        row.fault("tracebacks", ended.output)
    if ended.code == 0:
        return True
    if ended.code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130, 143) and not ended.hung:
        row.kills += 1
    else:
        row.fault("wrong_codes", f"exit code {ended.code}: {ended.output}")
    return False


def at_a_call(dice: random.Random, targets: tuple[Target, ...], place: Place, which: signal.Signals) -> Kill:
    """Ends the process at a random call of one of some functions."""
    hows = ("before", "after", "half") if which == signal.SIGKILL else ("before", "after")

    def kill(command: list[str]) -> child.Ended:
        target, how = dice.choice(targets), dice.choice(hows)
        rare = target[1] in ("save_model", "_networks", "save_visible", "evaluate_network", "write_results")
        number = dice.randint(1, 2 if rare else 9)

        def before() -> None:
            without_pictures()
            end_at(target, number, how, which)

        return child.run(command, place.log, before, limit=300)

    return kill


def at_a_time(dice: random.Random, seconds: float, place: Place, which: signal.Signals) -> Kill:
    """Ends the process after a random time, from outside."""

    shortest = [seconds]  # other work on the machine may have made the first run a long one

    def kill(command: list[str]) -> child.Ended:
        started = time.monotonic()
        process, delay = child.start(command, place.log), dice.uniform(0, shortest[0])
        while time.monotonic() < started + delay:
            if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                shortest[0] = min(shortest[0], time.monotonic() - started)
                break
            time.sleep(0.02)
        os.kill(process, which)
        return child.wait(process, place.log, 300)

    return kill


def fits(moment: str, scenario: str) -> bool:
    """Whether there is such a moment in such a run; one that draws at each validation takes long."""
    if moment == "stage change":
        return "two-stage" in scenario
    return (moment in ("validation", "saves", "any time")) if "validated" in scenario else moment != "validation"


def kill_runs(
    place: Place, kills: int, only: Sequence[str], seed: int, say: Callable[[str], None], part: Part = WHOLE
) -> list[Row]:
    """About ``kills`` of them over all moments and scenarios (``only`` these); each row is one of each."""
    scenarios = [scenario for scenario in SCENARIOS if not only or scenario in only]
    plans = part.select([*plan_kills(kills, scenarios)])
    references, seconds = {}, {}
    for scenario in [each for each in scenarios if each in {plan[1] for plan in plans}]:
        run = place.work / "quiet" / scenario
        started = time.monotonic()
        ended = child.run(words(place, scenario, run), place.log, limit=300)
        if ended.code:
            raise SystemExit(f"the uninterrupted run failed: {ended.output}")
        seconds[scenario], references[scenario] = time.monotonic() - started, result(run)
        say(f"{scenario}: {seconds[scenario]:.1f} s uninterrupted")
    rows = []
    for moment, scenario, which, share in plans:
        dice = random.Random(f"{seed} {moment} {scenario} {which}")
        timed = at_a_time(dice, seconds[scenario], place, which)
        kill = timed if moment == "any time" else at_a_call(dice, MOMENTS[moment], place, which)
        row = Row(moment if which == signal.SIGKILL else f"{which.name} at {moment}", scenario, share)
        for _ in range(6 * share):
            if row.kills >= share:
                break
            kill_one(place, scenario, row, kill, dice.randint(1, min(4, share - row.kills)), references[scenario])
        rows.append(row)
        say(f"{row.moment}, {scenario}: {row.kills} kills in {row.cases} runs, {row.identical} identical")
    return rows


def plan_kills(kills: int, scenarios: list[str]) -> Iterator[tuple[str, str, signal.Signals, int]]:
    """Moment, scenario, signal, and how many of the kills: as many for each, but for rounding."""
    plans = [
        (moment, scenario, signal.SIGKILL)
        for moment in (*MOMENTS, "any time")
        for scenario in scenarios
        if fits(moment, scenario)
    ]
    plans += [
        (moment, scenario, which)
        for which in (signal.SIGTERM, signal.SIGINT)
        for moment in ("steps", "evaluation", "any time")
        for scenario in scenarios[:2]
    ]
    for index, plan in enumerate(plans):
        yield *plan, (kills * (index + 1)) // len(plans) - (kills * index) // len(plans)


def kill_one(place: Place, scenario: str, row: Row, kill: Kill, most: int, reference: dict[str, Any]) -> None:
    """One run, killed up to ``most`` times."""
    run, before = place.work / "run", row.kills
    shutil.rmtree(run, ignore_errors=True)
    with nothing_lost(place, row):
        if not until_done(words(place, scenario, run), run, place, row, kill, most):
            row.cases += 1
            return
    if row.kills == before:
        return  # it was done before its moment came
    row.cases += 1
    found = result(run)
    if found == reference and not leftovers(run):
        row.identical += 1
    else:
        row.fault("differs", f"{[k for k in reference if found[k] != reference[k]]} {leftovers(run)} {found['rows']}")


def leftovers(folder: Path) -> list[str]:
    """What a killed process left behind and nobody removed."""
    return [path.name for path in folder.rglob(".*") if path.name.endswith(".tmp") or ".partial" in path.name]


# -- folders that are written ------------------------------------------------------------------------------------------
WRITES: tuple[Target, ...] = (
    ("tasktokens.inference.filler", "write_prediction"),
    ("tasktokens.inference.filler", "copy_label"),
    ("tasktokens.inference.filler", "describe"),
    ("pathlib.Path", "replace"),
)
PREPARES: tuple[Target, ...] = (
    ("tasktokens.datasets.convert", "sha256"),
    ("pathlib.Path", "replace"),
    ("tasktokens.datasets.prepared.Journal", "add"),
    ("tasktokens.datasets.prepare", "finish"),
)


def kill_writers(place: Place, kills: int, seed: int, say: Callable[[str], None], part: Part = WHOLE) -> list[Row]:
    """Kill ``discover`` and ``prepare``; the same command goes on, and the folder must be the uninterrupted one."""
    run = place.given / "run"
    commands = {
        "discovery": (["discover", str(run), "-q"], WRITES),
        "preparation": (["prepare", "--data", "folder", "--root", str(place.data), "--workers", "1", "-q"], PREPARES),
    }
    rows = []
    for moment, (command, targets) in part.select([*commands.items()]):
        row, dice = Row(moment, asked=kills // 2), random.Random(f"{seed} {moment}")
        quiet = place.work / "quiet" / moment
        if child.run([*command, "--out", quiet], place.log).code:
            raise SystemExit(f"the uninterrupted {moment} failed: {place.log.read_text()}")
        kill, out = at_a_call(dice, targets, place, signal.SIGKILL), place.work / "written"
        for _ in range(2 * kills):
            if row.kills >= kills // 2:
                break
            shutil.rmtree(out, ignore_errors=True)
            row.cases += 1
            most = dice.randint(1, min(4, kills // 2 - row.kills))
            with nothing_lost(place, row):
                done = any(note(kill([*command, "--out", str(out)]), row) for _ in range(most))
                done = done or note(child.run([*command, "--out", out], place.log), row)
            same = done and child.digest(out) == child.digest(quiet)
            row.identical += same
            if done and not same:
                ours, theirs = child.digest(out), child.digest(quiet)
                row.fault("differs", str({k for k in ours | theirs if ours.get(k) != theirs.get(k)}))
        rows.append(row)
        say(f"{moment}: {row.kills} kills in {row.cases} folders, {row.identical} identical")
    return rows
