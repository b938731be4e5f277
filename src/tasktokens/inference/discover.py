"""``tasktokens discover``: fill in the missing labels of the training images, with a confidence.

What is written is a data folder in the own-folder layout, ready to be trained on: images and given labels of all splits
are copied byte for byte, discovered labels stand beside them, void below the threshold. A journal lies in it until
it is complete, so that an interrupted discovery can be resumed (`tasktokens.inference.journal`). Several ranks share
the images.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasktokens.config import Config
from tasktokens.data.visibility import VisibleLabels
from tasktokens.datasets.prepared import sha256
from tasktokens.discovery.views import Views
from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.inference.brought_labels import BroughtLabels, Teachers
from tasktokens.inference.discovery_page import write_page
from tasktokens.inference.discovery_summary import SUMMARY, Discovery, Row, histogram, read_discovery, summarise
from tasktokens.inference.evaluate import run_config
from tasktokens.inference.filled_folder import copy_image, copy_label, describe, write_completion, write_prediction
from tasktokens.inference.filled_provenance import check_no_decisions, provenance
from tasktokens.inference.given_labels import GivenLabels, given_labels
from tasktokens.inference.journal import Journal, check_no_source, hint_resume
from tasktokens.inference.label_pictures import Shown, save_label_picture, show
from tasktokens.inference.predictor import Asked, Predictor
from tasktokens.inference.results import Prediction
from tasktokens.inference.stream import Read, Stream
from tasktokens.methods import build_method
from tasktokens.models.files import model_folder
from tasktokens.tasks import Task
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.distributed import main_process_first, raise_on_all_ranks, signals, start, stopping
from tasktokens.utils.lock import only_writer
from tasktokens.utils.progress import track

FORMAT = 2
"""Version of what a journal notes; an unfinished folder of another is begun anew."""


def discover(
    run: str | Path,
    out: str | Path,
    threshold: float | Mapping[str, float] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    views: int | Views | None = None,
    pictures: bool = False,
    root: str | Path | None = None,
    page: bool = False,
    teacher: Teachers | None = None,
    batch_size: int | None = None,
) -> Discovery:
    """Write the data of a run as a new data folder, in which the missing labels of training images are discovered.

    Args:
        run: a finished run of any method, or a model folder in it, such as ``best``.
        out: new folder, or one in which the same discovery was interrupted: it is resumed. It holds the images of all
            splits with their given labels, what was discovered, ``confidence/{task}/{id}.png`` (0..255 for 0..1),
            ``provenance.csv`` (where each label comes from), ``classes.csv`` and ``summary.json``.
        threshold: confidence in [0, 1] that a pixel must exceed, else it is void: of all tasks, or by task; default:
            each task's own, whatever the training of the run used (``method.thresholds``).
        overwrite: delete what lies in ``out`` first.
        quiet: do not show progress.
        views: 1: the image as it is; 2: averaged with a mirrored and enlarged view; or a list of views (`Predictor`).
            Default: those of the run's own teacher; 2 where it had none.
        pictures: also write ``pictures/{id}.png``: each training image with its labels and confidences in colours.
        root: where the run's data lies now; default: where it lay (``data.root``).
        page: also write ``discovery.html``: the summary, histograms of confidence, and the least confident images.
        teacher: for some tasks folders of labels with confidences that another model or a person made (docs/data.md):
            they are the discovered labels of that task, each pixel that of the most confident folder; the network's
            where there is none.
        batch_size: images of one size that go through the network together; default: see `Predictor.batch_size`.

    Returns:
        The folder with a summary of each task; it can be used as a path.

    Raises:
        CheckpointError: the run is not finished.
        ConfigError: a threshold out of range or of no task; or the data's tasks are no longer those of the model.
        DataError: a label that the run has seen is gone. WriteError: the disk is full; the same call resumes.
        RunExistsError: ``out`` is not empty, another discovery was begun there, another process writes into it, or it
            holds labels that a person has decided of, which are not overwritten.
        OtherRankError: another rank has failed.
        SystemExit: 130 or 143 after SIGINT or SIGTERM; the same call resumes.

    Examples:
        >>> import tasktokens
        >>> found = tasktokens.discover("runs/mine", "discovered", threshold={"depth": 0.3}, quiet=True, views=1)
        >>> [task.task for task in found.tasks], found.tasks[1].threshold, (found.folder / "dataset.yaml").is_file()
        (['semseg', 'depth'], 0.3, True)
    """
    run, out = Path(run), Path(out)
    config = run_config(run, None if root is None else Path(root))
    accelerator = start(config.run)
    rank, main = accelerator.process_index, accelerator.is_main_process
    given = main_process_first(accelerator, lambda: given_labels(run, config))
    journal = Journal(out, "discovering", "discovery")
    with contextlib.ExitStack() as held, hint_resume():
        with raise_on_all_ranks(accelerator):
            model = sha256(model_folder(run) / "model.safetensors")
            thresholds = thresholds_of(given.tasks, threshold)
            brought = BroughtLabels(given, teacher or {}, shown=not quiet and main)
            seen = own_views(config, given.tasks) if views is None else views
            predictor = Predictor(run, accelerator.device, seen, batch_size)
            labels = given.all_labels()
            if main:
                check_no_decisions(out)
                sources = [Path(folder) / "confidence" for folders in brought.folders.values() for folder in folders]
                check_no_source(out, [*given.files(), model_folder(run) / "model.safetensors", *sources])
                held.enter_context(only_writer(out))
                settings = {
                    "run": model,
                    "version of the format": FORMAT,
                    "threshold": thresholds,
                    "choice of views": predictor.views_by_task,
                    "choice of teachers": brought.folders,
                    "choice of pictures": pictures,
                    "set of images or given labels": _digest(labels, given),
                }
                journal.begin(settings, overwrite, clear=True)
        done = journal.done()
        share = [id for id in labels if id not in done][rank :: accelerator.num_processes]
        accelerator.wait_for_everyone()  # all have read the journal before anyone writes to it
        filler = Filler(predictor, given, labels, thresholds, out, pictures, brought)
        with signals(accelerator.num_processes) as stop, journal.appending(rank) as appender:
            stream = Stream(filler.read, predictor.ask, filler.write, predictor.batch_size, stop.is_received)
            with contextlib.closing(stream(share)) as filled:
                for id, rows in track(filled, "discovering", not quiet and main, len(share)):
                    appender.note(id, rows)
            stopped = stopping(stop, accelerator)
            done = journal.done() if main else {}
            whole = len(done) == len(labels)
            if main and whole:
                rows = [row for id in given.train for row in done[id]]
                discovery = Discovery(out, summarise(rows, thresholds), (*given.notes, *_fixed_note(config, threshold)))
                write_atomically(out / SUMMARY, f"{discovery.to_json()}\n".encode())
                describe(out, given, provenance(given, labels, rows, model, predictor), thresholds)
                if page:
                    write_page(discovery, rows)
                journal.end()
            if stopped:
                going_on = "" if whole else "; run the same command to resume"
                stop.exit(f"{len(done)} of {len(labels)} images are done{going_on}", say=main)
    accelerator.wait_for_everyone()
    return read_discovery(out)


def own_views(config: Config, tasks: Mapping[str, Task]) -> int | Views:
    """Those with which the run's own teacher discovers labels; two where its method has none."""
    return build_method(config.method, tasks).views() or 2


def _fixed_note(config: Config, chosen: object) -> list[str]:
    """That training used other thresholds. Written labels pass for given ones in the next training, so that they take
    a fixed confidence: half of what an unconfident teacher says is no label.
    """
    used = getattr(config.method, "thresholds", "fixed")
    if used == "fixed" or chosen is not None:
        return []
    return [
        f"the run trained with {used} thresholds; written are labels above the fixed ones of the tasks (--threshold)"
    ]


def thresholds_of(tasks: Mapping[str, Task], chosen: float | Mapping[str, float] | None) -> dict[str, float]:
    """The threshold of each task: its own, or what was chosen for all or for it.

    Raises `ConfigError` for an unknown task or a threshold outside [0, 1].
    """
    by_task = chosen if isinstance(chosen, Mapping) else {} if chosen is None else dict.fromkeys(tasks, chosen)
    for name, value in by_task.items():
        if name not in tasks:
            near = did_you_mean(name, tasks)
            raise ConfigError(f"a threshold is given for the task '{name}'{near}; the run has: {', '.join(tasks)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ConfigError(f"the threshold of task '{name}' must be from 0 to 1, found {value!r}")
    return {name: float(by_task.get(name, task.threshold)) for name, task in tasks.items()}


def parse_thresholds(words: Sequence[str]) -> float | dict[str, float] | None:
    """Thresholds of the command line: ``0.5`` for all tasks, or ``depth=0.5`` for each. Raises `ConfigError`.

    Examples:
        >>> parse_thresholds(["depth=0.5", "semseg=0.8"]), parse_thresholds(["0.5"]), parse_thresholds([])
        ({'depth': 0.5, 'semseg': 0.8}, 0.5, None)
    """
    by_task: dict[str, float] = {}
    of_all: list[float] = []
    for word in words:
        name, equals, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise ConfigError(f"--threshold must be a number, or such as depth=0.5, found '{word}'") from error
        if not 0 <= value <= 1:
            raise ConfigError(f"--threshold must be from 0 to 1, found {word}")
        if not equals:
            of_all.append(value)
        elif by_task.setdefault(name, value) != value:
            raise ConfigError(f"--threshold is given twice for '{name}': {by_task[name]:g} and {value:g}; keep one")
    if len(of_all) > 1 or (of_all and by_task):
        raise ConfigError(
            "--threshold takes one number for all tasks, or one per task, such as depth=0.5, but not both"
        )
    return of_all[0] if of_all else by_task or None


class _Looked(NamedTuple):
    """What is known of an image with missing labels: (height, width), and the labels that others made, by task."""

    size: tuple[int, int]
    brought: Mapping[str, Prediction]


class Filler:
    """Writes the files of images, in several threads.

    Args:
        labels: the tasks whose labels are given, by image.
        thresholds: of each task.
        out: the folder.
        pictures: also draw training images with their labels.
        brought: labels that others made, which take the place of the network's.
    """

    def __init__(
        self,
        predictor: Predictor,
        given: GivenLabels,
        labels: VisibleLabels,
        thresholds: Mapping[str, float],
        out: Path,
        pictures: bool,
        brought: BroughtLabels,
    ) -> None:
        self.predictor, self.given, self.labels, self.thresholds = predictor, given, labels, thresholds
        self.out, self.pictures, self.brought = out, pictures, brought

    def read(self, id: str) -> Read:
        """What the network gets of a training image with missing labels; nothing where others brought them all."""
        missing, partial = self._missing(id), self._partial(id)
        if not missing and not partial:
            return Read(None)
        image = self.given.index.images[id].read()
        height, width = image.shape[:2]
        looked = _Looked((height, width), self.brought.find(id, (height, width)))
        asked = bool(partial) or not looked.brought.keys() >= set(missing)
        return Read(self.predictor.prepare(image) if asked else None, height * width, looked)

    def write(self, id: str, looked: _Looked | None, asked: Asked | None) -> list[Row]:
        """Copy an image and its given labels; write what was discovered. Returns a row per discovered label."""
        index, tasks = self.given.index, self.given.tasks
        copy_image(index.images[id], self.out / "images", id)
        for name in self.labels[id]:
            copy_label(index.labels[name][id], tasks[name], self.out / name, id)
        rows, shown = [], {}
        if looked is not None:
            for name in self._missing(id):
                row, shown[name] = self._discover(id, tasks[name], looked, asked)
                rows.append(row)
            if asked is not None:
                rows += [self._complete(id, tasks[name], looked, asked) for name in self._partial(id)]
        if self.pictures and id in self.given.train:
            self._draw(id, shown)
        return rows

    def _missing(self, id: str) -> list[str]:
        return [name for name in self.given.tasks if name not in self.labels[id]] if id in self.given.train else []

    def _partial(self, id: str) -> list[str]:
        """The tasks whose given label of a training image leaves classes open."""
        labels = self.given.index.labels
        return [name for name in self.labels[id] if labels[name][id].labelled] if id in self.given.train else []

    def _complete(self, id: str, task: Task, looked: _Looked, asked: Asked) -> Row:
        """A class for the pixels that a given label leaves open, among those that were not labelled there."""
        label = self.given.index.labels[task.name][id]
        value, valid = label.read()
        open_HW = valid & task.open_pixels(value)
        logits = task.restrict(asked.logits[task.name], label.labelled)
        found = self.predictor.decode_task(task.name, logits, looked.size)
        confidence = np.where(open_HW, np.nan_to_num(found.confidence), np.float32(0))
        confident = confidence > self.thresholds[task.name]
        write_completion(self.out, task, id, found.value_CHW, confident, confidence)
        shares = [round(float(each.mean()), 4) for each in (confident, confidence)]
        return [id, task.name, *shares, histogram(confidence), "network", asked.disagreement.get(task.name)]

    def _discover(self, id: str, task: Task, looked: _Looked, asked: Asked | None) -> tuple[Row, Shown | None]:
        """One label alone: its maps of a photograph, hundreds of MB, are gone before those of the next are made."""
        found, disagreement = looked.brought.get(task.name), None
        if found is None and asked is not None:
            found = self.predictor.decode_task(task.name, asked.logits[task.name], looked.size)
            disagreement = asked.disagreement.get(task.name)
        assert found is not None  # the network is asked unless others brought all that is missing
        confident = found.confidence > self.thresholds[task.name]
        write_prediction(self.out, task, id, found, confident)
        known = np.nan_to_num(found.confidence)
        shares = [round(float(confident.mean()), 4), round(float(known.mean()), 4)]
        row = [id, task.name, *shares, histogram(known), self.brought.source(id, task.name), disagreement]
        if not self.pictures:
            return row, None
        return row, show(task, found.value_CHW, confident, found.confidence, f"{task.name}, discovered")

    def _draw(self, id: str, discovered: Mapping[str, Shown | None]) -> None:
        index = self.given.index
        shown = [
            discovered.get(name) or show(task, *index.labels[name][id].read(), caption=f"{name}, given")
            for name, task in self.given.tasks.items()
        ]
        save_label_picture(self.out / "pictures" / f"{id}.png", id, index.images[id].read(), shown)


def _digest(labels: VisibleLabels, given: GivenLabels) -> str:
    """What decides which labels are copied and which discovered."""
    values = [list(labels.items()), list(given.train), {name: list(ids) for name, ids in given.others.items()}]
    return hashlib.sha256(strict_json.dumps(values).encode()).hexdigest()
