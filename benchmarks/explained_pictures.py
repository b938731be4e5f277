"""The pictures of ``docs/concepts/htt.md``: what ``tasktokens explain`` drew, cut into gates and tokens.

tasktokens rooms --out rooms --train 1 --val 1 --test 3 --height 192 --width 256
tasktokens explain runs/demo/htt rooms/images/test_00001.png --out explained
python benchmarks/explained_pictures.py explained/test_00001.png --out docs/img
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

COLUMNS = 11
"""Panels of a task: prediction, four gates, four token maps, learned confidence, confidence."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    page = Image.open(args.picture).convert("RGB")
    left = round(page.width * 0.0205)  # of the first panel; the names of the tasks stand before it
    step = (page.width - left) / COLUMNS
    gates, tokens = round(left + 5 * step), round(page.height * 0.305)
    legend = round(page.height * 0.945)
    for name, box in {
        "gates": (0, round(page.height * 0.045), round(page.width * 0.58), legend),
        "tokens": (gates, tokens, page.width, legend),
    }.items():
        picture = page.crop(box)
        if name == "gates":  # the tables reach further to the right than the gates do
            white = Image.new("RGB", (picture.width - gates, legend - tokens), "white")
            picture.paste(white, (gates, tokens - box[1]))
        picture.quantize(256, dither=Image.Dither.NONE).save(args.out / f"htt-{name}.png", optimize=True)


if __name__ == "__main__":
    main()
