"""``tasktokens discover``: fill in the missing labels of the training images, with a confidence.

What is written is a data folder in the own-folder layout, ready to be trained on: images and given labels of all splits
are copied byte for byte, discovered labels stand beside them, void below the threshold. A journal lies in it until
it is complete, so that an interrupted discovery can be resumed (`tasktokens.inference.journal`). Several ranks share
the images.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from torch import Tensor

from tasktokens.config import Config
from tasktokens.data.visibility import VisibleLabels
from tasktokens.datasets.listed_folders import check_not_listed
from tasktokens.datasets.prepared import sha256
from tasktokens.discovery.views import Views
from tasktokens.hub.download import local_model
from tasktokens.inference.brought_labels import BroughtLabels, Teachers
from tasktokens.inference.chosen_thresholds import thresholds_of
from tasktokens.inference.discovery_page import write_page
from tasktokens.inference.discovery_summary import SUMMARY, Discovery, Row, read_discovery, summarise
from tasktokens.inference.evaluate import run_config
from tasktokens.inference.filled_folder import copy_image, copy_label, describe, write_completion, write_prediction
from tasktokens.inference.filled_provenance import check_no_decisions, provenance
from tasktokens.inference.given_labels import GivenLabels, given_labels
from tasktokens.inference.journal import Journal, check_no_source, hint_resume
from tasktokens.inference.label_pictures import Kept, Shown, save_label_picture, show
from tasktokens.inference.predictor import Asked, Predictor
from tasktokens.inference.results import Prediction
from tasktokens.inference.resumable import gone_through
from tasktokens.inference.stream import Read
from tasktokens.methods import build_method
from tasktokens.models.files import model_folder
from tasktokens.tasks import Task
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.distributed import main_process_first, raise_on_all_ranks, start, stopping
from tasktokens.utils.lock import only_writer

FORMAT = 2
"""Version of what a journal notes; an unfinished folder of another is begun anew."""


def discover(
    run: str | Path, out: str | Path, threshold: float | Mapping[str, float] | None = None, overwrite: bool = False,
    quiet: bool = False, views: int | Views | None = None, pictures: bool = False, root: str | Path | None = None,
    page: bool = False, teacher: Teachers | None = None, batch_size: int | None = None,
) -> Discovery:  # fmt: skip
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
        teacher: for some tasks folders of labels with confidences that another model or a person made
            (docs/start/other-labels.md): they are the discovered labels of that task, each pixel that of the most
            confident folder; the network's where there is none.
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
    run, out = local_model(run), Path(out)
    config = run_config(run, None if root is None else Path(root))
    accelerator = start(config.run)
    given = main_process_first(accelerator, lambda: given_labels(run, config))
    with contextlib.ExitStack() as held, hint_resume():
        with raise_on_all_ranks(accelerator):
            thresholds = thresholds_of(given.tasks, threshold)
            brought = BroughtLabels(given, teacher or {}, shown=not quiet and accelerator.is_main_process)
            seen = own_views(config, given.tasks) if views is None else views
            predictor = Predictor(run, accelerator.device, seen, batch_size)
            model = sha256(model_folder(run) / "model.safetensors")
            filler = Filler(predictor, given, thresholds, out, pictures, brought, model)
            journal = _begin(filler, run, overwrite, accelerator, held)
        _fill(accelerator, journal, filler, _fixed_note(config, threshold), page, quiet)
    accelerator.wait_for_everyone()
    return read_discovery(out)


def _begin(filler: Filler, run: Path, overwrite: bool, accelerator: Accelerator, held: contextlib.ExitStack) -> Journal:
    """The journal of the folder, begun or gone on with by the first rank, which keeps others out."""
    out, given = filler.out, filler.given
    journal = Journal(out, "discovering", "discovery")
    if accelerator.is_main_process:
        sources = [Path(folder) / "confidence" for folders in filler.brought.folders.values() for folder in folders]
        check_no_source(out, [*given.files(), model_folder(run) / "model.safetensors", *sources])
        check_not_listed(out)
        check_no_decisions(out)
        held.enter_context(only_writer(out))
        journal.begin(filler.settings(), overwrite, clear=True)
    return journal


def _fill(
    accelerator: Accelerator, journal: Journal, filler: Filler, notes: Sequence[str], page: bool, quiet: bool
) -> None:
    """All images; the first rank then completes the folder."""
    main, labels = accelerator.is_main_process, filler.labels
    with gone_through(accelerator, journal, labels, filler, quiet) as progress:
        stopped = stopping(progress.stop, accelerator)
        done = journal.done() if main else {}
        whole = len(done) == len(labels)
        if main and whole:
            filler.complete(done, notes, page)
            journal.end()
        if stopped:
            going_on = "" if whole else "; run the same command to resume"
            progress.stop.exit(f"{len(done)} of {len(labels)} images are done{going_on}", say=main)


def own_views(config: Config, tasks: Mapping[str, Task]) -> int | Views:
    """Those with which the run's own teacher discovers labels; two where its method has none."""
    return build_method(config.method, tasks).views() or 2


def _fixed_note(config: Config, chosen: object) -> list[str]:
    """That training used other thresholds. Written labels take a fixed confidence: half of what an unconfident teacher
    says is no label.
    """
    used = getattr(config.method, "thresholds", "fixed")
    if used == "fixed" or chosen is not None:
        return []
    return [
        f"the run trained with {used} thresholds; written are labels above the fixed ones of the tasks (--threshold)"
    ]


class _Looked(NamedTuple):
    """What is known of an image with missing labels: (height, width), and the labels that others made, by task."""

    size: tuple[int, int]
    brought: Mapping[str, Prediction]


class Filler:
    """Writes the files of images, in several threads; then those of the whole folder.

    Args:
        thresholds: of each task.
        out: the folder.
        pictures: also draw training images with their labels.
        brought: labels that others made, which take the place of the network's.
        model: SHA-256 of the network's weights.

    Attributes:
        labels: the tasks whose labels are given, by image.
    """

    def __init__(
        self,
        predictor: Predictor,
        given: GivenLabels,
        thresholds: Mapping[str, float],
        out: Path,
        pictures: bool,
        brought: BroughtLabels,
        model: str,
    ) -> None:
        self.predictor, self.given, self.labels, self.thresholds = predictor, given, given.all_labels(), thresholds
        self.out, self.pictures, self.brought, self.model = out, pictures, brought, model

    def settings(self) -> dict[str, Any]:
        """What decides the content of the folder, as its journal has it."""
        return {
            "run": self.model,
            "version of the format": FORMAT,
            "threshold": self.thresholds,
            "choice of views": self.predictor.views_by_task,
            "choice of teachers": self.brought.folders,
            "choice of pictures": self.pictures,
            "set of images or given labels": _digest(self.labels, self.given),
        }

    def complete(self, done: Mapping[str, list[Row]], notes: Sequence[str], page: bool) -> None:
        """All images are done: write the summary, what describes the folder, and the page."""
        rows = [row for id in self.given.train for row in done[id]]
        discovery = Discovery(self.out, summarise(rows, self.thresholds), (*self.given.notes, *notes))
        write_atomically(self.out / SUMMARY, f"{discovery.to_json()}\n".encode())
        origins = provenance(self.given, self.labels, rows, self.model, self.predictor)
        describe(self.out, self.given, origins, self.thresholds)
        if page:
            write_page(discovery, rows)

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

    def ask(self, seen_13hw: Sequence[Tensor]) -> list[Asked]:
        """What the network says of images of one size."""
        return self.predictor.ask(seen_13hw)

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
        logits = task.restrict(asked.logits[task.name], label.labelled)
        found = self.predictor.decode_task(task.name, logits, looked.size)
        is_open = valid & task.open_pixels(value)
        written = write_completion(self.out, task, id, found, is_open, self.thresholds[task.name])
        return [id, task.name, *written.row(), "network", asked.disagreement.get(task.name)]

    def _discover(self, id: str, task: Task, looked: _Looked, asked: Asked | None) -> tuple[Row, Shown | None]:
        """One label, row of the table and colours."""
        found, size, disagreement = looked.brought.get(task.name), looked.size, None
        bands: Iterable[Prediction] = () if found is None else (found,)
        if found is None and asked is not None:  # it is asked unless others brought all that is missing
            bands = self.predictor.decode_bands(task.name, asked.logits[task.name], size)
            disagreement = asked.disagreement.get(task.name)
        drawn = Kept(task, size) if self.pictures else None
        written = write_prediction(self.out, task, id, bands, size, self.thresholds[task.name], drawn)
        row = [id, task.name, *written.row(), self.brought.source(id, task.name), disagreement]
        return row, None if drawn is None else drawn.shown(f"{task.name}, discovered")

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
