"""``tasktokens demo``: train, compare, discover, predict and report, on rooms that are rendered first."""

from __future__ import annotations

import time
from importlib.resources import as_file, files
from pathlib import Path

from rich.console import Console

from tasktokens.config import Config, load_config, parse_config
from tasktokens.data.dataset import load_sample
from tasktokens.datasets.open import all_visible, open_data
from tasktokens.inference.discover import discover
from tasktokens.inference.journal import require_empty
from tasktokens.inference.load import load
from tasktokens.inference.predict import predict
from tasktokens.inference.predictor import Predictor
from tasktokens.methods import build_method
from tasktokens.reporting.report import RunColumn, write_report
from tasktokens.training.trainer import train
from tasktokens.utils.colours import colour_map
from tasktokens.utils.pictures import Picture, Strip, hidden, save_strips

_ASSETS = files("tasktokens") / "assets"


def demo(out: str | Path = Path("runs/demo"), seed: int = 0, overwrite: bool = False, quiet: bool = False) -> Path:
    """Train the MTL baseline and HTT on one-label rooms, discover the missing labels, predict photographs, report.

    Nothing is downloaded. Returns the path of ``report.html``.

    Raises:
        RunExistsError: ``out`` is not empty.

    Examples:
        >>> import tasktokens
        >>> tasktokens.demo("runs/demo")  # doctest: +SKIP
        PosixPath('runs/demo/report.html')
        >>> tasktokens.demo("mydata")
        Traceback (most recent call last):
            ...
        tasktokens.errors.RunExistsError: mydata is not empty; choose another folder, or give --overwrite
    """
    out, console = Path(out), Console(stderr=True, quiet=quiet)
    started = time.monotonic()
    require_empty(out, overwrite, clear=True)

    def say(text: str) -> None:
        console.print(f"[{int(time.monotonic() - started):3d} s] {text}", highlight=False, markup=False)

    say("embedded data set: rooms with one label per image (rendered once, then cached)")
    configs = {method: demo_config(method, out, seed) for method in ("mtl", "htt")}
    data = open_data(configs["htt"], progress=not quiet)
    say(f"{len(data.train)} training images, tasks: {', '.join(data.tasks)}")
    for method, title in (("mtl", "MTL baseline: the given labels only"), ("htt", "HTT: labels, then discovery")):
        say(f"training {title}")
        train(configs[method], quiet=quiet)
    say("discovering the missing labels of the training images")
    discover(out / "htt", out / "discovered", quiet=quiet)
    say("predicting photographs")
    with as_file(_ASSETS / "photos") as photos:
        pictures = predict(out / "htt", [photos], out / "photos", quiet=quiet)
        photo_strips = _photo_strips(out / "htt", photos)
    strips = _discovery_strips(configs["htt"], out, count=4)
    save_strips(out / "discovered.png", strips, scale=2)
    minutes = (time.monotonic() - started) / 60
    report = write_report(
        out / "report.html",
        "TaskTokens demo: rooms, one label per image",
        [RunColumn("MTL baseline", out / "mtl"), RunColumn("HTT", out / "htt")],
        data.tasks,
        {"Discovered labels of training images": strips, "Photographs, predicted by HTT": photo_strips},
        _notes(configs, len(data.train), minutes),
    )
    say(f"done: open {report} ({len(pictures)} photographs in {out / 'photos' / 'pictures'})")
    return report


def demo_config(method: str, out: Path, seed: int) -> Config:
    """The demo's configuration for ``mtl`` or ``htt``: the same but for the method."""
    overrides = [f"seed={seed}", f"data.label_seed={seed}", f"run.dir={(out / method).as_posix()}"]
    with as_file(_ASSETS / "demo.yaml") as path:
        config = load_config(path, overrides)
    if method == "htt":
        return config
    # As many optimiser steps as HTT's first stage, as in the published comparisons.
    first, *_ = build_method(config.method, {}).stages()
    return config.model_copy(update={"method": parse_config({"method": {"name": method, "steps": first.steps}}).method})


def _discovery_strips(config: Config, out: Path, count: int) -> list[Strip]:
    """For some training images, each task: image | given | discovered | confidence | truth.

    This is the only place where hidden labels are opened, after training, to show what they were.
    """
    data, predictor = open_data(config), Predictor(out / "htt")
    ids = list(data.train)[:: max(1, len(data.train) // count)][:count]
    truth = all_visible(data.collection, tuple(ids), data.tasks)
    strips = []
    for id in ids:
        sample = load_sample(data.collection, id, truth[id])
        image = sample.image.permute(1, 2, 0).numpy()
        predictions = predictor(image)
        for name, task in data.tasks.items():
            if name not in sample.labels:
                continue
            label = sample.labels[name]
            true = task.colourise(label.value.numpy(), label.valid[0].numpy())
            given = name in data.train[id]
            found = predictions[name]
            strips.append(
                Strip(
                    f"{id} {name}",
                    (
                        Picture("image", image),
                        Picture("given", true if given else hidden(image.shape)),
                        Picture("discovered", task.colourise(found.value_CHW, found.valid(task.threshold))),
                        Picture("confidence", colour_map(found.confidence)),
                        Picture("truth", true),
                    ),
                )
            )
    return strips


def _photo_strips(run: Path, folder: Path) -> list[Strip]:
    results = load(run).predict(path for path in sorted(folder.glob("*.jpg")))
    return [result.strip(result.path.stem if result.path else "") for result in results]


def _notes(configs: dict[str, Config], images: int, minutes: float) -> list[str]:
    height, width = configs["htt"].data.size
    first, second = build_method(configs["htt"].method, {}).stages()
    return [
        f"{images} synthetic rooms at {height}x{width}; each image shows the label of one task only, the others are "
        f"hidden. Both networks have the same backbone ({configs['htt'].model.backbone}, from scratch), the same "
        "labels, images and augmentation.",
        f"The baseline and HTT's first stage take {first.steps} steps on the given labels; the second stage goes "
        f"on for {second.steps} steps on given and discovered labels. So the labels cost the same, the computing "
        "does not: benchmarks/results/demo_rooms.json has a baseline that trains as long as both stages together, "
        "which in runs as short as these is still ahead on classes and normals, and level on depth.",
        f"The whole demo took {minutes:.1f} minutes. A few minutes from scratch give a first impression, not a "
        "benchmark; the photographs are far from what the network was trained on.",
    ]
