"""``tasktokens predict``: label files, confidences and pictures for images of any size."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

from accelerate import Accelerator

from tasktokens.config import RunSettings
from tasktokens.datasets.folder import IMAGE_ENDINGS, list_paths
from tasktokens.datasets.index import check_id, picture_facts, read_image
from tasktokens.datasets.prepared import sha256
from tasktokens.discovery.views import Views
from tasktokens.errors import DataError
from tasktokens.inference.filled_folder import write_description, write_prediction
from tasktokens.inference.journal import PREDICTIONS, Journal, check_no_source, hint_resume
from tasktokens.inference.label_pictures import Shown, is_reduced, save_label_picture
from tasktokens.inference.predictor import Predictor
from tasktokens.models.files import model_folder
from tasktokens.tasks.base import Array
from tasktokens.utils import console, strict_json
from tasktokens.utils.distributed import all_gather, raise_on_all_ranks, signals, start
from tasktokens.utils.listing import composed, matches, walk_files
from tasktokens.utils.lock import only_writer
from tasktokens.utils.pictures import LARGEST
from tasktokens.utils.progress import track


def predict(
    model: str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    overwrite: bool = False,
    quiet: bool = False,
    views: int | Views = 1,
    pictures: bool = True,
) -> list[Path]:
    """Predict all tasks of images; several ranks share them. After an interruption the same call resumes.

    Args:
        model: a run that `train` wrote, or its model folder.
        inputs: one or more images, folders (searched below) or glob patterns.
        out: new folder: ``{task}/{id}.png`` in the layout that the data folder has, ``confidence/{task}/{id}.png``
            (0..255 for 0..1), ``pictures/{id}.png``, and ``dataset.yaml`` and ``classes.csv``, which say what the
            files hold.
        overwrite: whether ``out`` may hold files already; those with the same names are replaced.
        quiet: do not show progress.
        views: 1: the image as it is; 2: averaged with a mirrored and enlarged view (`Predictor`).
        pictures: also draw each image with its predictions in colours, at most 1024 pixels per side.

    Returns:
        The pictures, of this rank's images; none without ``pictures``.

    Raises:
        CheckpointError: no model there.
        RunExistsError: ``out`` is not empty, or another process writes into it.
        DataError: no image found, two with one name, or, after all others were predicted, unreadable ones.
        WriteError: the disk is full.
        SystemExit: 130 or 143 after SIGINT or SIGTERM; the images until then are whole.

    Examples:
        >>> import tasktokens
        >>> pictures = tasktokens.predict("runs/mine", "photos/one.jpg", "predicted", quiet=True)
        >>> [picture.as_posix() for picture in pictures]
        ['predicted/pictures/one.png']
    """
    model, out = Path(model), Path(out)
    accelerator = start(RunSettings())
    journal = Journal(out, "predicting", "prediction")
    main = accelerator.is_main_process
    with ExitStack() as held, hint_resume():
        with raise_on_all_ranks(accelerator):
            predictor = Predictor(model, accelerator.device, views)
            images = find_images(inputs)
            if main:
                check_no_source(out, [*images.values(), model_folder(model) / "model.safetensors"])
                held.enter_context(only_writer(out))
                settings = {
                    "model": sha256(model_folder(model) / "model.safetensors"),
                    "choice of views": predictor.views_by_task,
                    "choice of pictures": pictures,
                    "set of images": _digest(images),
                }
                journal.begin(settings, overwrite, clear=False)
                specs = {name: task.spec() for name, task in predictor.tasks.items()}
                write_description(out, {"name": PREDICTIONS, "tasks": specs}, predictor.tasks)
        done = journal.done()
        left = {id: path for id, path in images.items() if id not in done}
        accelerator.wait_for_everyone()  # all have read the journal before anyone writes to it
        written = [out / "pictures" / f"{id}.png" for id in done if pictures and main]
        reduced = 0
        with journal.appending(accelerator.process_index) as appender:
            for id, image in readable(left, "predicting", quiet, accelerator, "run the same command to resume"):
                found = predictor(image)
                for name, prediction in found.items():
                    write_prediction(out, predictor.tasks[name], id, prediction)
                if pictures:
                    shown = [Shown(predictor.tasks[name], prediction.value_CHW) for name, prediction in found.items()]
                    written.append(save_label_picture(out / "pictures" / f"{id}.png", id, image, shown))
                    reduced += is_reduced(image)
                appender.note(id, None)
        accelerator.wait_for_everyone()
        if main:
            journal.end()
    if reduced and not quiet:
        console.say(f"pictures of {reduced} images are reduced to {LARGEST} pixels; label files are not")
    return written


def _digest(images: Mapping[str, Path]) -> str:
    """Of the ids and where their files lie."""
    text = strict_json.dumps([[id, str(path.absolute())] for id, path in images.items()])
    return hashlib.sha256(text.encode()).hexdigest()


def readable(
    images: Mapping[str, Path],
    doing: str,
    quiet: bool,
    accelerator: Accelerator | None = None,
    afterwards: str = "--overwrite starts again",
) -> Iterator[tuple[str, Array]]:
    """Images (H, W, 3) uint8 by id, with progress; `DataError` at the end names those that cannot be read.

    With an accelerator each of its ranks gets a share, and all fail alike. SIGINT and SIGTERM end it between two
    images, by `SystemExit`, and say what can be done ``afterwards``.
    """
    unreadable, turned, paged = [], [], []
    rank, ranks = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    share, quiet = list(images.items())[rank::ranks], quiet or rank > 0
    with signals(ranks) as stop:
        for number, (id, path) in enumerate(track(share, doing, shown=not quiet)):
            if stop.received:
                done = f"{number} of {len(share)} images" + (f" of rank {rank}" if ranks > 1 else "")
                stop.exit(f"{done} are done; {afterwards}")
            try:
                image = read_image(path)
            except DataError as error:
                unreadable.append(str(error))
                continue
            facts = picture_facts(path)
            turned += [str(path)] if facts.orientation > 1 else []
            paged += [str(path)] if facts.frames > 1 else []
            yield id, image
        if stop.received:
            stop.exit("all images are done")
    if accelerator is not None:
        unreadable, turned, paged = (
            [text for of_rank in all_gather(accelerator, texts) for text in of_rank]
            for texts in (unreadable, turned, paged)
        )
    for found, what in ((turned, _TURNED), (paged, _PAGED)):
        if found and rank == 0:
            console.say(f"warning: {len(found)} of {len(images)} images have {what}, such as {found[0]}")
    with raise_on_all_ranks(accelerator) if accelerator is not None else nullcontext():
        if unreadable:
            raise DataError(f"{len(unreadable)} of {len(images)} images were left out: {'; '.join(unreadable[:5])}")


_TURNED = (
    "an EXIF orientation, which is not applied: rotate them first (docs/data.md); the network used the stored pixels"
)
_PAGED = "several pages or frames, of which the first was used"


def find_images(inputs: str | Path | Sequence[str | Path]) -> dict[str, Path]:
    """Image files by id: the path below the given folder without its ending.

    Folders are listed as data folders are: linked folders are followed, and what begins with a dot is passed over. A
    file that is named itself is taken in any case. Raises `DataError`.
    """
    found: dict[str, Path] = {}
    for item in map(str, [inputs] if isinstance(inputs, str | Path) else inputs):
        path = Path(item)
        if path.is_dir():
            listed = list(list_paths(path, IMAGE_ENDINGS))
        elif path.is_file():
            listed = [(composed(path.stem), path)]
        else:
            listed = _matching(item)
        if not listed:
            raise DataError(f"no images in folder {path} ({', '.join(IMAGE_ENDINGS)})")
        for id, file in listed:
            check_id(id, path)
            if found.setdefault(id, file) != file:
                raise DataError(
                    f"{found[id]} and {file} would both be written as '{id}'; name them apart, or give them to two "
                    f"commands with an --out each ('{found[id].parent}/*{found[id].suffix}' takes one kind of files)"
                )
    return found


def _matching(pattern: str) -> list[tuple[str, Path]]:
    """Ids and files that a pattern matches: the path below its part without wildcards."""
    parts = Path(pattern).parts
    start = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    root = Path(*parts[:start])
    if "**" in parts:  # not by glob, which goes through a loop of links forty times
        files = [root.joinpath(*file) for file in walk_files(root) if matches(file, parts[start:])]
    else:
        files = [Path(file) for file in sorted(glob.glob(pattern)) if os.path.isfile(file)]
    if not files:
        raise DataError(f"no image at '{pattern}': it is no file, no folder and no pattern that matches a file")
    return [(composed(file.relative_to(root).with_suffix("").as_posix()), file) for file in files]
