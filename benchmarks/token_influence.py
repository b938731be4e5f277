"""How much predictions change when a part of a trained network is swapped, replaced or removed.

    python benchmarks/token_influence.py htt=RUN htt-token-update=RUN --out benchmarks/results/token_influence.json

A run is given with the name of its variant; runs of one name, such as seeds, are averaged. The images are those on
which each run was measured (``run.evaluate``), or ``--images``. Rows of variants that the file has already and that are
not given stay, so that runs of one machine can be added to those of another.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from tasktokens.inference.influence import influence
from tasktokens.reporting.provenance import describe


def main() -> None:
    """Measure the runs and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="VARIANT=RUN")
    parser.add_argument("--images", nargs="*", help="images, folders or patterns in place of each run's own")
    parser.add_argument("--root", type=Path, help="where the data of the runs lies now")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    runs: dict[str, list[Path]] = defaultdict(list)
    for given in args.runs:
        variant, _, run = given.partition("=")
        if not run:
            parser.error(f"expected VARIANT=RUN, found '{given}'")
        runs[variant].append(Path(run))
    rows = [row for variant, folders in runs.items() for row in measure(variant, folders, args.images, args.root)]
    before = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    kept = [row for row in before if row["variant"] not in runs]
    result = describe("nothing is timed", []) | {"rows": kept + rows}
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    for row in rows:
        print(f"{row['variant']:24} {row['part']:14} {row['intervention']:22} {row['task']:10} {row['changed']:g}")


def measure(variant: str, runs: list[Path], images: list[str] | None, root: Path | None) -> list[dict[str, Any]]:
    """The rows of a variant, means over its runs."""
    found = [influence(run, images or None, None, quiet=True, root=root) for run in runs]
    rows = []
    for same in zip(*(each.rows for each in found), strict=True):
        values = [row["changed"] for row in same]
        named = {key: same[0][key] for key in ("part", "intervention", "task")}
        mean = {"changed": round(statistics.mean(values), 4), "unit": same[0]["unit"]}
        rows.append({"variant": variant, **named, **mean, "images": found[0].images, "runs": len(runs)})
    return rows


if __name__ == "__main__":
    main()
