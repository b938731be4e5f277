"""The boundary metrics on BSDS500: a plain gradient detector, a perfect prediction, variants, and how long they take.

The detector is the magnitude of the Gaussian gradient (sigma 2) of the grey image, with the 99.5th percentile of each
image as 1. Labels are means over annotators, so published figures cannot be met to the digit:
`docs/reference/metrics.md` says what differs. One row draws five annotators at random about lines that are known, to
compare the mean with the published formula, which needs each annotator's lines.

    python benchmarks/boundary.py --root BSDS500/test --out benchmarks/results/boundary.json

``--root`` holds image/*.jpg and edge/*.png (mean over annotators x 255).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from tasktokens.metrics import BoundaryF, boundary, thinning
from tasktokens.reporting.provenance import describe

MEASURED = ["src/tasktokens/metrics", "benchmarks/boundary.py"]
Pair = tuple[np.ndarray, np.ndarray]  # prediction and label, in [0, 1]
FINE = tuple(i / 100 for i in range(1, 100))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--subset", type=int, default=20, help="images for the variants, evenly spread")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)

    paths = sorted((args.root / "edge").glob("*.png"))[: args.images]
    few = paths[:: max(1, len(paths) // args.subset)][: args.subset]
    mean = BoundaryF(annotators="mean")
    rows = [
        score("gradient, labels as means", paths, gradient, mean),
        score("gradient, any annotator's pixel is true", paths, lambda p: marked(gradient(p)), BoundaryF()),
        score("perfect: any annotator's pixel predicted and true", paths, perfect, BoundaryF()),
        score("perfect: the means themselves", few, lambda p: (label(p), label(p)), BoundaryF(annotators="mean")),
        score("gradient, as the first, subset", few, gradient, BoundaryF(annotators="mean")),
        score("… 99 thresholds", few, gradient, BoundaryF(annotators="mean", thresholds=FINE)),
    ]
    with patch.object(boundary, "ridge", lambda value, above: value > above):
        rows.append(score("… thinned at each threshold only", few, gradient, BoundaryF(annotators="mean")))
    with patch.object(thinning, "SMOOTHING", 2.0):
        rows.append(score("… ridges of a map smoothed by 2 pixels", few, gradient, BoundaryF(annotators="mean")))
    rows += simulated(few, args.seed)
    rows += [score(f"… stretched to {h}x{w}", few, at_size(h, w), BoundaryF()) for h, w in ((96, 128), (288, 384))]
    result = describe("one thread; CPU time of the process", [args.seed], ("torch", "scipy", "numpy"), MEASURED) | {
        "rows": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def score(what: str, paths: Iterable[Path], pair: Callable[[Path], Pair], metric: BoundaryF) -> dict[str, object]:
    """A row: the metric over the images, and its seconds of CPU time per image and threshold."""
    seconds, count = 0.0, 0
    for path in paths:
        guess, truth = (torch.from_numpy(x.astype(np.float32))[None, None] for x in pair(path))
        started = time.process_time()
        metric.update(guess, truth, torch.ones_like(truth, dtype=torch.bool))
        seconds, count = seconds + time.process_time() - started, count + 1
    row = {"what": what, "images": count, "thresholds": len(metric.thresholds)}
    row |= {name: round(value, 2) for name, value in metric.compute().items()}
    row["milliseconds_per_image"] = round(1000 * seconds / count, 1)
    row["milliseconds_per_threshold"] = round(1000 * seconds / count / len(metric.thresholds), 2)
    print(row, flush=True)
    return row


def label(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), float) / 255


def detector(image: Image.Image) -> np.ndarray:
    magnitude = ndimage.gaussian_gradient_magnitude(np.asarray(image.convert("L"), float), 2)
    return (magnitude / np.quantile(magnitude, 0.995)).clip(0, 1)


def photo(path: Path) -> Image.Image:
    return Image.open(path.parent.parent / "image" / f"{path.stem}.jpg")


def gradient(path: Path) -> Pair:
    return detector(photo(path)), label(path)


def marked(pair: Pair) -> Pair:
    return pair[0], (pair[1] > 0).astype(float)


def perfect(path: Path) -> Pair:
    truth = (label(path) > 0).astype(float)
    return truth, truth


def at_size(height: int, width: int) -> Callable[[Path], Pair]:
    """The detector on the stretched image, against the stretched marks."""

    def pair(path: Path) -> Pair:
        truth = torch.from_numpy(label(path) > 0)[None].float()
        small = torch.nn.functional.adaptive_max_pool2d(truth, (height, width))[0].numpy()
        return detector(photo(path).resize((width, height))), small

    return pair


def simulated(paths: list[Path], seed: int) -> list[dict[str, object]]:
    """Five annotators shift the known lines by up to a pixel and leave blocks out: their mean against each of them."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for path in paths:
        lines = thinning.thin(label(path) > 0)
        drawn[path] = [annotator(lines, rng) for _ in range(5)]
    ours = score(
        "simulated annotators, their mean",
        paths,
        lambda p: (detector(photo(p)), np.mean(drawn[p], axis=0)),
        BoundaryF(annotators="mean"),
    )
    totals = sum(published_counts(detector(photo(path)).astype(np.float32), drawn[path]) for path in paths)
    right, predicted, found, true = totals.T
    precision, recall = right / predicted.clip(1), found / true
    f = 2 * precision * recall / (precision + recall)
    theirs = {"what": "simulated annotators, published formula", "images": len(paths), "thresholds": len(f)}
    return [ours, theirs | {"odsF": round(100 * f.max(), 2)}]


def annotator(lines: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    blocks = rng.random((lines.shape[0] // 32 + 1, lines.shape[1] // 32 + 1)) > 0.4
    shown = np.kron(blocks, np.ones((32, 32), bool))[: lines.shape[0], : lines.shape[1]]
    return np.roll(lines & shown, rng.integers(-1, 2, 2), axis=(0, 1))


def published_counts(guess: np.ndarray, annotators: list[np.ndarray]) -> np.ndarray:
    """Right if matched to any annotator; recall over the sum of all annotators. (thresholds, 4)"""
    reach = 0.0075 * np.hypot(*guess.shape)
    ridge = boundary.ridge(guess, boundary.LEVELS[0])
    counts = np.zeros((len(boundary.LEVELS), 4))
    for row, level in zip(counts, boundary.LEVELS, strict=True):
        lines = boundary.thin(ridge & (guess > np.float32(level)))
        right = np.zeros(np.count_nonzero(lines), bool)
        for drawn in annotators:
            matched = boundary.largest_matching(boundary.pairs_within(lines, drawn, reach)) > 0
            right |= matched
            row[2:] += matched.sum(), drawn.sum()
        row[:2] = right.sum(), len(right)
    return counts


if __name__ == "__main__":
    main()
