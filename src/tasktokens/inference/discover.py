"""``tasktokens discover``: fill in the missing labels of the training images, with a confidence.

What is written is a data folder in the own-folder layout, ready to be trained on: images and given labels of all splits
are copied byte for byte, discovered labels stand beside them, void below the threshold. A journal lies in it until
it is complete, so that an interrupted discovery can be resumed (`tasktokens.inference.journal`). Several ranks share
the images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate import Accelerator

from tasktokens.config import Config
from tasktokens.datasets.listed_folders import check_not_listed
from tasktokens.datasets.prepared import sha256
from tasktokens.discovery.views import Views
from tasktokens.hub.download import local_model
from tasktokens.inference.brought_labels import BroughtLabels, Teachers
from tasktokens.inference.chosen_thresholds import thresholds_of
from tasktokens.inference.discovery_summary import Discovery, read_discovery
from tasktokens.inference.evaluate import run_config
from tasktokens.inference.filled_provenance import check_no_decisions
from tasktokens.inference.filler import Filler
from tasktokens.inference.given_labels import given_labels
from tasktokens.inference.journal import Journal, check_no_source, hint_resume
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.resumable import gone_through
from tasktokens.methods import build_method
from tasktokens.models.files import model_folder
from tasktokens.tasks import Task
from tasktokens.utils.distributed import main_process_first, raise_on_all_ranks, start, stopping
from tasktokens.utils.lock import only_writer


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
