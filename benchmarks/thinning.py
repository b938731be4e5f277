"""Our thinning beside scikit-image's: how many pixels differ, and how long each takes.

    pip install scikit-image
    python benchmarks/thinning.py --out benchmarks/results/thinning.json

Maps are edges of the packaged photographs: the magnitude of the Gaussian gradient (sigma 2), above its 80th and 95th
percentile.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from tasktokens.metrics.thinning import thin
from tasktokens.reporting.provenance import describe

MEASURED = ["src/tasktokens/metrics/thinning.py", "benchmarks/thinning.py"]


def main() -> None:
    from skimage.morphology import skeletonize
    from skimage.morphology import thin as other_thin

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    functions: dict[str, Callable[[Any], Any]] = {"thin": other_thin, "skeletonize": skeletonize}
    rows = []
    for name, mask in maps():
        ours, seconds = timed(thin, mask)
        row: dict[str, Any] = {"map": name, "pixels": int(mask.sum()), "kept": int(ours.sum()), "seconds": seconds}
        for other, function in functions.items():
            theirs, took = timed(function, mask)
            row |= {f"differ from {other}": int((ours != theirs).sum()), f"seconds of {other}": took}
        rows.append(row)
        print(row)
    facts = describe("one thread", [], ("numpy", "scipy", "scikit-image"), MEASURED) | {"rows": rows}
    arguments.out.write_text(json.dumps(facts, indent=1) + "\n")


def maps() -> Iterator[tuple[str, np.ndarray]]:
    """Thick edges (H, W) bool, by name."""
    with as_file(files("tasktokens") / "assets" / "photos") as photos:
        for path in sorted(photos.glob("*.jpg")):
            grey = np.asarray(Image.open(path).convert("L"), np.float64)
            strength = ndimage.gaussian_gradient_magnitude(grey, 2)
            for percentile in (80, 95):
                yield f"{path.stem}, {percentile}", strength > np.percentile(strength, percentile)


def timed(function: Callable[[Any], Any], mask: np.ndarray) -> tuple[np.ndarray, float]:
    """The result, and the least seconds of five calls."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        result = function(mask)
        seconds.append(time.perf_counter() - start)
    return np.asarray(result), round(min(seconds), 4)


if __name__ == "__main__":
    main()
