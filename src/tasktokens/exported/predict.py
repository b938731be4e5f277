"""``tasktokens predict`` with an exported model: the same files, by NumPy, Pillow and a runtime alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasktokens.datasets.listed_folders import check_not_listed
from tasktokens.datasets.prepared import sha256
from tasktokens.errors import ConfigError, DataError
from tasktokens.exported.model import as_pixels
from tasktokens.exported.predictor import ExportedPredictor
from tasktokens.exported.task import ExportedTask
from tasktokens.inference.description import write_description
from tasktokens.inference.image_notes import ImageNotes, check_all_read, warn_of_notes
from tasktokens.inference.journal import PREDICTIONS, Journal, check_no_source, hint_resume
from tasktokens.inference.label_pictures import Kept, is_reduced, save_label_picture
from tasktokens.utils import console, strict_json
from tasktokens.utils.atomic import writing
from tasktokens.utils.file_kinds import CONFIDENCE
from tasktokens.utils.lock import only_writer
from tasktokens.utils.orientation import picture_orientation
from tasktokens.utils.pictures import LARGEST
from tasktokens.utils.progress import track
from tasktokens.utils.safe_io import open_picture
from tasktokens.utils.signals import StopSignal

Array = npt.NDArray[Any]
Maps = Mapping[str, tuple[Array, Array]]


def predict_images(
    model: Path, images: Mapping[str, Path], folders: Sequence[Path], out: Path, overwrite: bool, quiet: bool,
    pictures: bool, batch_size: int | None,
) -> list[Path]:  # fmt: skip
    """What `tasktokens.inference.predict.predict` does for images.

    Args:
        model: an ``.onnx`` or ``.xml``.
        images: files by id; ``folders``: those that they were listed in, which ``out`` may not lie in.

    Raises:
        ConfigError: a batch size below 1, or a task that does not say how its maps are stored. Else as `predict`.
    """
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size must be 1 or more, found {batch_size}")
    predictor = ExportedPredictor(model)
    for task in predictor.info.tasks.values():
        task.check_stored()
    check_no_source(out, [*images.values(), model])
    check_not_listed(out, folders)
    writer, journal = _Writer(predictor, images, out, pictures), Journal(out, "predicting", "prediction")
    with hint_resume(), only_writer(out):
        journal.begin(_settings(model, images, pictures), overwrite, clear=False)
        specs = {name: dict(task.spec) for name, task in predictor.info.tasks.items()}
        write_description(out, {"name": PREDICTIONS, "tasks": specs}, predictor.info.tasks)
        done = _write_all(journal, writer, batch_size or 1, quiet)
    return [out / "pictures" / f"{id}.png" for id in images if pictures and id in done]


def _settings(model: Path, images: Mapping[str, Path], pictures: bool) -> dict[str, Any]:
    """What decides the result, as the journal has it."""
    text = strict_json.dumps([[id, str(path.absolute())] for id, path in images.items()])
    files = [model, *([model.with_suffix(".bin")] if model.with_suffix(".bin").is_file() else [])]
    return {
        "model": [sha256(file) for file in files],
        "choice of pictures": pictures,
        "set of images": hashlib.sha256(text.encode()).hexdigest(),
    }


def _write_all(journal: Journal, writer: _Writer, batch_size: int, quiet: bool) -> set[str]:
    """The ids of all images that have files by now."""
    done = set(journal.done())
    left = [id for id in writer.notes.images if id not in done]
    starts = range(0, len(left), batch_size)
    with StopSignal() as stop:
        with journal.appending(0) as appender:
            for start in track(starts, journal.name, not quiet, len(starts)):
                if stop.received:
                    break
                for id in writer.write(left[start : start + batch_size]):
                    appender.note(id, True)
                    done.add(id)
        if stop.received:
            stop.exit(f"{len(done)} of {len(writer.notes.images)} images are done; run the same command to resume")
    noticed = writer.notes.noticed()
    warn_of_notes(noticed, len(writer.notes.images))
    check_all_read(noticed[0], len(writer.notes.images))
    journal.end()
    if writer.large and not quiet:
        console.say(f"pictures of {writer.large} images are reduced to {LARGEST} pixels; label files are not")
    return done


class _Writer:
    """Reads images and writes their files."""

    def __init__(self, predictor: ExportedPredictor, images: Mapping[str, Path], out: Path, pictures: bool) -> None:
        self.predictor, self.out, self.pictures = predictor, out, pictures
        self.notes, self.large = ImageNotes(images), 0

    def write(self, ids: Sequence[str]) -> list[str]:
        """The files of some images; those that could be read."""
        read = {id: image for id in ids if (image := self._read(id)) is not None}
        for (id, image), maps in zip(read.items(), self.predictor.batch(list(read.values())), strict=True):
            self._write_image(id, image, maps)
        return list(read)

    def _read(self, id: str) -> Array | None:
        path = self.notes.images[id]
        try:
            image = as_pixels(path)
            with open_picture(path) as picture:
                frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
                self.notes.notice(id, picture_orientation(picture), frames)
        except DataError as error:
            self.notes.leave_out(id, str(error))
            return None
        return image

    def _write_image(self, id: str, image_HW3: Array, maps: Maps) -> None:
        size, drawn = (image_HW3.shape[0], image_HW3.shape[1]), []
        for name, (value, confidence) in maps.items():
            task = self.predictor.info.tasks[name]
            task.write(self.out / name / f"{id}.png", value)
            _write_confidence(self.out / CONFIDENCE / name / f"{id}.png", confidence)
            if self.pictures:
                drawn.append(_kept(task, size, value))
        if self.pictures:
            shown = [kept.shown() for kept in drawn]
            save_label_picture(self.out / "pictures" / f"{id}.png", id, image_HW3, shown)
            self.large += is_reduced(*size)


def _kept(task: ExportedTask, size: tuple[int, int], value_CHW: Array) -> Kept:
    kept = Kept(task, size, confidence=False)
    kept.add(0, value_CHW, None, None)
    return kept


def _write_confidence(path: Path, confidence_HW: Array) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(confidence_HW * 255).astype(np.uint8)).save(path, compress_type=3)
