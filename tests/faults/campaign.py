"""What does the engine do when it is killed, and when its files are not what they should be?

    python tests/faults/campaign.py --out benchmarks/results/faults.json                      # about ten idle minutes
    python tests/faults/campaign.py --campaign operation --out some.json                     # one campaign alone
    python tests/faults/campaign.py --part 1/4 --out some.json                               # a quarter, on one core
    python tests/faults/campaign.py --kills 7 --scenario mtl --inputs 24 --out some.json   # the sample of the tests

Kills (`faults_kill.py`): training, evaluation, discovery and preparation are killed at random moments (inside steps,
saves, the evaluation, the change of stage, and at any time; some by SIGTERM and SIGINT), resumed until they are done,
and compared with a run that nobody killed: the weights, the teacher and the evaluation byte by byte, every row of
metrics.jsonl once. Inputs (`faults_input.py`): each malformed file goes through the command line of a verb that reads
it; a clear error is one line that begins with ``error:`` and exit code 2 (of ``check`` a report and 1), a named skip
leaves the file out by name and goes on. Nothing that was given may change. Operation (`faults_operation.py`): two
processes at once, changed data, moved folders, lost terminals, a full disk. Needs Linux (it forks).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import faults_child as child
import faults_input
import faults_kill
import faults_operation
from faults_kill import Part

from tasktokens.reporting.provenance import describe

CAMPAIGNS = ("kill", "input", "operation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=220)
    parser.add_argument("--inputs", type=int, default=10**6, help="at most so many malformed inputs, evenly spread")
    parser.add_argument("--scenario", action="append", help="kill runs of this kind alone; may be repeated")
    parser.add_argument(
        "--campaign",
        action="append",
        choices=CAMPAIGNS,
        help="this alone, may be repeated; rows of the others stay in --out",
    )
    parser.add_argument("--only", action="append", help="malformed inputs of this kind alone; may be repeated")
    parser.add_argument("--part", type=Part.parse, default=Part(), help="such as 1/4: every fourth of all there is")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    started = time.monotonic()
    sys.path.append(str(Path(__file__).parents[1]))  # its small data sets
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {text}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        os.environ["TASKTOKENS_CACHE"] = f"{folder}/cache"
        child.preload()
        say("imported")
        place = faults_kill.Place(Path(folder))
        place.given.mkdir()
        faults_input.make_given(place)
        found = Path(folder) / "inputs.json"

        def inputs_part() -> None:
            other = faults_kill.Place(Path(folder), "inputs")
            rows = faults_input.all_inputs(other, given.inputs, given.only or [], given.seed, say, given.part)
            found.write_text(json.dumps(rows))

        chosen = given.campaign or CAMPAIGNS
        found.write_text("[]")
        # Both at the same time, unless this is a part beside others; neither computes in its own process.
        beside = multiprocessing.get_context("fork").Process(target=inputs_part)
        if "input" in chosen:
            beside.start()
            if given.part.of > 1:
                beside.join()
        kills = []
        if "kill" in chosen:
            runs = max(given.kills * 5 // 6, 1)
            kills = faults_kill.kill_runs(place, runs, given.scenario or [], given.seed, say, given.part)
            kills += faults_kill.kill_writers(place, given.kills - runs, given.seed, say, given.part)
        if "input" in chosen:
            beside.join()
        inputs = json.loads(found.read_text())
        operations = []
        if "operation" in chosen and given.part.number == 1:  # last: its processes are timed against each other
            operations = faults_operation.Operations(faults_kill.Place(Path(folder), "operation"), say).all()
    rows = json.loads(given.out.read_text())["rows"] if given.out.exists() else []
    rows = [row for row in rows if row["campaign"] not in chosen]
    rows += [{"campaign": "kill", **asdict(row)} for row in kills] + [{"campaign": "input", **row} for row in inputs]
    rows += [{"campaign": "operation", **asdict(row)} for row in operations]
    head = describe("one thread", [given.seed], measured=("src", "tests/faults"))
    killed, spoiled = ([row for row in rows if row["campaign"] == name] for name in ("kill", "input"))
    totals = {
        "kills": sum(row["kills"] for row in killed),
        "kills_asked": sum(row.get("asked", row["kills"]) for row in killed),
        "killed_runs": sum(row["cases"] for row in killed),
        "identical": sum(row["identical"] for row in killed),
        **{key: sum(int(row[key]) for row in spoiled) for key in ("cases", "clear_errors", "named_skips", "harmless")},
        **{key: sum(int(row.get(key, 0)) for row in rows) for key in ("tracebacks", "hangs", "lost", "silent")},
    }
    say(json.dumps(totals))
    text = json.dumps({**head, "minutes": round((time.monotonic() - started) / 60, 1), "totals": totals, "rows": rows},
                      indent=1, ensure_ascii=False)  # fmt: skip
    given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
