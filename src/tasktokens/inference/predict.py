"""``tasktokens predict``: label files, confidences and pictures for images of any size."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from accelerate import Accelerator
from torch import Tensor

from tasktokens.config import RunSettings
from tasktokens.datasets.listed_folders import check_not_listed
from tasktokens.datasets.prepared import sha256
from tasktokens.discovery.views import Views
from tasktokens.hub.download import local_model
from tasktokens.inference.filled_folder import write_description, write_prediction
from tasktokens.inference.image_files import ImageReader, find_images, folders_of
from tasktokens.inference.journal import PREDICTIONS, Journal, check_no_source, hint_resume
from tasktokens.inference.label_pictures import Kept, Shown, is_reduced, save_label_picture
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.resumable import gone_through
from tasktokens.inference.stream import Logits, Read
from tasktokens.models.files import model_folder
from tasktokens.tasks.base import Array
from tasktokens.utils import console, strict_json
from tasktokens.utils.distributed import raise_on_all_ranks, start
from tasktokens.utils.lock import only_writer
from tasktokens.utils.pictures import LARGEST, reduced


def predict(
    model: str | Path, inputs: str | Path | Sequence[str | Path], out: str | Path, overwrite: bool = False,
    quiet: bool = False, views: int | Views = 1, pictures: bool = True, batch_size: int | None = None,
) -> list[Path]:  # fmt: skip
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
        batch_size: images of one size that go through the network together; default: see `Predictor.batch_size`.

    Returns:
        The pictures, of this rank's images; none without ``pictures``.

    Raises:
        CheckpointError: no model there.
        ConfigError: a batch size below 1.
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
    model, out = local_model(model), Path(out)
    accelerator = start(RunSettings())
    journal = Journal(out, "predicting", "prediction")
    with ExitStack() as held, hint_resume():
        with raise_on_all_ranks(accelerator):
            predictor = Predictor(model, accelerator.device, views, batch_size)
            images = find_images(inputs)
            writer = _Writer(predictor, ImageReader(images), out, pictures)
            if accelerator.is_main_process:
                check_no_source(out, [*images.values(), model_folder(model) / "model.safetensors"])
                check_not_listed(out, folders_of(inputs))
                held.enter_context(only_writer(out))
                _begin(journal, writer.predictor, model, images, pictures, overwrite)
        before = _write_all(accelerator, journal, images, writer, quiet)
    return [out / "pictures" / f"{id}.png" for id in images if id in before or id in writer.drawn]


def _write_all(
    accelerator: Accelerator, journal: Journal, images: Mapping[str, Path], writer: _Writer, quiet: bool
) -> frozenset[str]:
    """All images of this rank; on the first those are returned that have had a picture before."""
    with gone_through(accelerator, journal, images, writer, quiet) as progress:
        if progress.stop.received:
            here = f" of rank {accelerator.process_index}" if accelerator.num_processes > 1 else ""
            left = "; run the same command to resume" if progress.count < progress.share else ""
            progress.stop.exit(f"{progress.count} of {progress.share} images{here} are done{left}")
    writer.reader.report(accelerator)
    if accelerator.is_main_process:
        journal.end()
    if (large := sum(writer.drawn.values())) and not quiet:
        console.say(f"pictures of {large} images are reduced to {LARGEST} pixels; label files are not")
    return progress.before if writer.pictures and accelerator.is_main_process else frozenset()


def _begin(
    journal: Journal, predictor: Predictor, model: Path, images: Mapping[str, Path], pictures: bool, overwrite: bool
) -> None:
    """Begin the folder or go on with it, and say in it what its files will hold."""
    settings = {
        "model": sha256(model_folder(model) / "model.safetensors"),
        "choice of views": predictor.views_by_task,
        "choice of pictures": pictures,
        "set of images": _digest(images),
    }
    journal.begin(settings, overwrite, clear=False)
    specs = {name: task.spec() for name, task in predictor.tasks.items()}
    write_description(journal.out, {"name": PREDICTIONS, "tasks": specs}, predictor.tasks)


class _Seen(NamedTuple):
    """What is needed of an image beside its logits: (height, width), and the image itself, small, for a picture."""

    size: tuple[int, int]
    picture: Array


class _Writer:
    """Reads the images and writes their files, in several threads."""

    def __init__(self, predictor: Predictor, reader: ImageReader, out: Path, pictures: bool) -> None:
        self.predictor, self.reader, self.out, self.pictures = predictor, reader, out, pictures
        self.drawn: dict[str, bool] = {}
        """Whether the picture of an image is smaller than itself."""

    def read(self, id: str) -> Read:
        """What the network gets of an image; nothing of one that cannot be read."""
        image = self.reader.read(id)
        if image is None:
            return Read(None)
        height, width = image.shape[:2]
        return Read(self.predictor.prepare(image), height * width, _Seen((height, width), reduced(image)))

    def ask(self, seen_13hw: Sequence[Tensor]) -> Sequence[Logits]:
        """The logits of images of one size."""
        return self.predictor.logits(seen_13hw)

    def write(self, id: str, seen: _Seen | None, logits: Logits | None) -> bool | None:
        """Write the files of an image; None where there are none."""
        if seen is None or logits is None:
            return None
        shown = [self._write_task(id, name, logits[name], seen.size) for name in self.predictor.tasks]
        if self.pictures:
            drawn = [one for one in shown if one is not None]
            save_label_picture(self.out / "pictures" / f"{id}.png", id, seen.picture, drawn)
            self.drawn[id] = is_reduced(*seen.size)
        return True

    def _write_task(self, id: str, name: str, logits: Tensor, size: tuple[int, int]) -> Shown | None:
        task = self.predictor.tasks[name]
        drawn = Kept(task, size, confidence=False) if self.pictures else None
        write_prediction(self.out, task, id, self.predictor.decode_bands(name, logits, size), size, drawn=drawn)
        return None if drawn is None else drawn.shown()


def _digest(images: Mapping[str, Path]) -> str:
    """Of the ids and where their files lie."""
    text = strict_json.dumps([[id, str(path.absolute())] for id, path in images.items()])
    return hashlib.sha256(text.encode()).hexdigest()
