"""The whole way with a gappy folder: write one, train, discover the missing labels, look at them.

``python examples/partial_folder.py out``. Nothing is downloaded; it takes seconds and teaches little: give it
``--steps 500 --size 96 128 --images 60`` and some minutes for labels worth looking at.
"""

import argparse
from pathlib import Path

import tasktokens
from tasktokens.datasets.rooms.dataset import write_rooms

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("out", type=Path, help="folder to write")
parser.add_argument("--steps", type=int, default=10, help="of each of the two stages")
parser.add_argument("--images", type=int, default=8)
parser.add_argument("--size", type=int, nargs=2, default=(32, 48))
parser.add_argument("--backbone", default="test_resnet")
args = parser.parse_args()

# A folder with images/ and one folder per task. Every image keeps the label of one task, as if no more had been made.
folder, (height, width), tasks = args.out / "rooms", args.size, ("semseg", "depth", "normals")
write_rooms(folder, {"train": args.images, "val": 2, "test": 2}, height, width)
images = (folder / "train.txt").read_text().split()
for number, id in enumerate(images):
    for name in tasks:
        if name != tasks[number % len(tasks)]:
            (folder / name / f"{id}.png").unlink()

report = tasktokens.check(folder, workers=1)
print({name: report.tasks[name].labelled["train"] for name in tasks}, "labels of", len(images), "images")

run = tasktokens.train(
    {
        "data": {"kind": "folder", "root": str(folder), "size": [height, width], "labels": "full"},
        "tasks": {name: {} for name in tasks},
        "model": {"backbone": args.backbone, "pretrained": False},
        "method": {"name": "htt", "stage1_steps": args.steps, "stage2_steps": args.steps},
        "optim": {"batch_size": 4},
        "run": {"dir": str(args.out / "run")},
    },
    quiet=True,
)
filled = tasktokens.discover(run, args.out / "filled", quiet=True)

# Which labels were given, which discovered, and what the network says of a picture that it has not seen.
for line in (filled.folder / "provenance.csv").read_text().splitlines()[:5]:
    print(line)
model = tasktokens.load(run)
result = model.predict(sorted((folder / "images").rglob(f"{(folder / 'test.txt').read_text().split()[0]}.*"))[0])
result.picture().save(args.out / "prediction.png")
print(result, {name: round(float(prediction.confidence.mean()), 2) for name, prediction in result.items()})
